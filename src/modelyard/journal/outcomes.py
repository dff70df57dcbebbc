"""Outcomes: what came true of a prediction, given to it later by its client (DATA-2).

An outcome may come before the drain has stored its record. So an id that the database does not know is looked for in
the spool; one that is in neither is unknown. Nothing is accepted that cannot be joined later.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from modelyard.core.clock import Clock
from modelyard.core.errors import InvalidRequestError, ModelyardError, NotFoundError, UnavailableError
from modelyard.journal.frame import read_frames
from modelyard.journal.ids import spool_name_part
from modelyard.journal.ports import Outcome, OutcomeStore, StoredOutcome, Target, items_of
from modelyard.journal.spool import spool_files

MAX_VALUE_BYTES = 4096
"""Longest outcome, as JSON."""
KEY_CHARS = 64
"""Longest key of a value; longer values are compared by their digest."""
SEARCH_S = 5.0
"""Most time that a search of the spool may take."""
_EXACT = 2.0**53
_PREDICTION_ID = re.compile(r"[0-9a-fp][0-9a-f]{25}")
_LOOK_EVERY = 1024

Result = StoredOutcome | ModelyardError
Find = Callable[[Collection[str]], Mapping[str, Target]]
"""Those of the ids that wait in the spool."""


def canonical_value(value: Any) -> Any:
    """The value with whole floats as integers, so that 1 and 1.0 are one outcome."""
    if isinstance(value, float) and value.is_integer() and abs(value) <= _EXACT:
        return int(value)
    if isinstance(value, list):
        return [canonical_value(element) for element in value]
    if isinstance(value, dict):
        return {name: canonical_value(element) for name, element in value.items()}
    return value


def value_text(value: Any) -> str:
    """The value as the one JSON text that stands for it; InvalidRequestError if it is too long or no JSON."""
    try:
        text = orjson.dumps(canonical_value(value), option=orjson.OPT_SORT_KEYS).decode()
    except (orjson.JSONEncodeError, RecursionError):
        raise _wrong("value_invalid", "The outcome is not a JSON value that can be stored.", "a JSON value") from None
    if len(text.encode()) > MAX_VALUE_BYTES:
        raise _wrong("value_invalid", "The outcome is too long.", f"at most {MAX_VALUE_BYTES} bytes of JSON")
    return text


def outcome_key(text: str) -> str:
    """What values are compared by: their text, or its digest where it is long."""
    return text if len(text) < KEY_CHARS else "#" + hashlib.sha256(text.encode()).hexdigest()[: KEY_CHARS - 1]


def _wrong(code: str, message: str, expected: str) -> InvalidRequestError:
    return InvalidRequestError(code, message, field="value", expected=expected, example=1)


class OutcomeDesk:
    """Takes outcomes. Safe for threads as far as its store is."""

    def __init__(self, store: OutcomeStore, find_spooled: Find, clock: Clock) -> None:
        self._store = store
        self._find_spooled = find_spooled
        self._clock = clock

    def give(self, outcomes: Sequence[Outcome], may: Callable[[Target], bool]) -> list[Result]:
        """Stores those that can be, and says of each what became of it, in order. `may` says whose requests the
        caller may speak of; of others it is told that they do not exist.

        An error in the answer: NotFoundError("prediction_not_found"), InvalidRequestError("value_invalid" |
        "value_out_of_range"). Raises UnavailableError("store_unavailable"), then nothing was stored.
        """
        targets = self._targets({outcome.prediction_id for outcome in outcomes})
        refusals = [_refusal(outcome, targets.get(outcome.prediction_id), may) for outcome in outcomes]
        good = [outcome for outcome, refusal in zip(outcomes, refusals, strict=True) if refusal is None]
        stored = iter(self._store.put(good, self._clock.now()) if good else ())
        return [next(stored) if refusal is None else refusal for refusal in refusals]

    def history(self, prediction_id: str) -> list[dict[str, Any]]:
        """All revisions of all items, oldest first."""
        return self._store.history(prediction_id)

    def _targets(self, ids: set[str]) -> Mapping[str, Target]:
        known = self._store.targets(sorted(ids))
        if missing := ids - known.keys():
            known = {**known, **self._find_spooled(missing)}
        if missing := ids - known.keys():  # stored between the two looks
            known = {**known, **self._store.targets(sorted(missing))}
        return known


def _refusal(outcome: Outcome, target: Target | None, may: Callable[[Target], bool]) -> ModelyardError | None:
    if target is None or not may(target):
        shown = outcome.prediction_id[:80]
        return NotFoundError("prediction_not_found", f"There is no prediction `{shown}`.", field="id", got=shown)
    if not 0 <= outcome.item < target.items:
        return InvalidRequestError(
            "value_out_of_range",
            f"The prediction has {target.items} items; there is no item {outcome.item}.",
            field="item",
            expected=f"0 to {target.items - 1}" if target.items else "none: the request was refused",
            got=outcome.item,
        )
    try:
        value_text(outcome.value)
    except InvalidRequestError as error:
        return error
    return None


def find_spooled(folder: Path, ids: Collection[str], position: Callable[[str], int], clock: Clock) -> dict[str, Target]:
    """Those of the ids whose records wait in a folder's spool. `position` is RecordSink.position.

    Only files of a wanted id's epoch are read, from where the drain is. UnavailableError("store_unavailable") if that
    takes longer than SEARCH_S: then the drain is far behind, and the caller should come again.
    """
    wanted = {one for one in ids if _PREDICTION_ID.fullmatch(one)}
    parts = {spool_name_part(one) for one in wanted}
    found: dict[str, Target] = {}
    deadline_s = clock.monotonic() + SEARCH_S
    for path in spool_files(folder):
        if len(found) < len(wanted) and any(path.name.startswith(part, place) for place, part in parts):
            _search(path, wanted, position(path.name), found, lambda: clock.monotonic() >= deadline_s)
    return found


def _search(
    path: Path, wanted: Collection[str], offset: int, found: dict[str, Target], late: Callable[[], bool]
) -> None:
    try:
        with path.open("rb") as file:
            for number, frame in enumerate(read_frames(file, offset)):
                if number % _LOOK_EVERY == 0 and late():
                    raise UnavailableError(
                        "store_unavailable", "The log is too far behind to look the prediction up.", retry_after_s=5.0
                    )
                try:
                    header = frame.record_header()
                except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
                    continue
                if header.id in wanted:
                    found[header.id] = Target(header.client, header.endpoint, items_of(header.rows, header.status))
    except FileNotFoundError:  # stored meanwhile
        return
