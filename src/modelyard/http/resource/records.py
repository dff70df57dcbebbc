"""The forms of the prediction log's answers; docs/concepts/records.md says what the fields mean."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from modelyard.http.resource.answers import Answer, ListAnswer, Time


class Latency(Answer):
    """Microseconds."""

    queue_us: int
    compute_us: int
    total_us: int


class Sizes(Answer):
    """Bytes in and out."""

    request_bytes: int
    answer_bytes: int


class Came(Answer):
    """What came true of an item."""

    value: Any
    at: Time
    revision: int


class CameOfItem(Came):
    """The same, of one item of a request."""

    item: int


class Asked(Answer):
    """Who asked what, and how it was answered."""

    id: str
    time: Time
    request_id: str
    client: str
    key_id: str
    endpoint: str
    model: str
    version: str
    arm: int
    status: int
    code: str
    surface: str
    subject: str = Field(description="Whom the request was about; empty for nobody named.")
    flag: str
    inputs: Any
    outputs: Any


class RecordAnswer(Asked):
    """One request."""

    rows: int
    latency: Latency
    sizes: Sizes
    outcomes: list[CameOfItem] = Field(description="The latest of each item.")


class ItemAnswer(Asked):
    """One item of a request."""

    prediction_id: str
    item: int
    error: Any
    outcome: Came | None


class QuarantinedAnswer(Answer):
    """What could not be stored as a record of its own."""

    id: str
    time: Time
    reason: str = Field(description="`id_taken`, or the flag of a record that was kept raw.")
    raw_bytes: int = Field(description="Kept bytes; 0 where a redaction policy forbids that.")
    client: str
    endpoint: str
    model: str
    version: str
    status: int
    payload_sha256: str


class PredictionsAnswer(ListAnswer):
    """One page of requests, of items, or of what is quarantined."""

    predictions: list[RecordAnswer] | list[ItemAnswer] | list[QuarantinedAnswer]


class CountAnswer(Answer):
    """How many match."""

    count: int


class Kept(Answer):
    """What was kept under an id beside, or instead of, its record."""

    reason: str
    payload_sha256: str
    raw: str | None = Field(None, description="Base64.")
    record: dict[str, Any] | None = None


class ShownAnswer(RecordAnswer):
    """One record whole."""

    kept: list[Kept] | None = Field(None, description="With `raw`.")


class GivenAnswer(Answer):
    """An outcome as it is on record. `created` false: this value was the latest already. `joined` false: its request
    is still on its way into the log."""

    id: str = Field(description="`{prediction_id}/{item}`.")
    value: Any
    at: Time
    revision: int
    created: bool
    joined: bool


class RefusedOutcome(Answer):
    """Why one of many was refused."""

    error: str
    code: str
    status: int
    detail: dict[str, Any]


class ResultOfOutcome(Answer):
    """What became of one of many; one of both is null."""

    index: int
    outcome: GivenAnswer | None
    error: RefusedOutcome | None


class OutcomesAnswer(Answer):
    """What became of many."""

    stored: int
    waiting: int = Field(description="Of the stored ones: whose requests are still on their way into the log.")
    refused: int
    results: list[ResultOfOutcome]


class Revision(CameOfItem):
    """One outcome of an item's history."""

    recorded_at: Time
    client: str
    key_id: str


class HistoryAnswer(Answer):
    """All that was ever said of a request, by item, oldest first."""

    outcomes: list[Revision]
