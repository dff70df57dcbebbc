"""Requests made from the OpenAPI document itself (Z1), good ones and bad ones: no 5xx, no answer that the document does
not promise, no rejection without a code."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis.errors import Unsatisfiable
from schemathesis import GenerationMode
from schemathesis import openapi as from_openapi
from schemathesis.specs.openapi.checks import (
    ignored_auth,
    missing_required_header,
    negative_data_rejection,
    positive_data_acceptance,
)

from modelyard.http.openapi.document import model_document
from modelyard.testing import version

for folder in ("unit/http_routes", "contract"):
    sys.path.insert(0, str(Path(__file__).parent.parent / folder))

from http_worker import HttpWorker  # noqa: E402
from yard_support import Yard, yard  # noqa: E402

__all__ = ["yard"]

FORM = {"error", "code", "detail", "request_id"}
SHORT_CASES, LONG_CASES = 1_000, 20_000
SEED = 20_260_101
SEMANTIC = [positive_data_acceptance, ignored_auth, missing_required_header]
"""What a schema cannot tell: which names exist, that shares add up to 100. And whose key it is: tests/security does."""
LENIENT = [*SEMANTIC, negative_data_rejection]
"""On a predict route a bad item gets its error inside of a 200: it hurts no other item. And in a query all is text: a
list of one number is written as a good name is."""
KEYS = ("admin", "audit", "predict", "oak", "none")
"""Whose key a case carries: mostly the administrator's."""
NATIVE = "predict"
"""The tag of the routes that this application does not have: the protocol answers them."""


def operations(yard: Yard) -> Iterator[Any]:
    """Every operation of the document that the management application answers."""
    document = yard.ask("GET", "/openapi.json", scope="none").json()
    schema = from_openapi.from_asgi("/openapi.json", yard.app)
    tags = {(method.upper(), path): operation["tags"] for path, item in document["paths"].items()
            for method, operation in item.items()}  # fmt: skip
    for found in schema.get_all_operations():
        operation = found.ok()
        if NATIVE not in tags[operation.method.upper(), operation.path]:
            yield operation


def run(todo: list[Any], keys: Mapping[str, str], cases: int, **sent: Any) -> Counter[str]:
    """So many cases, shared by all operations and both ways of making them; `sent` says how they are sent."""
    found: Counter[str] = Counter()
    each = max(2, cases // (2 * len(todo)))
    for operation in todo:
        for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE):
            _fuzz(operation, mode, each, keys, found, sent)
    print(f"{found.total()} cases: {dict(sorted(found.items()))}")
    assert found.total() >= 0.5 * cases
    assert found["4xx"] >= 0.05 * found.total()
    return found


def _fuzz(
    operation: Any, mode: GenerationMode, cases: int, keys: Mapping[str, str], found: Counter[str], sent: Any
) -> None:
    @seed(SEED)
    @settings(
        max_examples=cases, deadline=None, database=None, phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )  # fmt: skip
    @given(case=operation.as_strategy(generation_mode=mode))
    def each(case: Any) -> None:
        text = keys.get(KEYS[found.total() % len(KEYS)] if found.total() % 4 == 0 else "admin")
        headers = {} if text is None else {"x-api-key": text}
        for place in ("Authorization", "authorization", "x-api-key", "X-Api-Key"):  # keys are ours to choose
            case.headers.pop(place, None)
        response = case.call(headers=headers, **sent)
        found[f"{response.status_code // 100}xx"] += 1
        _check(case, response, LENIENT if "base_url" in sent or case.method in ("GET", "DELETE") else SEMANTIC)

    with suppress(Unsatisfiable):  # there is no wrong way to ask what has no parameters
        each()


def _check(case: Any, response: Any, excluded: list[Any]) -> None:
    place = f"{case.operation.method.upper()} {case.operation.path}"
    said = response.content[:500]
    assert response.status_code < 500 or response.status_code == 503, (place, case.as_curl_command(), said)
    case.validate_response(response, excluded_checks=excluded)
    if response.status_code >= 400:
        assert set(json.loads(response.content)) >= FORM, (place, said)


@pytest.mark.parametrize("cases", [SHORT_CASES, pytest.param(LONG_CASES, marks=pytest.mark.long)])
def test_the_document_is_kept(yard: Yard, cases: int) -> None:
    """Every case of every management route is answered as the document says; how many there were is printed."""
    found = run(list(operations(yard)), yard.keys, cases)
    assert found["2xx"] >= 0.05 * found.total()


@pytest.mark.filterwarnings("ignore::RuntimeWarning")  # numbers that overflow in the stub model are no failure of it
@pytest.mark.parametrize("cases", [SHORT_CASES // 4, pytest.param(LONG_CASES // 4, marks=pytest.mark.long)])
def test_a_models_own_document_is_kept(cases: int) -> None:
    """The same for the predict routes of a model, over the socket: what fits its schema is answered, what does not is
    refused with a code."""
    worker = HttpWorker().start()
    try:
        document = model_document("tree", version("tree", "1"), worker.settings, "")
        todo = [found.ok() for found in from_openapi.from_dict(document).get_all_operations()]
        found = run(todo, {"admin": worker.key}, cases, base_url=f"http://127.0.0.1:{worker.port}")
        assert found["2xx"] >= 0.05 * found.total()
    finally:
        worker.stop()
