"""The forms of the management routes' answers: what the OpenAPI document promises, and what the tests hold the real
answers to. No answer has a field that is not here."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, RootModel

from modelyard.core.types import DATATYPES

Time = str
"""RFC 3339, UTC."""


class Answer(BaseModel):
    """A JSON answer; nothing beside the named fields."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Refusal(Answer):
    """Every error: one sentence for people, a stable code for programs, what was wrong."""

    error: str = Field(description="One sentence.")
    code: str = Field(description="Stable; docs/reference/errors.md lists them.", examples=["field_missing"])
    detail: dict[str, Any] = Field(description="`field`, `expected`, `got`, `example`, where they apply.")
    request_id: str


class ListAnswer(Answer):
    """One page."""

    next_cursor: str | None = Field(description="`cursor` of the next page; null at the end.")


class Tensor(Answer):
    """One input or output; -1 in a shape varies."""

    name: str
    datatype: str = Field(json_schema_extra={"enum": list(DATATYPES)})
    shape: list[int]
    columns: list[str] = Field([], description="The features along the last dimension.")
    labels: list[str] = Field([], description="The classes.")


class SignatureAnswer(Answer):
    """What a version takes and gives."""

    inputs: list[Tensor]
    outputs: list[Tensor]


class File(Answer):
    """One file of a version."""

    path: str
    sha256: str = Field(pattern="^[0-9a-f]{64}$")
    size_bytes: int = Field(ge=0)


class VersionLine(Answer):
    """A version in a list."""

    model: str
    version: str
    format: str
    size_bytes: int = Field(ge=0)
    digest: str = Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the manifest; names the content.")
    created_at: Time


class SigningAnswer(Answer):
    """Who signed a version. That the signature holds is checked at the publish and at every load."""

    signer: str | None = Field(description="SHA-256 of the public key in DER; null: not signed.")
    trusted: bool = Field(description="Whether `models.trusted_signers` names the key, or its authority's, now.")
    method: Literal["ed25519", "openssf-key", "openssf-certificate"] | None = Field(
        description="`modelyard.sig`, or an OpenSSF bundle of a key or a certificate; null: not signed."
    )
    authority: str | None = Field(
        description="SHA-256 of the key of the trusted certificate that vouched at the publish."
    )
    checked_at: Time | None = Field(description="When it was published.")


class VersionAnswer(VersionLine):
    """All that is known of a version."""

    entry: str
    files: list[File]
    signature: SignatureAnswer
    example: dict[str, Any] | None = Field(description="A request in the Open Inference Protocol's form.")
    metrics: dict[str, Any]
    provenance: dict[str, str]
    limits: dict[str, Any]
    redaction: list[str]
    signing: SigningAnswer


class VersionState(Answer):
    """How TensorFlow Serving says whether a version answers."""

    version: str
    state: Literal["AVAILABLE", "LOADING", "END"] = Field(
        description="LOADING: not in memory; on its way, or at rest until a prediction names it. END: taken out, "
        "workers died in its runs."
    )
    status: dict[str, str]


class StatusAnswer(Answer):
    """What a key that may only predict learns of a model or a version."""

    name: str
    ready: bool
    model_version_status: list[VersionState]


class LoadStep(Answer):
    """A step of a load: wait, resolve, download, verify, parse, warm_up, first_answer. Steps may overlap."""

    name: str
    start_s: float = Field(description="Since the load was asked for.")
    duration_s: float
    size_bytes: int | None = Field(description="Null where no bytes are read or fetched.")
    mb_per_s: float | None = Field(description="10^6 bytes a second.")


class LoadAnswer(Answer):
    """A version's newest load in one worker."""

    worker: int
    state: Literal["loading", "loaded", "failed"]
    begun_at: Time
    total_s: float | None = Field(description="Until it was loaded or failed; null while it is being loaded.")
    steps: list[LoadStep]
    code: str | None = Field(description="Why it failed, for programs.")
    reason: str | None = Field(description="Why it failed.")


class WholeVersionAnswer(VersionAnswer):
    """All that is known of a version, whether it answers, and how it was loaded by the workers of this host."""

    ready: bool
    model_version_status: list[VersionState]
    held_by: Literal["worker", "shared_process", "jail"] = Field(
        description="Whose memory it is loaded into: each worker's, that of one process for all, or of a jail in each."
    )
    loads: list[LoadAnswer]


class VersionShownAnswer(RootModel[WholeVersionAnswer | StatusAnswer]):
    """A version, by what the key may see."""


class RevivedAnswer(Answer):
    """A version that may be loaded again; `revived` false: it was not out."""

    model: str
    version: str
    revived: bool


class PublishedAnswer(VersionAnswer):
    """A version, and whether this call made it."""

    created: bool


class VersionsAnswer(ListAnswer):
    """Versions of a model, oldest first."""

    versions: list[VersionLine]


class EndpointAnswer(Answer):
    """An endpoint and the shares of its versions."""

    name: str
    model: str
    weights: dict[str, int] = Field(description="Percent by version.")
    revision: int = Field(ge=1, description="Grows with every change; `ETag` is this number in quotes.")


class EndpointsAnswer(ListAnswer):
    """Endpoints, by name."""

    endpoints: list[EndpointAnswer]


class ModelLine(Answer):
    """A model in a list."""

    name: str
    versions: list[str]
    latest: str
    format: str
    traffic: dict[str, int] = Field(description="Of the endpoint with the model's name.")
    unhealthy: list[str] = Field([], description="Versions that are not loaded because workers died in their runs.")
    created_at: Time


class ModelsAnswer(ListAnswer):
    """Models, by name."""

    models: list[ModelLine]


class ModelAnswer(Answer):
    """One model, its versions and the endpoints that serve it."""

    name: str
    versions: list[VersionLine]
    latest: str
    format: str
    traffic: dict[str, int]
    unhealthy: list[str] = []
    created_at: Time
    endpoints: list[EndpointAnswer]
    ready: bool = Field(description="Every version that gets traffic answers.")
    model_version_status: list[VersionState]


class ModelShownAnswer(RootModel[ModelAnswer | StatusAnswer]):
    """A model, by what the key may see."""


class KeyAnswer(Answer):
    """One key, without its text."""

    id: str
    client: str
    scopes: list[str]
    models: list[str]
    rate: str | None
    created_at: Time
    expires_at: Time | None
    revoked_at: Time | None
    state: Literal["active", "expired", "revoked"]
    quota: str | None = Field(description="The client's predictions per UTC day.", examples=["10000/day"])
    concurrency: int | None = Field(description="The client's predictions at the same time.")
    client_models: list[str] = Field(description="Patterns that bound all keys of the client.")
    replaces: str | None = Field(description="The key that this one was made for by a rotation.")
    replaced_by: str | None = Field(description="The key that was made for this one by a rotation.")
    last_used_at: Time | None = Field(description="To the minute; null if it never was, or less than a minute ago.")


class IssuedAnswer(KeyAnswer):
    """A key just issued; `key` is its text, this once."""

    key: str


class KeysAnswer(ListAnswer):
    """Keys, newest first."""

    keys: list[KeyAnswer]


class RevokedAnswer(Answer):
    """Keys that a bulk revocation ended, or would have ended (`dry_run`)."""

    dry_run: bool
    revoked: list[KeyAnswer]


class OwnKey(Answer):
    """The key that was presented, without its text."""

    id: str
    scopes: list[str] = Field(description="With those that come with another one.")
    models: list[str]
    expires_at: Time | None


class OwnLimits(Answer):
    """What the client may use; null: no bound of its own."""

    rate: str
    burst: int
    quota: str | None
    concurrency: int | None


class OwnRest(Answer):
    """What is left of it now."""

    rate: int | None = Field(description="Requests that would pass at once; this one is counted.")
    rate_reset_s: float | None = Field(description="Until the whole burst is back.")
    quota: int | None
    quota_reset_s: float | None = Field(description="Until the next UTC day.")
    concurrency: int | None = Field(description="On the worker that answered, which grants its share of the whole.")


class MeAnswer(Answer):
    """A client's own view."""

    client: str
    key: OwnKey
    limits: OwnLimits
    left: OwnRest


class ServerAnswer(Answer):
    """What the server is (Open Inference Protocol)."""

    name: Literal["modelyard"]
    version: str
    extensions: list[str]


class LiveAnswer(Answer):
    """The event loop turns."""

    live: Literal[True]


class AliveAnswer(Answer):
    """The event loop turns, in the words of KServe's V1 protocol."""

    status: Literal["alive"]


class ReadyAnswer(Answer):
    """Requests may be sent here."""

    ready: Literal[True]
    live: Literal[True]


class MetadataAnswer(Answer):
    """A model as the Open Inference Protocol describes it."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[Tensor]
    outputs: list[Tensor]


class ModelReadyAnswer(Answer):
    """A model answers."""

    name: str
    ready: Literal[True]


class NotReadyAnswer(Refusal):
    """Not ready: every refusal's fields, and the protocol's own beside them."""

    ready: Literal[False]
    live: bool | None = None
    name: str | None = None
    reason: str | None = None
