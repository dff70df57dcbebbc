"""The requests to DynamoDB's tables: how often, how long in all, and what a refusal says. The service is an emulator:
these tests show what we send and how we take answers, not what AWS answers."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from dynamo.emulator import Dynamo
from modelyard.core.errors import InternalError, ModelyardError, SettingsError, UnavailableError
from modelyard.core.settings import DatabaseSettings
from modelyard.storage.dynamodb.attributes import decode, encode, is_possible, ordered, packed, parts_of, unpacked
from modelyard.storage.dynamodb.client import Client, check_usable
from modelyard.storage.dynamodb.refusals import ConditionFailedError, refusal
from modelyard.storage.dynamodb.requests import LONGEST_PAUSE_S, Condition, Requests, Span
from modelyard.storage.dynamodb.tables import BY_DAY, BY_KIND, EXPIRES_AT, INDEXES, KEYS, Tables, check_table
from modelyard.testing import FakeClock
from objectstore.answers import SECRETS

TERRAFORM = Path(__file__).parents[3] / "infra" / "modules" / "database" / "dynamodb.tf"


class Scripted:
    """A client whose requests fail so often, then answer; counts them."""

    def __init__(self, answers: list[Any]) -> None:
        self.answers, self.asked = answers, []

    def get(self) -> Scripted:
        return self

    def __getattr__(self, operation: str) -> Any:
        def ask(**request: Any) -> Any:
            self.asked.append((operation, request))
            answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
            if isinstance(answer, Exception):
                raise answer
            return answer

        return ask


def failure(code: str, status: int = 400, **more: Any) -> Exception:
    from botocore.exceptions import ClientError

    told = {"Error": {"Code": code, "Message": " ".join(SECRETS)}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError({**told, **more}, "PutItem")


def scripted(*answers: Any, timeout_s: float = 10.0, chance: float = 1.0) -> tuple[Requests, Scripted, list[float]]:
    """Requests to a scripted client; pauses move the clock."""
    clock, pauses, client = FakeClock(), [], Scripted(list(answers))

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        clock.advance(seconds)

    return Requests(client, timeout_s, clock, lambda: chance, pause), client, pauses  # type: ignore[arg-type]


def test_a_throttled_request_is_tried_until_its_time_is_over() -> None:
    """Pauses double up to a bound, spread by chance; after the bound the refusal says busy, not the vendor's words."""
    busy = failure("ProvisionedThroughputExceededException")
    requests, client, pauses = scripted(busy, busy, busy, {})
    requests.put("t", {"pk": "a", "sk": "b"})
    assert (len(client.asked), pauses) == (4, [0.025, 0.05, 0.1])
    requests, client, pauses = scripted(busy)
    with pytest.raises(UnavailableError) as caught:
        requests.put("t", {"pk": "a", "sk": "b"})
    assert caught.value.detail["reason"] == "busy"
    assert 10 <= sum(pauses) <= 10 + LONGEST_PAUSE_S
    assert max(pauses) == LONGEST_PAUSE_S


def test_what_was_left_undone_is_sent_again_and_nothing_else() -> None:
    """UnprocessedItems are retried, with pauses, and for a bounded time."""
    left = {"UnprocessedItems": {"t": [{"PutRequest": {"Item": encode({"pk": "b", "sk": "s"})}}]}}
    requests, client, pauses = scripted(left, left, {})
    requests.write_many("t", [{"pk": one, "sk": "s"} for one in "ab"])
    assert [len(request["RequestItems"]["t"]) for _, request in client.asked] == [2, 1, 1]
    assert len(pauses) == 2
    requests, _, _ = scripted(left)
    with pytest.raises(UnavailableError) as caught:
        requests.write_many("t", [{"pk": "b", "sk": "s"}])
    assert caught.value.detail["reason"] == "too_slow"


def test_a_condition_that_failed_is_told_by_its_place() -> None:
    """It is no refusal and is not tried again; a transaction in conflict is."""
    requests, client, _ = scripted(failure("ConditionalCheckFailedException"))
    with pytest.raises(ConditionFailedError):
        requests.put("t", {"pk": "a", "sk": "b"}, Condition("attribute_not_exists(#pk)"))
    assert len(client.asked) == 1
    reasons = [{"Code": "None"}, {"Code": "ConditionalCheckFailed"}]
    requests, _, _ = scripted(failure("TransactionCanceledException", CancellationReasons=reasons))
    with pytest.raises(ConditionFailedError) as caught:
        requests.transact([], "token", "t")
    assert caught.value.places == (1,)
    conflict = failure("TransactionCanceledException", CancellationReasons=[{"Code": "TransactionConflict"}])
    requests, client, _ = scripted(conflict, {})
    requests.transact([], "token", "t")
    assert {request["ClientRequestToken"] for _, request in client.asked} == {"token"}


REFUSALS = [
    (failure("ResourceNotFoundException"), "table_missing"),
    (failure("AccessDeniedException"), "access_denied"),
    (failure("KMSAccessDeniedException"), "access_denied"),
    (failure("UnrecognizedClientException"), "no_credentials"),
    (failure("ExpiredTokenException"), "no_credentials"),
    (failure("InternalServerError", 500), "busy"),
    (failure("", 503), "unreachable"),
    (failure("SomethingNew"), "refused"),
]


@pytest.mark.parametrize(("error", "reason"), REFUSALS, ids=[reason for _, reason in REFUSALS])
def test_a_refusal_is_a_sentence_of_ours(error: Exception, reason: str) -> None:
    """A stable reason, the setting, the table without the account's number; nothing of the vendor's text."""
    said = refusal(error, "yard-123456789012-metadata", "dynamodb:PutItem")
    assert said.detail["reason"] == reason
    text = json.dumps([said.message, dict(said.detail)])
    assert not any(secret in text for secret in SECRETS)
    assert "database." in text or reason in ("busy", "unreachable", "refused")


def test_our_own_mistake_is_internal() -> None:
    """A request that the service calls invalid is no state of the database."""
    assert isinstance(refusal(failure("ValidationException"), "t", "dynamodb:Query"), InternalError)


def test_items_come_back_as_they_went() -> None:
    """Text, whole numbers, floats to the last bit, bytes; None is no attribute; numbers sort as text."""
    item = {"pk": "ü", "n": -3, "f": 1_700_000_000.123456, "b": b"\x00\xff", "none": None}
    assert decode(encode(item)) == {name: value for name, value in item.items() if value is not None}
    numbers = [0, 1, 9, 10, 2**62]
    assert sorted(map(ordered, reversed(numbers))) == list(map(ordered, numbers))
    content = bytes(range(256)) * 9
    assert unpacked(parts_of(packed(content), 7)) == content
    assert not is_possible(("a" * 2049, "b"))
    assert not is_possible(("\ud800", "b"))
    assert is_possible(("a", "b"))


def test_the_tables_are_those_that_terraform_makes() -> None:
    """Names, keys, indexes and the attribute of expiry are the same on both sides."""
    made = TERRAFORM.read_text()
    for name, keys in (*INDEXES["metadata"].items(), *INDEXES["predictions"].items()):
        assert f'{name} = {{ hash = "{keys[0]}", range = "{keys[1]}" }}' in made
    assert f'ttl     = "{EXPIRES_AT}"' in made
    assert all(f'"{key}"' in made for key in KEYS)
    assert {BY_KIND, BY_DAY} == {name for indexes in INDEXES.values() for name in indexes}
    tables = Tables.parse("dynamodb://yard-production")
    for name in INDEXES:
        assert f'"${{var.names.tables_prefix}}-{name}"' in made
    assert tables == Tables("yard-production-metadata", "yard-production-predictions")


@pytest.mark.parametrize("url", ["dynamodb://", "dynamodb://a/b", "dynamodb://ü", "dynamodb://a@b"])
def test_a_prefix_that_is_none_is_refused(url: str) -> None:
    """setting_invalid with an example."""
    with pytest.raises(SettingsError) as caught:
        Tables.parse(url)
    assert caught.value.detail["field"] == "database.url"


def test_a_table_that_is_another_is_refused(dynamo: Dynamo) -> None:
    """Other keys, or no index: a sentence that says which; ours passes."""
    url = dynamo.tables()
    requests = Requests(Client(dynamo.settings(url)), 10, FakeClock())
    table = Tables.parse(url).metadata
    check_table(requests.describe(table), table, INDEXES["metadata"])
    dynamo.make("other-table", {}, ("pk",))
    with pytest.raises(SettingsError) as caught:
        check_table(requests.describe("other-table"), "other-table", {})
    assert "infra/modules/database" in str(caught.value)
    with pytest.raises(ModelyardError) as missing:
        requests.describe("nowhere")
    assert missing.value.detail["reason"] == "table_missing"
    with pytest.raises(SettingsError):
        check_table(requests.describe(Tables.parse(url).predictions), "x", INDEXES["metadata"])


def test_keys_that_nothing_can_have_are_not_asked_for(dynamo: Dynamo) -> None:
    """Names of any length come from callers: they are not there, rather than an error."""
    requests = Requests(Client(dynamo.settings(dynamo.tables())), 10, FakeClock())
    dynamo.asked()
    assert requests.get("t", ("a" * 3000, "b")) is None
    assert requests.get_many("t", [("a", "b" * 3000)]) == {}
    assert list(requests.query_all("t", Span("\ud800"))) == []
    assert dynamo.asked() == []


def test_records_do_not_travel_in_the_clear() -> None:
    """Plain HTTP only to this machine; an address with a user, a path or a query is none."""
    check_usable(DatabaseSettings(endpoint_url="http://127.0.0.1:4566"))
    with pytest.raises(SettingsError) as caught:
        check_usable(DatabaseSettings(endpoint_url="http://db.example.com"))
    assert caught.value.detail["field"] == "database.endpoint_url"
    with pytest.raises(ValidationError):
        DatabaseSettings(endpoint_url="https://user@db.example.com/x")


def test_nothing_of_the_vendor_is_imported_before_it_is_needed() -> None:
    """A server without DynamoDB does not pay for it."""
    code = (
        "import sys; import modelyard.storage.sql.open; sys.exit('botocore' in sys.modules or "
        "'modelyard.storage.dynamodb.open' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=60).returncode == 0
