"""The parameters and bodies of the management routes, as FastAPI reads and documents them; unknown names are
refused."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import Path
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StrictInt
from pydantic_core import PydanticCustomError

from modelyard.http.forms.asking import DEFAULT_PAGE, MAX_PAGE, NAME_RULE, is_name, record_filter
from modelyard.http.resource.paging import MAX_CURSOR_CHARS
from modelyard.journal.ports import RecordFilter


def _named(field: str) -> Callable[[str], str]:
    def check(text: str) -> str:
        if not is_name(text):
            raise PydanticCustomError(
                "name_invalid", "`{got}` cannot be the name of a {field}", {"got": text[:80], "field": field}
            )
        return text

    return check


ModelName = Annotated[str, Path(description=f"A model: {NAME_RULE}."), AfterValidator(_named("model"))]
VersionName = Annotated[str, Path(description=f"A version: {NAME_RULE}."), AfterValidator(_named("version"))]
EndpointName = Annotated[str, Path(description=f"An endpoint: {NAME_RULE}."), AfterValidator(_named("endpoint"))]


class Asked(BaseModel):
    """A body or query; frozen, unknown names are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class NewKeyBody(Asked):
    """`POST /v1/keys`."""

    client: str = Field(description="Who the key belongs to; made if new.", examples=["acme-prod"])
    scopes: list[str] = Field(["predict"], description="What the key may do.", max_length=8)
    models: list[str] = Field(["*"], description="Which models, as glob patterns.", max_length=64)
    client_models: list[str] | None = Field(
        None, description="Patterns that bound all keys of the client; kept if unset.", max_length=64
    )
    rate: str | None = Field(None, description="The client's rate; kept if unset.", examples=["100/s"])
    quota: str | None = Field(None, description="The client's daily quota; kept if unset.", examples=["10000/day"])
    concurrency: StrictInt | None = Field(
        None, description="The client's predictions at the same time; kept if unset.", examples=[16]
    )
    expires: str | None = Field(None, description="When the key ends, from now on.", examples=["30d"])

    def bounds(self) -> dict[str, Any]:
        """The client's bounds that were given, by name; at its making there is none to take away."""
        return self.model_dump(include={"client_models", "quota", "concurrency"}, exclude_none=True)


class KeyChangeBody(Asked):
    """`PATCH /v1/keys/{id}`: what is absent is kept, null takes a bound away."""

    models: list[str] | None = Field(None, description="The key's models, as glob patterns.", max_length=64)
    client_models: list[str] | None = Field(
        None, description="Patterns that bound all keys of the client.", max_length=64
    )
    rate: str | None = Field(None, description="The client's rate.", examples=["100/s"])
    quota: str | None = Field(None, description="The client's daily quota.", examples=["10000/day"])
    concurrency: StrictInt | None = Field(None, description="The client's predictions at the same time.")

    def given(self) -> dict[str, Any]:
        """What the caller gave, by name."""
        return self.model_dump(exclude_unset=True)


class RotationBody(Asked):
    """`POST /v1/keys/{id}/rotation`."""

    overlap: str = Field("24h", description="How long the old key goes on beside the new one.", examples=["24h"])


class KeySelectionQuery(Asked):
    """Which keys."""

    client: str | None = Field(None, max_length=255, description="Only this client's.")
    unused_since: str | None = Field(
        None, max_length=64, description="Not used since then: ISO 8601, UNIX seconds, or a duration before now.",
        examples=["90d"],
    )  # fmt: skip
    created_before: str | None = Field(None, max_length=64, description="Made before then: as `unused_since`.")


class KeyListQuery(KeySelectionQuery):
    """One page of them."""

    limit: int = Field(DEFAULT_PAGE, ge=1, le=MAX_PAGE, description="Most elements of the page.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR_CHARS, description="`next_cursor` of the page before.")


class RevocationBody(KeySelectionQuery):
    """`POST /v1/keys/revocations`: at least one of the first three."""

    dry_run: bool = Field(False, description="Only say which keys these are.")


class RevocationQuery(Asked):
    """`DELETE /v1/clients/{client}/keys`."""

    dry_run: bool = Field(False, description="Only say which keys these are.")


class TrafficBody(Asked):
    """`PUT /v1/endpoints/{endpoint}/traffic`."""

    weights: dict[str, StrictInt] = Field(
        description="Percent by version; 100 together.", examples=[{"1": 90, "2": 10}], max_length=64
    )


class ListQuery(Asked):
    """One page of a list."""

    limit: int = Field(DEFAULT_PAGE, ge=1, le=MAX_PAGE, description="Most elements of the page.")
    cursor: str | None = Field(None, max_length=MAX_CURSOR_CHARS, description="`next_cursor` of the page before.")


class FilterQuery(Asked):
    """Which records of the prediction log."""

    model: str | None = None
    version: str | None = None
    client: str | None = None
    endpoint: str | None = None
    status: str | None = Field(None, description="A status or a class.", examples=["2xx"])
    since: str | None = Field(None, description="ISO 8601, UNIX seconds, or a duration before now.", examples=["15m"])
    until: str | None = Field(None, description="As `since`; exclusive.")
    subject: str | None = Field(None, max_length=256, description="Whom the request was about.")
    outcome: str | None = Field(None, description="`has`, `none`, or `=` and a value.", examples=["has", "=1"])
    items: bool = Field(False, description="One row for each item of a request.")

    def to_filter(self, now: float) -> RecordFilter:
        """The filter at UNIX time `now`; InvalidRequestError."""
        texts: dict[str, Any] = self.model_dump(include=set(FilterQuery.model_fields))
        return record_filter({**texts, "items": "true" if self.items else None}, now)


class PageQuery(FilterQuery):
    """One page of them."""

    limit: int = Field(DEFAULT_PAGE, ge=1, le=MAX_PAGE, description="Most records of the page.")
    cursor: str | None = Field(None, max_length=512, description="From the page before.")
    quarantined: bool = Field(False, description="What could not be stored as a record of its own, instead.")


class ShowQuery(Asked):
    """How much of one record."""

    raw: bool = Field(False, description="With `kept`: the bytes that nobody understood, or the record set aside.")


class ExportQuery(FilterQuery):
    """All of them, as one stream."""

    format: Literal["jsonl", "csv", "parquet"] = Field("jsonl", description="JSON Lines, CSV or Parquet.")


class OutcomeBody(Asked):
    """`POST /v1/predictions/{id}/outcome`."""

    value: Any = Field(description="What came true: any JSON value, at most 4 KiB.", examples=[1])
    item: StrictInt = Field(0, ge=0, le=2**31 - 1, description="Of which item of the request.")
    at: str | float | None = Field(
        None, description="Since when it is so: ISO 8601 or UNIX seconds; now if unset.", examples=["2026-01-31T12:00Z"]
    )
