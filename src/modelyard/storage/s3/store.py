"""models.ports.ArtifactStore in a bucket, with a cache of copies on this machine."""

from __future__ import annotations

from pathlib import Path

from modelyard.core.clock import Clock
from modelyard.core.errors import ConflictError, PublishError
from modelyard.core.settings import ArtifactsSettings
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.models.ports import UNTOLD, Steps
from modelyard.storage.file.artifacts import DIGEST
from modelyard.storage.file.cache import ArtifactCache
from modelyard.storage.file.checked import MANIFEST, checked_manifest, parsed_manifest, wrong
from modelyard.storage.refusals import artifact_not_found
from modelyard.storage.s3.client import check_usable
from modelyard.storage.s3.download import Download
from modelyard.storage.s3.location import Location
from modelyard.storage.s3.objects import Objects
from modelyard.storage.s3.refusals import WrongLengthError, not_as_published, written_meanwhile, written_otherwise
from modelyard.storage.s3.retry import Retry
from modelyard.storage.s3.upload import Upload

MOST_MANIFEST_BYTES = 128 * 1024 * 1024
"""Twice what a publish takes of `modelyard.json`, which may hold an example."""
MOST_KEY_BYTES = 1024
"""S3's bound."""


class S3ArtifactStore:
    """The files of a version at `<prefix>/<digest[:2]>/<digest>/<path>`, its `manifest.json` last: with it the version
    is there. Every object is written once (`If-None-Match: *`).

    Making it asks nothing of the bucket; SettingsError("setting_invalid") if the extra `aws` is not installed
    or the endpoint speaks plain HTTP.
    """

    def __init__(self, settings: ArtifactsSettings, cache: ArtifactCache, clock: Clock) -> None:
        check_usable(settings)
        self._settings = settings
        self._cache = cache
        self._clock = clock
        self._location = Location.parse(settings.url or "")
        self._objects = Objects(settings, self._location)

    def put(self, digest: str, folder: Path) -> None:
        """Writes the files that `folder/manifest.json` lists, with their hashes checked on the way.

        Does nothing if the digest is there, or is written meanwhile. PublishError("manifest_invalid") if the folder
        is not its manifest: files before the wrong one may stay in the bucket, but no version does.
        ConflictError("version_exists") if other bytes lie at its keys, UnavailableError("store_unavailable").
        """
        if self.has(digest):
            return
        manifest = checked_manifest(digest, folder)
        content = (folder / MANIFEST).read_bytes()
        for path in (MANIFEST, *(entry.path for entry in manifest.files)):
            if len(self._location.key(digest, path).encode()) > MOST_KEY_BYTES:
                raise wrong(path, f"a path of at most {MOST_KEY_BYTES} bytes with its prefix in the bucket", path)
        retry = self._retry()
        upload = Upload(self._objects, self._settings.part_bytes, self._settings.connections, retry)
        for entry in manifest.files:
            upload.file(digest, folder, entry)
        if not self._objects.put(self._location.key(digest, MANIFEST), content, retry):
            self._check_manifest(digest, retry)

    def open(self, digest: str, steps: Steps = UNTOLD) -> Path:
        """A local copy of the version, its files read-only and of the published hashes, until `release`. From the
        cache without a word to the bucket, if it is whole there.

        NotFoundError("version_not_found"), UnavailableError("model_not_ready") if the bucket holds something else,
        ("store_unavailable").
        """
        if DIGEST.fullmatch(digest) is None:
            raise artifact_not_found(digest)
        return self._cache.open(digest, _Bucket(self._objects, self._settings, self._retry()), steps)

    def release(self, digest: str) -> None:
        """The copy may be removed when room is needed."""
        self._cache.release(digest)

    def has(self, digest: str) -> bool:
        """Whether the bucket has the version, complete; UnavailableError("store_unavailable")."""
        key = self._location.key(digest, MANIFEST)
        return DIGEST.fullmatch(digest) is not None and self._objects.exists(key, self._retry())

    def _retry(self) -> Retry:
        return Retry(self._settings.attempts, self._settings.timeout_s, self._clock)

    def _check_manifest(self, digest: str, retry: Retry) -> None:
        """Another writer's manifest is as good as ours if it is of the same digest."""
        content = self._objects.read(self._location.key(digest, MANIFEST), MOST_MANIFEST_BYTES, retry)
        if content is None:
            raise written_meanwhile(self._location)
        try:
            parsed_manifest(digest, content)
        except PublishError as error:
            raise _other_manifest(digest, error) from None


def probe(settings: ArtifactsSettings, clock: Clock) -> str:
    """The bucket's address, if it answers and may be listed; UnavailableError("store_unavailable"), SettingsError."""
    check_usable(settings)
    location = Location.parse(settings.url or "")
    retry = Retry(settings.attempts, settings.timeout_s, clock)
    Objects(settings, location).exists(location.key("0" * 64, MANIFEST), retry)
    return location.shown()


def _other_manifest(digest: str, error: PublishError) -> ConflictError:
    return written_otherwise(digest, FileEntry(MANIFEST, digest, 0), str(error.detail.get("got")))


class _Bucket:
    """storage.file.cache.Origin, for one `open`."""

    def __init__(self, objects: Objects, settings: ArtifactsSettings, retry: Retry) -> None:
        self._objects = objects
        self._settings = settings
        self._retry = retry

    def manifest(self, digest: str) -> bytes:
        try:
            key = self._objects.location.key(digest, MANIFEST)
            content = self._objects.read(key, MOST_MANIFEST_BYTES, self._retry)
        except WrongLengthError as error:
            raise not_as_published(digest, MANIFEST, f"at most {MOST_MANIFEST_BYTES} bytes", error.got) from None
        if content is None:
            raise artifact_not_found(digest)
        return content

    def fill(self, digest: str, manifest: Manifest, folder: Path) -> None:
        download = Download(self._objects, digest, folder, self._retry)
        download.run(manifest, self._settings.part_bytes, self._settings.connections)
