"""What a bundle says of the files: an in-toto statement of the OpenSSF model signing specification 1.0.

Its resources must be the version's files, all of them and no other, each with its SHA-256. Lists of ignored paths are
not looked at: a file that nobody signed is a file that nobody vouches for.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

import msgspec

from modelyard.core.errors import PublishError
from modelyard.models.manifest import FileEntry
from modelyard.models.stage import MAX_FILES, check_path

BUNDLE_FILE = "model.sig"
"""Where the specification's tools put the bundle; the one file of a version that it does not cover."""
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
PREDICATE_TYPE = "https://model_signing/signature/v1.0"
LONE = "."
"""What `model_signing` calls a model that is one file."""
SHOWN_FILES = 3
_SHA256 = re.compile("[0-9a-f]{64}")
T = TypeVar("T")


class Subject(msgspec.Struct, frozen=True):
    """The model as a whole: `digest` is of the digests of its files, in their order."""

    digest: Mapping[str, str]


class Statement(msgspec.Struct, frozen=True):
    """The envelope of what is said; of the predicate's kind alone depends what is in it."""

    kind: str = msgspec.field(name="_type")
    predicate_kind: str = msgspec.field(name="predicateType")
    subject: tuple[Subject, ...]
    predicate: Any


class Resource(msgspec.Struct, frozen=True):
    """One file."""

    name: str
    algorithm: str
    digest: str


class Serialization(msgspec.Struct, frozen=True):
    """How the files were hashed: whole, or in shards."""

    method: str
    hash_type: str


class Predicate(msgspec.Struct, frozen=True):
    """What the specification 1.0 has in it; other fields are to be ignored, it says."""

    serialization: Serialization
    resources: tuple[Resource, ...]


def check_coverage(payload: object, files: Iterable[FileEntry]) -> None:
    """PublishError("signature_invalid") unless the statement names these files exactly; the sentence names some."""
    signed = _signed(payload)
    found = {entry.path: entry.sha256 for entry in files if entry.path != BUNDLE_FILE}
    if signed.keys() == {LONE} and len(found) == 1:
        signed = dict.fromkeys(found, signed[LONE])
    for name in signed:
        _check_name(name)
    both = signed.keys() & found.keys()
    for names, what in (
        ((name for name in both if signed[name] != found[name]), "changed since"),
        (signed.keys() - found.keys(), "missing"),
        (found.keys() - signed.keys(), "not covered by it"),
    ):
        if differing := sorted(names):
            raise invalid(f"{_shown(differing)} {what}.", got=[_plain(name) for name in differing[:SHOWN_FILES]])


def _signed(payload: object) -> dict[str, str]:
    """Name and SHA-256 of what was signed."""
    statement = read(payload, Statement)
    if statement.kind != STATEMENT_TYPE or statement.predicate_kind != PREDICATE_TYPE:
        raise invalid(
            "its statement is of another kind or version.",
            expected=[STATEMENT_TYPE, PREDICATE_TYPE],
            got=[_plain(statement.kind), _plain(statement.predicate_kind)],
        )
    predicate = read(statement.predicate, Predicate)
    how = predicate.serialization
    if how.method != "files" or how.hash_type != "sha256":
        raise invalid(
            "its files were hashed in another way than whole, by SHA-256.",
            expected=["files", "sha256"],
            got=[_plain(how.method), _plain(how.hash_type)],
        )
    _check_resources(predicate.resources, statement.subject)
    return {resource.name: resource.digest for resource in predicate.resources}


def _check_resources(resources: tuple[Resource, ...], subject: tuple[Subject, ...]) -> None:
    if not 1 <= len(resources) <= MAX_FILES:
        raise invalid(f"it must name 1 to {MAX_FILES} files.", got=len(resources))
    names: set[str] = set()
    for each in resources:
        if each.algorithm != "sha256" or _SHA256.fullmatch(each.digest) is None:
            raise invalid(f"`{_plain(each.name)}` has no SHA-256.", got=_plain(each.algorithm))
        if each.name in names:
            raise invalid(f"it names `{_plain(each.name)}` twice.")
        names.add(each.name)
    whole = hashlib.sha256(b"".join(bytes.fromhex(each.digest) for each in resources)).hexdigest()
    if [one.digest.get("sha256") for one in subject] != [whole]:
        raise invalid("its digest of the whole model is not that of the files it names.", expected=whole)


def _check_name(name: str) -> None:
    if name == BUNDLE_FILE:
        raise invalid(f"it covers a `{BUNDLE_FILE}` of before: delete that, then sign again.")
    try:
        check_path(name)
    except PublishError:
        raise invalid(f"it names `{_plain(name)}`, which no version may hold.", got=_plain(name)) from None


def read(found: object, kind: type[T]) -> T:
    """Decoded JSON as a value; PublishError("signature_invalid") that says what is wrong, and where."""
    try:
        return msgspec.convert(found, kind)
    except (msgspec.ValidationError, RecursionError) as error:
        raise invalid(f"{_plain(str(error))}.") from None


def _shown(names: list[str]) -> str:
    shown = ", ".join(f"`{_plain(name)}`" for name in names[:SHOWN_FILES])
    more = f" and {len(names) - SHOWN_FILES} more" if len(names) > SHOWN_FILES else ""
    return f"{shown}{more} {'is' if len(names) == 1 else 'are'}"


def _plain(text: str) -> str:
    """What a stranger wrote, printable and short."""
    return ascii(text)[1:-1][:200]


def invalid(why: str, **detail: Any) -> PublishError:
    """The bundle is not one that holds for these files."""
    return PublishError("signature_invalid", f"The bundle does not hold: {why}", field=BUNDLE_FILE, **detail)
