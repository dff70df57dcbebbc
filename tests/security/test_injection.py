"""Nothing that a caller writes becomes part of a statement (S14), of a log's structure (S13), of an answer's head."""

from __future__ import annotations

import ast
import io
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
from hostile import FORGED, LINES, SQL
from server import RunningServer
from test_no_key_no_answer import ROUTES, Route

import modelyard
from modelyard.core.events import Event
from modelyard.telemetry.logs import configure_logging, emit

SOURCE = Path(modelyard.__file__).parent
FIELDS = re.compile(r"\{(\w+)\}")
GOOD = {"model": "simple", "endpoint": "simple", "version": "1"}
FORM = {"error", "code", "detail", "request_id"}
SQL_WORDS = ("syntax error", "sqlite", "sqlalchemy", "operational", "no such column", "unterminated", "psycopg",
             "pymysql")  # fmt: skip
HEADERS = ("x-request-id", "user-agent", "if-match", "if-none-match", "content-type", "accept", "x-modelyard-filename",
           "x-modelyard-subject", "x-forwarded-for", "idempotency-key", "x-api-key", "authorization")  # fmt: skip

ASKED: tuple[tuple[str, str, Any], ...] = (
    ("GET", "/v1/models/simple", None),
    ("POST", "/v2/models/simple/infer", {}),
    ("GET", "/v1/endpoints/simple/traffic", None),
    ("POST", "/v1/keys", {"client": "inj", "scopes": ["none"]}),
)
SHORT_AND_LONG = pytest.mark.parametrize("every", [6, pytest.param(1, marks=pytest.mark.long)])
"""Every sixth payload, another one for each route; or all of them."""


@pytest.fixture(scope="module")
def master(fortress: RunningServer) -> str:
    """A key that may do everything."""
    made: str = fortress.create_key("injector", scopes=["admin", "predict"], rate="1000000/s")["key"]
    return made


@pytest.fixture(scope="module")
def document(fortress: RunningServer) -> dict[str, Any]:
    """The server's own list of what can be asked, with all parameters and bodies."""
    said: dict[str, Any] = fortress.ask("GET", "/openapi.json", key=None).json
    return said


def filled(path: str, at: str = "", segment: str = "") -> str:
    """The path with good names, and a segment at one place."""
    return FIELDS.sub(lambda field: segment if field[1] == at else GOOD.get(field[1], "x"), path)


def queries(document: dict[str, Any], route: Route) -> list[str]:
    """The query parameters that the route declares."""
    operation = document["paths"][route.path][route.method.lower()]
    return [p["name"] for p in operation.get("parameters", ()) if p["in"] == "query"]


def bodies(document: dict[str, Any], route: Route, payload: str) -> Iterator[Any]:
    """The route's JSON body with the payload as each field in turn: as text, in a list, as a key."""
    operation = document["paths"][route.path][route.method.lower()]
    content = operation.get("requestBody", {}).get("content", {}).get("application/json")
    if content is None:
        return
    schema = content["schema"]
    if "$ref" in schema:
        schema = document["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    for field in schema.get("properties", {}) or ("items",):
        for value in (payload, [payload], {payload: 100}):
            yield {"client": "injected", field: value} if route.path == "/v1/keys" else {field: value}
    yield {payload: 1}


def requests(document: dict[str, Any], route: Route, payload: str) -> Iterator[tuple[str, Any]]:
    """Target and body for each place where a caller can write."""
    text = quote(payload.encode("utf-8", "surrogatepass"), safe="")
    for field in FIELDS.findall(route.path):
        yield filled(route.path, field, text), None
    for name in queries(document, route):
        yield f"{filled(route.path)}?{name}={text}", None
    yield f"{filled(route.path)}?{text}=1", None
    if route.method != "GET":
        for body in bodies(document, route, payload):
            yield filled(route.path), body


def known(server: RunningServer) -> tuple[bytes, list[str]]:
    """What a successful injection would change."""
    keys = [key["id"] for key in _all_keys(server) if key["client"] not in ("injected", *SQL)]
    return server.ask("GET", "/v1/models").body, keys


def _all_keys(server: RunningServer) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    query = ""
    while True:
        page = server.ask("GET", f"/v1/keys{query}").json
        found += page["keys"]
        if not page.get("next_cursor"):
            return found
        query = f"?cursor={page['next_cursor']}"


@SHORT_AND_LONG
def test_sql_is_only_ever_data(fortress: RunningServer, master: str, document: dict[str, Any], every: int) -> None:
    """Each payload in each path segment, each query parameter and each field of a body, of every route: never a 5xx,
    never a word of the database, and nothing is gone or more."""
    before, records = known(fortress), fortress.count()
    sent = 0
    for number, route in enumerate(ROUTES):
        if route.path.startswith("/docs"):
            continue
        for payload in SQL[number % every :: every]:
            for target, body in requests(document, route, payload):
                reply = fortress.ask(route.method, target, body, key=master)
                sent += 1
                assert reply.status < 500, (route, target, body, reply.body[:300])
                if reply.status >= 400:
                    said = json.loads(reply.body)
                    assert set(said) == FORM
                    assert not any(word in said["error"].lower() for word in SQL_WORDS), said
    assert known(fortress) == before
    assert fortress.count() >= records
    print(f"{sent} requests with SQL in them, on {len(ROUTES)} routes")
    assert sent * every > 3000


def test_filters_match_nothing_more(fortress: RunningServer, master: str) -> None:
    """A filter that holds SQL matches the records that have that very text: none."""
    for payload in SQL:
        for name in ("model", "version", "client", "endpoint"):
            reply = fortress.ask("GET", f"/v1/predictions/count?{name}={quote(payload)}", key=master)
            assert reply.json == {"count": 0}, (name, payload)


@SHORT_AND_LONG
def test_no_line_of_the_log_is_forged(
    fortress: RunningServer, master: str, document: dict[str, Any], every: int
) -> None:
    """Line breaks of every kind, terminal codes, fake JSON and a megabyte, wherever a caller can write: each line of
    the log stays one JSON object with an event of ours, and none is the caller's."""
    sent = 0
    for number, route in enumerate(ROUTES):
        if route.path.startswith("/docs"):
            continue
        for payload in LINES[number % every :: every]:
            short = payload[:2000]
            for target, body in requests(document, route, short):
                reply = fortress.ask(route.method, target, body, key=master)
                sent += 1
                assert reply.status < 500, (route, target, reply.body[:300])
    lines = [json.loads(line) for line in fortress._log.read_bytes().split(b"\n") if line]
    assert all(type(line) is dict and "event" in line and "forged" not in line for line in lines)
    assert fortress.events()
    assert b"\x1b" not in fortress._log.read_bytes()
    print(f"{sent} requests; {len(lines)} lines, 0 forged")
    assert sent * every > 1000


def test_headers_are_data_too(fortress: RunningServer, master: str) -> None:
    """The same in headers, as far as HTTP lets them through: no 5xx, and nothing of it in an answer's head."""
    sent = 0
    for payload in (*LINES, *SQL):
        value = payload[:2000].encode("utf-8", "surrogatepass").decode("latin-1")
        if any(c in value for c in "\r\n\x00"):  # no header: see the smuggling tests
            continue
        for name in HEADERS:
            method, path, body = ASKED[sent % len(ASKED)]
            reply = fortress.ask(method, path, body, key=None, headers={"x-api-key": master, name: value})
            sent += 1
            assert reply.status < 500, (name, value, reply.body[:300])
            assert "forged" not in "".join(reply.headers.values())
            assert re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", reply.headers["x-request-id"])
    lines = [json.loads(line) for line in fortress._log.read_bytes().split(b"\n") if line]
    assert not any("forged" in line for line in lines)
    print(f"{sent} requests with hostile headers")


@pytest.mark.parametrize("event", [Event.KEY_CREATED, Event.LIBRARY_MESSAGE])
def test_whatever_a_field_holds_is_one_line(event: Event) -> None:
    """The log itself, field by field: one line, one object, the text inside it and nowhere else."""
    stream = io.BytesIO()
    configure_logging("debug", stream)
    try:
        for payload in (*LINES, *SQL):
            emit(event, model=payload, **{payload[:40] or "x": payload}, nested={"a": [payload]})
    finally:
        configure_logging("error")
    text = stream.getvalue()
    assert len(text.decode().splitlines()) == len(LINES) + len(SQL)
    for line in text.decode().splitlines():
        said = json.loads(line)
        assert said["event"] == str(event)
        assert "forged" not in said
    assert FORGED.encode() not in text
    assert not re.search(rb"[\x00-\x09\x0b-\x1f\x7f]", text)


BUILDS = {"text", "exec_driver_sql", "literal_column"}
"""Calls that take SQL as text."""
RUNS = {"execute", "executemany", "executescript"}
"""Calls that run a statement, or a text."""


OURS = {
    ("storage/sql/dialects/mysql.py", "f'SET SESSION {bound}'"): "whole numbers",
    ("storage/sql/dialects/mysql.py", "begun"): "constants",
    ("storage/sql/dialects/postgresql.py", "made"): "names of our own tables and columns",
    ("storage/sql/dialects/postgresql.py", "inserted"): "names of our own tables and columns",
    ("storage/sql/dialects/postgresql.py", "f'SAVEPOINT {_INCOMING}'"): "a constant",
    ("storage/sql/dialects/postgresql.py", "f'ROLLBACK TO SAVEPOINT {_INCOMING}'"): "a constant",
    ("storage/sql/dialects/postgresql.py", "'; '.join(_bounds(kind, wait_ms, work_ms, long_ms))"):
        "whole numbers, and constants",
    ("storage/sql/dialects/partitions/mysql.py", "f'{ALONE} NOWAIT'"): "a constant",
    ("storage/sql/dialects/partitions/mysql.py",
     "f\"ALTER TABLE predictions DROP PARTITION {', '.join(gone)}\""): "names of days that are there",
    ("storage/sql/dialects/partitions/mysql.py",
     "f'ALTER TABLE predictions REORGANIZE PARTITION {_STRAYS} INTO ({parts})'"): "made from dates",
    ("storage/sql/dialects/partitions/mysql.py",
     "f'ALTER TABLE predictions PARTITION BY RANGE COLUMNS (id) ({parts})'"): "made from dates",
    ("storage/sql/dialects/partitions/postgresql.py",
     "f'CREATE TABLE {day.name} PARTITION OF predictions FOR VALUES {bounds}'"): "made from a date",
    ("storage/sql/dialects/partitions/postgresql.py", "f'DROP TABLE {day.name}'"): "made from a date",
    ("storage/sql/dialects/sqlite.py", "text"): "a statement that SQLAlchemy compiled with parameters",
    ("storage/sql/migrations/versions/0001_first_tables.py", "prediction_log_view(op.get_bind(), 1)"): "a constant",
    ("storage/sql/migrations/versions/0007_daily_partitions.py",
     "f'ALTER INDEX \"{name}\" RENAME TO \"{name}_before\"'"):
        "names that the database tells of its own",
    ("storage/sql/migrations/versions/0007_daily_partitions.py",
     "f'ALTER INDEX \"{name}\" RENAME TO \"{name}_days\"'"):
        "names that the database tells of its own",
    ("storage/sql/migrations/versions/0007_daily_partitions.py", "statement.replace('%', '%%')"):
        "statements that the database tells of its own",
}
"""What is put together from nothing that a caller sent, looked at one by one."""


def test_no_statement_is_built_from_text() -> None:
    """Every text that goes to the database as SQL is a constant of the program: no f-string, no `%`, no `.format`, no
    sum with a value in it, anywhere but in the places that were looked at."""
    seen, broken = 0, []
    for path in SOURCE.rglob("*.py"):
        tree = ast.parse(path.read_text())
        for call in (node for node in ast.walk(tree) if isinstance(node, ast.Call) and node.args):
            name = call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")
            if "storage" not in path.parts or name not in BUILDS | RUNS:
                continue
            seen += 1
            if (name in BUILDS and not _constant(call.args[0], tree)) or (name in RUNS and _made(call.args[0], tree)):
                broken.append((str(path.relative_to(SOURCE)), ast.unparse(call.args[0])))
    assert sorted(broken) == sorted(OURS)
    assert seen >= 3


def _made(node: ast.expr, tree: ast.Module) -> bool:
    """Whether a statement that is run is a text that was put together from more than the program's own constants."""
    if isinstance(node, ast.Name):
        return any(_made(value, tree) for value in _given(node.id, tree) if not isinstance(value, ast.Name))
    formatted = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "format"
    return formatted or (isinstance(node, ast.JoinedStr | ast.BinOp) and not _fixed(node, tree))


def _fixed(node: ast.expr, tree: ast.Module) -> bool:
    """A constant, by its name or in its place, or put together from constants alone."""
    if isinstance(node, ast.JoinedStr):
        return all(_fixed(part.value, tree) for part in node.values if isinstance(part, ast.FormattedValue))
    if isinstance(node, ast.BinOp):
        return _fixed(node.left, tree) and _fixed(node.right, tree)
    if isinstance(node, ast.Name) and not node.id.isupper():
        given = list(_given(node.id, tree))
        return bool(given) and all(_fixed(value, tree) for value in given)
    return isinstance(node, ast.Name) or _constant(node, tree)


def _constant(node: ast.expr, tree: ast.Module) -> bool:
    """Whether the value is one of the program's own texts: a constant, a choice of constants, a name that is only ever
    given constants; or the statement that SQLAlchemy compiled with parameters."""
    if isinstance(node, ast.Constant):
        return True
    if isinstance(node, ast.IfExp):
        return _constant(node.body, tree) and _constant(node.orelse, tree)
    if isinstance(node, ast.Name):
        given = list(_given(node.id, tree))
        return bool(given) and all(_constant(value, tree) for value in given)
    return isinstance(node, ast.Attribute) and node.attr == "_insert"


def _given(name: str, tree: ast.Module) -> Iterator[ast.expr]:
    """What a name is given in a module: by assignment, and as a parameter by the calls of its function."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and any(isinstance(t, ast.Name) and t.id == name for t in node.targets):
            yield node.value
        if isinstance(node, ast.For) and isinstance(node.target, ast.Name) and node.target.id == name:
            yield from node.iter.elts if isinstance(node.iter, ast.Tuple | ast.List) else (node.iter,)
        if isinstance(node, ast.FunctionDef) and name in (names := [one.arg for one in node.args.args]):
            for call in (one for one in ast.walk(tree) if isinstance(one, ast.Call)):
                if getattr(call.func, "id", "") == node.name:
                    yield call.args[names.index(name)]


@pytest.mark.parametrize("source", [
    'execute(f"SELECT {x}")', 'execute("SELECT " + x)', 'execute("{}".format(x))', 'q = f"{x}"\nexecute(q)',
])  # fmt: skip
def test_a_run_text_is_found(source: str) -> None:
    """The same for what is run as it is."""
    tree = ast.parse(source)
    (call,) = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "execute")
    assert _made(call.args[0], tree)


@pytest.mark.parametrize("source", [
    'text(f"SELECT {x}")', 'text("SELECT " + x)', 'text("%s" % x)', 'text("{}".format(x))', "text(x)",
    'def f(x):\n    text(x)\nf("a")\nf(input())',
])  # fmt: skip
def test_a_built_statement_is_found(source: str) -> None:
    """The rule above sees what it is there for."""
    tree = ast.parse(source)
    (call,) = (n for n in ast.walk(tree) if isinstance(n, ast.Call) and getattr(n.func, "id", "") == "text")
    assert not _constant(call.args[0], tree)
