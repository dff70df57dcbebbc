"""Publish: from a file or a folder to an immutable version, or to a refusal that leaves nothing behind (P5, P8)."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import msgspec

from modelyard.core.clock import Clock
from modelyard.core.errors import (
    ConflictError,
    InvalidRequestError,
    ModelyardError,
    NotFoundError,
    PublishError,
    UnavailableError,
)
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.core.types import NAME
from modelyard.models.complete import check_redaction
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.models.ports import ArtifactStore, Registry, Version
from modelyard.models.report import Check, CheckOptions, CheckReport, Overrides, jail_bounds
from modelyard.models.signing.statement import OVERRIDES_FILE as OVERRIDES
from modelyard.models.signing.statement import named_content
from modelyard.models.signing.trust import Signed, Trust
from modelyard.models.stage import RESERVED, stage_file, stage_folder
from modelyard.telemetry.logs import emit

MAX_OVERRIDES_BYTES = 64 * 1024 * 1024
SUFFIXES: Mapping[str, str] = {"onnx": ".onnx", "sklearn": ".skops", "lightgbm": ".txt", "xgboost": ".ubj",
                                "torchscript": ".pt", "torch_export": ".pt2", "tensorflow": ".pb", "python": ".json",
                                "pickle": ".pkl"}  # fmt: skip
"""A file that is published alone is stored as `model` with the suffix of its format, whatever it was called."""
ABANDONED_S = 86_400.0
"""A staging folder of this age belongs to a publish that was killed."""
MAX_TRIES = 5
"""How often a free number is looked for while others publish the same model."""


class PublishResult(msgspec.Struct, frozen=True):
    """`created` is False if the same bytes were published before."""

    version: Version
    created: bool


class _Staged(msgspec.Struct, frozen=True):
    """The private copy: the model's own `files`, and, of a signed version, what is kept beside them as it came."""

    files: list[FileEntry]
    overrides: Overrides
    beside: tuple[FileEntry, ...] = ()
    contents: Mapping[str, bytes] = {}
    signed: Signed = Signed()


class Publisher:
    """Publishes versions. `check` runs the files in another process (`runtimes.child.check_in_child`); `admit` refuses
    what would not fit into memory (`models.loads.admission.Admission`)."""

    def __init__(
        self,
        registry: Registry,
        artifacts: ArtifactStore,
        settings: Settings,
        clock: Clock,
        check: Check,
        admit: Callable[[Version], None] = lambda version: None,
    ) -> None:
        self._registry = registry
        self._artifacts = artifacts
        self._settings = settings
        self._clock = clock
        self._check = check
        self._admit = admit
        self._trust = Trust.of(settings.models)

    def publish(
        self,
        model: str,
        source: Path,
        version: str | None = None,
        metrics: Mapping[str, Any] | None = None,
        example: Mapping[str, Any] | None = None,
    ) -> PublishResult:
        """Publishes a file or a folder. Without `version` the next number is taken.

        The same bytes again are a no-op. InvalidRequestError("name_invalid"), TooLargeError, PublishError,
        ConflictError("version_exists" | "memory_insufficient"), UnavailableError("store_unavailable"); each leaves
        nothing behind. Signatures are checked before anything else looks at the files.
        """
        try:
            check_name("model", model)
            if version is not None:
                check_name("version", version)
            with self._private_folder() as folder:
                result = self._publish(folder, model, source, version, metrics, example)
        except ModelyardError as error:
            emit(Event.MODEL_REFUSED, "warning", model=model, version=version, code=error.code, reason=error.message)
            raise
        except OSError as error:
            emit(Event.MODEL_REFUSED, "error", model=model, version=version, code="store_unavailable")
            raise UnavailableError(
                "store_unavailable", f"The data folder cannot be written: {error.strerror}.", retry_after_s=1
            ) from error
        if result.created:
            stored = result.version
            emit(Event.MODEL_PUBLISHED, model=model, version=stored.version, digest=stored.digest)
        return result

    def _publish(
        self,
        folder: Path,
        model: str,
        source: Path,
        version: str | None,
        metrics: Mapping[str, Any] | None,
        example: Mapping[str, Any] | None,
    ) -> PublishResult:
        staged = self._stage(folder, source)
        overrides = msgspec.structs.replace(
            staged.overrides,
            metrics={**staged.overrides.metrics, **(metrics or {})},
            example=example if example is not None else staged.overrides.example,
        )
        if (known := self._known(model, version, [*staged.files, *staged.beside])) is not None:
            return PublishResult(known, False)
        report = self._check(folder, self._options(overrides, staged.signed))
        check_redaction(report.signature, overrides.redaction)
        # A bundle names its files: there a file alone keeps the name that was signed.
        named = staged.signed.method is not None
        files, entry = (staged.files, report.entry) if named else _settle_name(folder, staged.files, report)
        for name, content in staged.contents.items():
            (folder / name).write_bytes(content)
        manifest = _manifest(report, [*files, *staged.beside], entry, overrides, staged.signed)
        (folder / RESERVED).write_bytes(msgspec.json.encode(manifest))
        digest = manifest.digest()
        self._admit(Version(model, version or self._next(model), digest, manifest, self._clock.now()))
        self._artifacts.put(digest, folder)
        return self._register(model, version, manifest, digest)

    def _stage(self, folder: Path, source: Path) -> _Staged:
        """The private copy of the files, what the owner says of them, and who signed them."""
        try:
            source = source.resolve(strict=True)
        except (OSError, RuntimeError):
            raise InvalidRequestError(
                "parameter_invalid", f"There is no file or folder `{source.name}`.", field="source", got=source.name
            ) from None
        bound = self._settings.models.max_version_bytes
        if not source.is_dir():
            name = "model" + (source.suffix if source.suffix in SUFFIXES.values() else "")
            files = [stage_file(source, folder, name, bound)]
            return _Staged(files, Overrides(), signed=self._trust.examine(None, files))
        files = stage_folder(source, folder, bound)
        signed = self._trust.examine_folder(folder, files, self._clock.now())
        overrides = read_overrides(folder / OVERRIDES)
        kept = (OVERRIDES, signed.file) if signed.file is not None else ()
        beside = tuple(entry for entry in files if entry.path in kept)
        contents = {entry.path: (folder / entry.path).read_bytes() for entry in beside}
        for name in (OVERRIDES, *kept):
            (folder / name).unlink(missing_ok=True)
        own = [entry for entry in files if entry.path not in (OVERRIDES, *kept)]
        return _Staged(own, overrides, beside, contents, signed)

    def _known(self, model: str, version: str | None, files: list[FileEntry]) -> Version | None:
        """The version that has these bytes already; ConflictError if the asked-for one has others."""
        for stored in reversed(self._versions(model)):
            same = _same_content(stored.manifest.files, files)
            if version in (None, stored.version) and same:
                return stored
            if version == stored.version:
                raise ConflictError(
                    "version_exists",
                    f"The version `{version}` of `{model}` exists with other content; versions never change.",
                    field="version",
                    expected="a new version, or the same bytes",
                    got=version,
                    example=self._next(model),
                )
        return None

    def _versions(self, model: str) -> tuple[Version, ...]:
        try:
            return self._registry.versions(model)
        except NotFoundError:
            return ()

    def _next(self, model: str) -> str:
        numbers = [int(v.version) for v in self._versions(model) if v.version.isascii() and v.version.isdigit()]
        return str(max(numbers, default=0) + 1)

    def _options(self, overrides: Overrides, signed: Signed) -> CheckOptions:
        models = self._settings.models
        return CheckOptions(
            trusted_types=models.trusted_types,
            threads=models.max_threads or 1,
            timeout_s=models.publish_timeout_s,
            memory_bytes=models.publish_memory_bytes,
            max_version_bytes=models.max_version_bytes,
            max_loop_run_us=self._settings.batching.max_loop_run_us,
            overrides=overrides,
            unsafe_formats=models.unsafe_formats,
            signed=signed,
            jail=jail_bounds(models),
        )

    def _register(self, model: str, version: str | None, manifest: Manifest, digest: str) -> PublishResult:
        for attempt in range(MAX_TRIES):
            named = Version(model, version or self._next(model), digest, manifest, self._clock.now())
            try:
                created = self._registry.add_version(named)
            except ConflictError:
                if version is not None or attempt == MAX_TRIES - 1:
                    raise
                continue
            return PublishResult(named if created else self._registry.version(model, named.version), created)
        raise UnavailableError("store_unavailable", "No free version number was found.", retry_after_s=1)

    @contextmanager
    def _private_folder(self) -> Iterator[Path]:
        """A folder of this process's user alone, gone afterwards."""
        root = self._settings.data / "staging"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._sweep(root)
        folder = Path(tempfile.mkdtemp(prefix=f"{os.getpid()}-", dir=root))
        try:
            yield folder
        finally:
            shutil.rmtree(folder, ignore_errors=True)

    def _sweep(self, root: Path) -> None:
        """Deletes what a killed publish left. By age, not by process: another container may share the folder."""
        for folder in root.iterdir():
            with suppress(OSError):
                if self._clock.now() - folder.stat().st_mtime > ABANDONED_S:
                    shutil.rmtree(folder, ignore_errors=True)


def check_name(field: str, name: str) -> None:
    """InvalidRequestError("name_invalid") unless the name is safe in a path, a header and a log line."""
    if NAME.fullmatch(name) is None or ".." in name:
        raise InvalidRequestError(
            "name_invalid",
            f"The {field} name is not allowed: use letters, digits, `.`, `_` and `-`, 1 to 128 of them.",
            field=field,
            expected=NAME.pattern,
            got=ascii(name)[1:-1][:130],
            example="churn-model",
        )


def read_overrides(path: Path) -> Overrides:
    """What `modelyard.json` says; PublishError("manifest_invalid") that names the place."""
    if not path.is_file():
        return Overrides()
    if path.stat().st_size > MAX_OVERRIDES_BYTES:
        raise _invalid(f"it is larger than {MAX_OVERRIDES_BYTES} bytes.")
    try:
        return msgspec.json.decode(path.read_bytes(), type=Overrides)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise _invalid(str(error)[:300]) from None


def _invalid(why: str) -> PublishError:
    return PublishError(
        "manifest_invalid",
        f"`{OVERRIDES}` is wrong: {why}",
        field=OVERRIDES,
        expected=list(Overrides.__struct_fields__),
        got=why,
        example={"labels": ["no", "yes"], "columns": ["age", "income"]},
    )


def _same_content(stored: tuple[FileEntry, ...], files: list[FileEntry]) -> bool:
    """By SHA-256; a file alone is the same whatever it was called. Another signature makes another content."""
    return named_content(stored) == named_content(files)


def _settle_name(folder: Path, files: list[FileEntry], report: CheckReport) -> tuple[list[FileEntry], str]:
    """A file alone gets its canonical name, so that the same bytes have the same content digest."""
    name = "model" + (report.suffix or SUFFIXES.get(report.format, ""))
    if len(files) != 1 or files[0].path == name:
        return files, report.entry
    (folder / files[0].path).rename(folder / name)
    return [msgspec.structs.replace(files[0], path=name)], name


def _manifest(
    report: CheckReport, files: list[FileEntry], entry: str, overrides: Overrides, signed: Signed
) -> Manifest:
    return Manifest(
        format=report.format,
        entry=entry,
        files=tuple(files),
        signature=report.signature,
        example=report.example if overrides.example is None else overrides.example,
        metrics=overrides.metrics,
        provenance={**report.provenance, **overrides.provenance},
        limits=overrides.limits,
        redaction=overrides.redaction,
        signer=_known(signed.signer),
        signing_method=_known(signed.method),
        signing_authority=_known(signed.authority),
    )


def _known(text: str | None) -> str | msgspec.UnsetType:
    return msgspec.UNSET if text is None else text
