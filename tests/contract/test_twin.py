"""The native route and its ASGI twin give the same answer: every predict route, every error code.

Generated from http.wire.PREDICT_ROUTES and core.errors.CODES: a code that has neither a case here nor a reason why it
cannot come from a predict route fails the suite.
"""

from __future__ import annotations

import re
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field

import pytest
from http_worker import HttpWorker
from raw_http import Caller, Reply, request, until

from modelyard.auth.keys import new_key
from modelyard.auth.ports import ClientBounds
from modelyard.auth.scopes import parse_rate
from modelyard.core.clock import SystemClock
from modelyard.core.errors import (
    CODES,
    LimitError,
    ModelError,
    OverloadError,
    PublishError,
    SettingsError,
    UnavailableError,
)
from modelyard.core.settings import BatchingSettings, CodecSettings, HttpSettings, LimitsSettings, Settings
from modelyard.core.types import Surface, Tensors
from modelyard.http.edge.certificate import TlsFiles, make_self_signed, own_names, utc_now
from modelyard.http.wire import PREDICT_ROUTES, predict_target
from modelyard.journal.ports import KeptAnswer
from modelyard.limits.failures import FailedAttempts
from modelyard.routing.table import RoutingTable
from modelyard.testing import StubModel, servable

GOOD = {
    Surface.OIP: '{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","data":[1,2]}]}',
    Surface.PREDICTIONS: '{"items":[{"a":1,"b":2}]}',
    Surface.TFSERVING: '{"instances":[[1,2]]}',
    Surface.INVOCATIONS: '{"dataframe_split":{"columns":["a","b"],"data":[[1,2]]}}',
}
VARYING = ("x-request-id", "x-prediction-id", "date", "ratelimit-remaining", "ratelimit-reset", "connection")


@dataclass(frozen=True)
class Case:
    """How a code is provoked. `body` by surface (or one for all; None: the good one)."""

    body: dict[Surface, str | bytes] | str | bytes | None = None
    headers: tuple[str, ...] = ()
    key: str | None = "good"
    model: str = "tree"
    version: str = "1"
    method: str = "POST"
    length: int | None = None
    surfaces: tuple[Surface, ...] = tuple(Surface)
    around: Callable[[HttpWorker], Callable[[], None]] | None = None
    raw: Callable[[bytes], bytes] | None = None
    twin_only: bool = field(default=False)


def oip(name: str = "x", shape: str = "[1,2]", datatype: str = "FP32", data: str = "[1,2]", rest: str = "") -> str:
    return '{"inputs":[{"name":"%s","shape":%s,"datatype":"%s","data":%s}]%s}' % (name, shape, datatype, data, rest)


OIP = (Surface.OIP,)
ROWS = (Surface.PREDICTIONS,)
SCORING = (Surface.TFSERVING, Surface.INVOCATIONS)
INVOCATIONS = (Surface.INVOCATIONS,)


def scoring(body: str, **others: str) -> dict[Surface, str | bytes]:
    """The body for both scoring surfaces; `oip` and `rows` for the other two."""
    named = {Surface.OIP: others.get("oip", body), Surface.PREDICTIONS: others.get("rows", body)}
    return {**named, **dict.fromkeys(SCORING, body)}


def full_journal(worker: HttpWorker) -> Callable[[], None]:
    worker.journal.full = True

    def undo() -> None:
        worker.journal.full = False

    return undo


def no_permits(worker: HttpWorker) -> Callable[[], None]:
    permits = worker.predictor._permits
    taken = [worker.on_loop(permits.take) for _ in range(permits.capacity)]
    assert all(taken)

    def undo() -> None:
        for _ in taken:
            worker.on_loop(permits.release)

    return undo


def stale(worker: HttpWorker) -> Callable[[], None]:
    worker.predictor._refuse_stale = True
    fresh, worker.predictor.fresh_s = worker.predictor.fresh_s, -1e9

    def undo() -> None:
        worker.predictor._refuse_stale = False
        worker.predictor.fresh_s = fresh

    return undo


def full(worker: HttpWorker) -> Callable[[], None]:
    """No version has room for one more."""
    error = OverloadError("overloaded", "Too many requests wait for this version; nothing was done.", retry_after_s=2.0)
    batcher = worker.predictor._batcher
    batcher.full = {id(one): error for one in worker.predictor.table.servables.values()}
    return batcher.full.clear


def ill(worker: HttpWorker) -> Callable[[], None]:
    """Every version was found unhealthy."""
    table = worker.predictor.table
    versions = list(table.servables)
    worker.predictor.table = RoutingTable(table.version, table.endpoints.values(), {}, versions, versions)
    return lambda: setattr(worker.predictor, "table", table)


def broken_counter(worker: HttpWorker, error: UnavailableError | None = None) -> Callable[[], None]:
    take = worker.predictor._counter.take

    class Failing:
        def take(self, slot: int, interval_s: float, burst: int, count: int = 1) -> None:
            raise error or UnavailableError("store_unavailable", "The counter is away.", retry_after_s=1.0)

    counter = worker.predictor._counter
    worker.predictor._counter = Failing()  # type: ignore[assignment]

    def undo() -> None:
        worker.predictor._counter = counter
        assert counter.take == take

    return undo


def counter_away(worker: HttpWorker) -> Callable[[], None]:
    """The counter that hosts share does not answer."""
    error = UnavailableError("limits_unavailable", "The counter is away.", retry_after_s=1.0, reason="unreachable")
    remote = worker.remote
    if remote is None:
        return broken_counter(worker, error)
    remote.error = error

    def undo() -> None:
        remote.error = None
        until(lambda: worker.rates.breaker.closed)

    return undo


def quota_used(worker: HttpWorker) -> Callable[[], None]:
    """The client of the key "drained" had its prediction of today."""
    principal = worker.predictor.authenticate(worker.keys["drained"].encode())
    assert principal.quota_per_day == 1
    if worker.remote is not None:
        worker.remote.used[principal.client_id, int(time.time() // 86_400)] = 1
        return bool
    with suppress(LimitError):  # used up by the case before
        worker.on_loop(lambda: worker.clients.quotas.charge(principal.slot, 1, principal.client))
    return bool


def permits_out(worker: HttpWorker) -> Callable[[], None]:
    """A prediction of the key "crowded", which may have one, is in flight."""
    principal = worker.predictor.authenticate(worker.keys["crowded"].encode())
    assert principal.concurrency == 1
    worker.on_loop(lambda: worker.clients.permits.take(principal.slot, 1, principal.client))
    return lambda: worker.on_loop(lambda: worker.clients.permits.release(principal.slot))


def guessed_often(worker: HttpWorker) -> Callable[[], None]:
    """So many wrong keys came from the callers' address that only a good one is looked at."""
    wrong = FailedAttempts(SystemClock(), most=1, period_s=3600)
    assert wrong.refusal("127.0.0.1") is None
    worker.predictor._attempts = wrong
    return lambda: setattr(worker.predictor, "_attempts", worker.attempts)


def broken_codec(worker: HttpWorker) -> Callable[[], None]:
    roads = worker.predictor._roads
    codecs = roads.codecs

    class Failing:
        def decode(self, *args: object) -> None:
            raise RuntimeError("a bug")

    def use(chosen: object) -> None:
        roads.codecs = chosen  # type: ignore[assignment]
        roads.renew()

    use(dict.fromkeys(Surface, Failing()))
    return lambda: use(codecs)


def stopping(worker: HttpWorker) -> Callable[[], None]:
    """Every model hangs, and as soon as the request waits the worker gives up what it owes."""
    release = threading.Event()
    hang = worker.models[1].loaded
    assert isinstance(hang, StubModel)
    hang.before_run = lambda _: (release.wait(5), None)[1]

    def give_up() -> None:
        until(lambda: worker.predictor.in_flight)
        worker.on_loop(worker.predictor.expire)
        release.set()

    thread = threading.Thread(target=give_up)
    thread.start()

    def undo() -> None:
        thread.join()
        hang.before_run = None

    return undo


def hanging(worker: HttpWorker) -> Callable[[], None]:
    release = threading.Event()
    hang = worker.models[1].loaded
    assert isinstance(hang, StubModel)
    hang.before_run = lambda _: (release.wait(5), None)[1]

    def undo() -> None:
        release.set()
        hang.before_run = None

    return undo


def full_of_bytes(worker: HttpWorker) -> Callable[[], None]:
    def add(size: int) -> None:
        worker.shared.inflight_bytes += size

    worker.on_loop(lambda: add(worker.settings.http.max_inflight_bytes))
    return lambda: worker.on_loop(lambda: add(-worker.settings.http.max_inflight_bytes))


def one_by_one(data: bytes) -> bytes:
    head, _, body = data.partition(b"\r\n\r\n")
    lines = [line for line in head.split(b"\r\n") if not line.startswith(b"content-length")]
    chunks = b"".join(b"1\r\n%c\r\n" % byte for byte in body)
    return b"\r\n".join([*lines, b"transfer-encoding: chunked"]) + b"\r\n\r\n" + chunks + b"0\r\n\r\n"


def key_in_use(worker: HttpWorker) -> Callable[[], None]:
    """A prediction of this client holds the key."""
    worker.on_loop(lambda: worker.kept.begin("tester", "held", b"", "p"))
    return lambda: worker.on_loop(lambda: worker.kept.finish("tester", "held", KeptAnswer("p", 503, "1", None, b"")))


def key_used(worker: HttpWorker) -> Callable[[], None]:
    """Another request was answered under the key."""
    worker.on_loop(lambda: worker.kept.begin("tester", "used", b"", "p"))
    worker.on_loop(lambda: worker.kept.finish("tester", "used", KeptAnswer("p", 200, "1", None, b"")))
    return bool


BINARY = b'{"inputs":[{"name":"x","shape":[1,2],"datatype":"FP32","parameters":{"binary_data_size":9}}]}'
DEEP = "[" * 200 + "]" * 200
JAILED = sorted(ModelError.codes - {"model_failed"})
"""What a jailed model's process may do; each has a model here that fails so."""
CASES: dict[str, list[Case]] = {
    "key_missing": [Case(key=None)],
    "key_malformed": [Case(key="nonsense")],
    "key_invalid": [Case(key="unknown")],
    "key_revoked": [Case(key="revoked")],
    "key_expired": [Case(key="expired")],
    "keys_differ": [Case(headers=("authorization: Bearer other",))],
    "scope_missing": [Case(key="auditor")],
    "model_not_allowed": [Case(key="elsewhere")],
    "rate_limited": [Case(key="spent")],
    "quota_exhausted": [Case(key="drained", around=quota_used)],
    "concurrency_exceeded": [Case(key="crowded", around=permits_out)],
    "too_many_attempts": [Case(key=key, around=guessed_often) for key in ("unknown", "nonsense", "revoked", None)],
    "server_busy": [Case(around=no_permits)],
    "overloaded": [Case(around=full)],
    "inflight_bytes_exceeded": [Case(around=full_of_bytes)],
    "model_not_found": [Case(model="absent")],
    "version_not_found": [Case(version="9")],
    "model_not_ready": [Case(version="loading")],
    "model_unhealthy": [Case(around=ill)],
    "method_not_allowed": [Case(method="PUT"), Case(method="GET")],
    "name_invalid": [Case(model="..x", twin_only=True), Case(model="a%00b", twin_only=True)],
    "http_invalid": [Case(raw=lambda data: data.replace(b"content-length: ", b"content-length: x"))],
    "headers_too_large": [Case(headers=("x-a: " + "b" * 3000,))],
    "url_too_long": [Case(model="m" * 600)],
    "body_too_large": [Case(body="[" + " " * 70_000 + "]"), Case(length=1 << 40)],
    "too_many_chunks": [Case(body=" " * 200, raw=one_by_one)],
    "receive_timeout": [Case(length=500)],
    "request_timeout": [Case(model="slow", around=hanging)],
    "shutting_down": [Case(model="slow", around=stopping)],
    "journal_unavailable": [Case(around=full_journal)],
    "snapshot_stale": [Case(around=stale)],
    "store_unavailable": [Case(around=broken_counter)],
    "limits_unavailable": [Case(around=counter_away)],
    "model_failed": [Case(model="failing")],
    **{code: [Case(model=code)] for code in JAILED},
    "internal": [Case(around=broken_codec)],
    "encoding_unsupported": [Case(headers=("content-encoding: br",))],
    "decompression_failed": [Case(headers=("content-encoding: gzip",))],
    "decompressed_too_large": [
        Case(body=zlib.compress(b" " * 1_000_000), headers=("content-encoding: deflate",)),
    ],
    "json_invalid": [Case(body=b"{"), Case(body=b""), Case(body=b"\xff\xfe")],
    "json_too_deep": [
        Case(body=scoring('{"inputs":%s}' % DEEP, oip=oip(data=DEEP), rows='{"items":%s}' % DEEP)),
    ],
    "json_too_many_values": [
        Case(
            body=scoring(
                '{"inputs":[%s1]}' % ("1," * 3000),
                oip=oip(data=f"[{'1,' * 3000}1]"),
                rows='{"items":[%s1]}' % ("1," * 3000),
            )
        ),
        Case(body="1,2\n" * 3000, headers=("content-type: text/csv",), surfaces=INVOCATIONS),
    ],
    "json_duplicate_key": [
        Case(body=scoring('{"inputs":[],"inputs":[]}', rows='{"items":[],"items":[]}')),
        Case(body='{"dataframe_split":{"columns":["a","a"],"data":[[1,2]]}}', surfaces=INVOCATIONS),
    ],
    "field_missing": [
        Case(body=b"{}"),
        Case(body='{"dataframe_records":[{"a":1}]}', surfaces=INVOCATIONS),
        Case(headers=("x-modelyard-model:",), surfaces=INVOCATIONS),
    ],
    "field_type": [Case(body=scoring('{"inputs":3}', rows='{"items":3}')), Case(body=b"[]", surfaces=SCORING)],
    "field_unknown": [
        Case(body='{"items":[{"a":1,"b":2}],"more":1}', surfaces=ROWS),
        Case(body='{"instances":[[1,2]],"more":1}', surfaces=SCORING),
        Case(body='{"instances":[{"a":1,"b":2,"c":3}]}', surfaces=SCORING),
    ],
    "input_missing": [Case(body='{"inputs":[]}', surfaces=OIP)],
    "input_unknown": [Case(body=oip(name="q"), surfaces=OIP)],
    "input_duplicate": [Case(body=oip()[:-2] + "," + oip()[11:], surfaces=OIP)],
    "shape_invalid": [Case(body=oip(shape="[-1,2]"), surfaces=OIP)],
    "shape_mismatch": [
        Case(body=oip(shape="[1,3]", data="[1,2,3]"), surfaces=OIP),
        Case(body='{"inputs":[[1,2,3]]}', surfaces=SCORING),
        Case(body="1,2,3", headers=("content-type: text/csv",), surfaces=INVOCATIONS),
    ],
    "datatype_unknown": [Case(body=oip(datatype="FLOAT"), surfaces=OIP)],
    "datatype_mismatch": [Case(body=oip(datatype="INT32"), surfaces=OIP)],
    "element_count_mismatch": [
        Case(body=oip(data="[1,2,3]"), surfaces=OIP),
        Case(body='{"instances":[[1,2],[1]]}', surfaces=SCORING),
        Case(body="1,2\n1", headers=("content-type: text/csv",), surfaces=INVOCATIONS),
    ],
    "value_invalid": [
        Case(body=oip(data='[1,"NaN"]'), surfaces=OIP),
        Case(body='{"instances":[[1,"NaN"]]}', surfaces=SCORING),
        Case(body="a,b\n1,NaN", headers=("content-type: text/csv",), surfaces=INVOCATIONS),
    ],
    "value_out_of_range": [
        Case(body=oip(data="[1,1e60]"), surfaces=OIP),
        Case(body='{"inputs":[[1,1e60]]}', surfaces=SCORING),
    ],
    "csv_invalid": [
        Case(body='1,"2', headers=("content-type: text/csv",), surfaces=INVOCATIONS),
        Case(body=b"1,\xff", headers=("content-type: text/csv",), surfaces=INVOCATIONS),
    ],
    "npy_invalid": [Case(body=b"no array", headers=("content-type: application/x-npy",), surfaces=INVOCATIONS)],
    "content_type_unsupported": [
        Case(headers=("content-type: application/xml",), surfaces=INVOCATIONS),
        Case(headers=("content-type: application/json; charset=latin-1",), surfaces=INVOCATIONS),
    ],
    "output_unknown": [Case(body=oip(rest=',"outputs":[{"name":"q"}]'), surfaces=OIP)],
    "output_duplicate": [Case(body=oip(rest=',"outputs":[{"name":"y"},{"name":"y"}]'), surfaces=OIP)],
    "binary_size_mismatch": [
        Case(
            body=BINARY + b"123456789",
            headers=(f"inference-header-content-length: {len(BINARY)}",),
            surfaces=OIP,
        )
    ],
    "header_length_invalid": [
        Case(headers=("inference-header-content-length: -1",), surfaces=OIP),
        Case(headers=("inference-header-content-length: 9999",), surfaces=OIP),
        Case(headers=("inference-header-content-length: x",), surfaces=OIP),
    ],
    "parameter_invalid": [
        Case(headers=("x-modelyard-subject: " + "s" * 257,)),
        Case(headers=("idempotency-key: " + "k" * 256,)),
        Case(headers=("idempotency-key: é",)),
        Case(headers=("idempotency-key:",)),
        Case(body=oip(rest=',"parameters":{"binary_data_output":"yes"}'), surfaces=OIP),
        Case(body='{"signature_name":"other","instances":[[1,2]]}', surfaces=(Surface.TFSERVING,)),
        Case(body='{"params":{"a":1},"instances":[[1,2]]}', surfaces=INVOCATIONS),
        Case(body='{"inputs":[[1,2]],"instances":[[1,2]]}', surfaces=SCORING),
    ],
    "batch_empty": [
        Case(body='{"items":[]}', surfaces=ROWS),
        Case(body='{"instances":[]}', surfaces=SCORING),
        Case(body="a,b", headers=("content-type: text/csv",), surfaces=INVOCATIONS),
    ],
    "idempotency_in_use": [Case(headers=("idempotency-key: held",), around=key_in_use)],
    "idempotency_mismatch": [Case(headers=("idempotency-key: used",), around=key_used)],
    "too_many_items": [Case(body='{"items":[%s]}' % ",".join(['{"a":1,"b":2}'] * 101), surfaces=ROWS)],
}

def raising(code: str) -> Callable[[Tensors], None]:
    """What a model does that fails with this code."""

    def fail(_: Tensors) -> None:
        raise ModelError(code, "The model's process did what none may do.")

    return fail


NOT_FROM_A_PREDICT_ROUTE = {
    **dict.fromkeys(PublishError.codes, "only a publish is refused so (tests/unit/models)"),
    **dict.fromkeys(SettingsError.codes, "ends the start (tests/journey)"),
    **dict.fromkeys(
        (code for code, family in CODES.items() if family.__name__ == "CommandError"), "of the command line alone"
    ),
    "endpoint_not_found": "management (tests/unit/http_routes)",
    "hold_not_found": "management (tests/unit/http_routes)",
    "lease_held": "of what one process does (tests/contract/test_leases.py)",
    "lease_lost": "of what one process does (tests/contract/test_leases.py)",
    "analytics_unsupported": "management (tests/unit/http_routes)",
    "prediction_not_found": "management (tests/unit/http_routes)",
    "key_not_found": "management (tests/unit/http_routes)",
    "route_not_found": "what is no predict route (tests/unit/http_routes)",
    "traffic_invalid": "management (tests/unit/http_routes)",
    "rate_invalid": "management (tests/unit/http_routes)",
    "cursor_invalid": "management (tests/unit/http_routes)",
    "version_exists": "management (tests/unit/http_routes)",
    "data_folder_in_use": "ends the start (tests/journey)",
    "client_exists": "management (tests/unit/http_routes)",
    "key_not_active": "management (tests/unit/http_routes)",
    "edit_conflict": "management (tests/unit/http_routes)",
    "model_in_traffic": "management (tests/unit/http_routes)",
    "memory_insufficient": "management (tests/unit/http_routes/test_memory_routes.py)",
    "etag_stale": "management (tests/unit/http_routes)",
}


@pytest.fixture(scope="module")
def worker() -> Iterator[HttpWorker]:
    yield from twin_worker()


@pytest.fixture(scope="module")
def tls_worker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[HttpWorker]:
    folder = tmp_path_factory.mktemp("tls")
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem")
    make_self_signed(files, own_names("127.0.0.1"), utc_now())
    yield from twin_worker(files)


@pytest.fixture(scope="module")
def remote_worker() -> Iterator[HttpWorker]:
    """Its limits are counted elsewhere: each turn waits for them."""
    yield from twin_worker(remote=True)


def twin_worker(tls: TlsFiles | None = None, remote: bool = False) -> Iterator[HttpWorker]:
    """A worker with every model and key that the cases name."""
    settings = Settings(
        http=HttpSettings(
            max_body_bytes=65_536,
            max_header_bytes=2048,
            max_url_bytes=512,
            max_chunks=100,
            body_timeout_s=0.4,
            request_timeout_s=0.4,
        ),
        codec=CodecSettings(max_json_values=2000),
        limits=LimitsSettings(max_concurrency=8),
        batching=BatchingSettings(),
    )
    failing = StubModel(fails_when=lambda _: True)
    models = [
        servable(),
        servable(StubModel(), model="slow", in_loop=False),
        servable(failing, model="failing"),
        *(servable(StubModel(before_run=raising(code)), model=code) for code in JAILED),
    ]
    started = HttpWorker(settings, models, tls=tls, remote=remote).start()
    table = started.predictor.table
    table._known |= {("tree", "loading")}
    create = started.issuer.create
    started.keys = {
        "good": started.key,
        "unknown": new_key().text,
        "auditor": create("auditor", scopes=["audit"]).text.get_secret_value(),
        "elsewhere": create("elsewhere", models=["other*"]).text.get_secret_value(),
        "spent": create("spent", rate=parse_rate("1/d")).text.get_secret_value(),
        "drained": create("drained", bounds=ClientBounds(quota_per_day=1)).text.get_secret_value(),
        "crowded": create("crowded", bounds=ClientBounds(concurrency=1)).text.get_secret_value(),
        "expired": create("expired", expires_in_s=-1).text.get_secret_value(),
    }
    revoked = create("revoked")
    started.issuer.revoke(revoked.key.id)
    started.keys["revoked"] = revoked.text.get_secret_value()
    started.refresh_keys()
    spend = Caller(started.port, started.client_tls)
    spend.send(request("/v2/models/tree/infer", GOOD[Surface.OIP], key=started.keys["spent"]))
    assert spend.reply().status == 200
    yield started
    Caller.close_all()
    started.stop()


@pytest.fixture(autouse=True)
def close_callers() -> Iterator[None]:
    yield
    Caller.close_all()


def surface_of(route: str) -> Surface:
    target = predict_target(route.replace("{", "").replace("}", ""))
    assert target is not None
    return target.surface


def headers_of(route: str, case: Case, model: str) -> tuple[str, ...]:
    """The case's header fields, and the model's name where the path has none."""
    if "{model}" in route or any(header.startswith("x-modelyard-model") for header in case.headers):
        return case.headers
    return (f"x-modelyard-model: {model}", *case.headers)


def ask(worker: HttpWorker, route: str, case: Case, twin: bool) -> Reply:
    """One request of the case, natively or with a target that only the twin takes."""
    # The twin's target is longer by two; a bound that tells lengths would tell the difference.
    model = case.model[:-2] if twin and len(case.model) > 100 else case.model
    target = route.replace("{model}", model).replace("{version}", case.version)
    if twin:
        target = target.replace("/models/", "/mod%65ls/").replace("/invocations", "/invocation%73")
    surface = surface_of(route)
    body = case.body.get(surface) if isinstance(case.body, dict) else case.body
    data = request(
        target,
        GOOD[surface] if body is None else body,
        key=worker.keys.get(case.key, case.key) if case.key else None,
        method=case.method,
        headers=headers_of(route, case, model),
        length=case.length,
    )
    caller = Caller(worker.port, worker.client_tls)
    undo = case.around(worker) if case.around else None
    try:
        caller.send(case.raw(data) if case.raw else data)
        return caller.reply()
    finally:
        if undo:
            undo()
        caller.close()


def comparable(reply: Reply) -> tuple[int, dict[str, str], bytes]:
    """The reply without what differs between any two requests."""
    body = reply.body
    for name in ("x-request-id", "x-prediction-id"):
        if name in reply.headers:
            body = body.replace(reply.headers[name].encode(), b"ID")
    body = re.sub(rb'"reset_s":[0-9.]+', b'"reset_s":0', body)
    # A long wait in whole seconds may be one less for the second of the two.
    varying = (*VARYING, "retry-after") if reply.status in (401, 429) else VARYING
    headers = {name: value for name, value in reply.headers.items() if name not in varying}
    return reply.status, headers, body


PARAMETERS = [
    pytest.param(code, route, case, id=f"{code}-{n}-{route}")
    for code, cases in CASES.items()
    for n, case in enumerate(cases)
    for route in PREDICT_ROUTES
    if surface_of(route) in case.surfaces
    and not (code in ("version_not_found", "model_not_ready") and "{version}" not in route)
    and not (code == "url_too_long" and "{model}" not in route)
]


@pytest.mark.parametrize(("code", "route", "case"), PARAMETERS)
def test_native_and_twin_refuse_alike(worker: HttpWorker, code: str, route: str, case: Case) -> None:
    """Same status, same headers, same body, and the code that the case is for."""
    twin = ask(worker, route, case, twin=True)
    assert twin.json["code"] == code
    assert set(twin.json) == {"error", "code", "detail", "request_id"}
    assert twin.headers["content-type"] == "application/json"
    if twin.status in (429, 503) or code == "too_many_attempts":
        assert int(twin.headers["retry-after"]) >= 1
    if case.twin_only:
        return
    native = ask(worker, route, case, twin=False)
    assert comparable(native) == comparable(twin)
    assert native.headers.keys() >= {"x-request-id", "date"} <= twin.headers.keys()


ONE_OF_EACH = list({parameter.values[0]: parameter for parameter in PARAMETERS}.values())
"""One case of each code: over TLS the rest of the way is the same."""


@pytest.mark.parametrize(("code", "route", "case"), ONE_OF_EACH)
def test_refused_alike_over_tls(tls_worker: HttpWorker, code: str, route: str, case: Case) -> None:
    """The same over TLS, for every code."""
    test_native_and_twin_refuse_alike(tls_worker, code, route, case)


@pytest.mark.parametrize(
    ("code", "route", "case"), [one for one in ONE_OF_EACH if one.values[0] != "store_unavailable"]
)
def test_refused_alike_where_limits_are_counted_elsewhere(
    remote_worker: HttpWorker, code: str, route: str, case: Case
) -> None:
    """The same for every code where each turn waits for a counter that hosts share."""
    test_native_and_twin_refuse_alike(remote_worker, code, route, case)


@pytest.mark.parametrize("route", PREDICT_ROUTES)
def test_answered_alike_where_limits_are_counted_elsewhere(remote_worker: HttpWorker, route: str) -> None:
    """A good request, on every route."""
    test_native_and_twin_answer_alike(remote_worker, route, "")


def test_a_connection_keeps_its_order_where_limits_are_counted_elsewhere(remote_worker: HttpWorker) -> None:
    """Native, spent, twin and native again, in one segment: answered in that order, each for its own."""
    caller = Caller(remote_worker.port, remote_worker.client_tls)
    targets = ("tree", "absent", "tr%65e", "tree")
    keys = [remote_worker.keys[name] for name in ("good", "good", "good", "spent")]
    wanted = zip(targets, keys, strict=True)
    caller.send(b"".join(request(f"/v2/models/{model}/infer", GOOD[Surface.OIP], key=key) for model, key in wanted))
    assert [caller.reply().status for _ in targets] == [200, 404, 200, 429]


@pytest.mark.parametrize("route", PREDICT_ROUTES)
def test_answered_alike_over_tls(tls_worker: HttpWorker, route: str) -> None:
    """A good request, on every route over TLS."""
    test_native_and_twin_answer_alike(tls_worker, route, "")


@pytest.mark.parametrize("route", PREDICT_ROUTES)
@pytest.mark.parametrize("accept", ["", "gzip"])
def test_native_and_twin_answer_alike(worker: HttpWorker, route: str, accept: str) -> None:
    """A good request gets the same answer, with every header that the contract promises."""
    case = Case(headers=(f"accept-encoding: {accept}",) if accept else ())
    native, twin = (ask(worker, route, case, twin=twin) for twin in (False, True))
    assert native.status == 200
    assert comparable(native) == comparable(twin)
    promised = {"x-request-id", "x-prediction-id", "x-model-version"}
    promised |= {"ratelimit-limit", "ratelimit-remaining", "ratelimit-reset", "date"}
    assert promised <= native.headers.keys()
    assert promised <= twin.headers.keys()


def test_every_code_has_a_case_or_a_reason() -> None:
    """A new error code without a case fails here; so does a reason for a code that is gone."""
    assert set(CASES) | set(NOT_FROM_A_PREDICT_ROUTE) == set(CODES)
    assert not set(CASES) & set(NOT_FROM_A_PREDICT_ROUTE)


def test_routed_refusals_carry_prediction_id_and_version(worker: HttpWorker) -> None:
    """x-prediction-id and x-model-version are on every answer to a routed request, errors included."""
    for code in ("json_invalid", "shape_mismatch", "model_failed", "journal_unavailable", "server_busy"):
        reply = ask(worker, PREDICT_ROUTES[0], CASES[code][0], twin=False)
        assert {"x-prediction-id", "x-model-version", "ratelimit-limit"} <= reply.headers.keys(), code
