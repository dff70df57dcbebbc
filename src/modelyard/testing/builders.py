"""Values that travel between the stations, with everything that a test does not care about filled in."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import orjson

from modelyard.auth.ports import Key
from modelyard.core.types import LoadedModel, LoadProfile, Servable, Signature, TensorSpec
from modelyard.journal.record import PredictionRecord, RecordHeader
from modelyard.models.manifest import FileEntry, Manifest
from modelyard.models.ports import Version

T0 = 1_700_000_000.0
"""Where the builders' time begins (UNIX seconds), as FakeClock's does."""


def signature(
    columns: Sequence[str] = ("a", "b"), datatype: str = "FP32", labels: Sequence[str] = (), batch: int = -1
) -> Signature:
    """Takes `x` of shape [batch, columns], gives `y` of the same shape; `labels` name y's classes."""
    shape = (batch, len(columns))
    x = TensorSpec("x", datatype, shape, columns=tuple(columns))
    return Signature((x,), (TensorSpec("y", datatype, shape, labels=tuple(labels)),))


def servable(
    loaded: LoadedModel | None = None,
    model: str = "tree",
    version: str = "1",
    batched: bool = True,
    in_loop: bool = True,
) -> Servable:
    """A loaded version (a StubModel if none is given) with the profile of a fast model."""
    if loaded is None:
        from modelyard.testing.stub import StubModel

        loaded = StubModel()
    digest = hashlib.sha256(f"{model}/{version}".encode()).hexdigest()
    return Servable(model, version, digest, loaded, LoadProfile(batched, in_loop, run_us_1=5.0, run_us_32=8.0))


def manifest(files: Mapping[str, bytes] | None = None, entry: str | None = None, **fields: Any) -> Manifest:
    """A manifest over these files; `fields` are the Manifest's own."""
    contents = {"stub.json": b'{"k": 2.0}'} if files is None else files
    entries = tuple(FileEntry(path, hashlib.sha256(data).hexdigest(), len(data)) for path, data in contents.items())
    defaults: dict[str, Any] = {"format": "stub", "signature": signature()}
    return Manifest(entry=entry or next(iter(contents)), files=entries, **(defaults | fields))


def version(
    model: str = "tree", name: str = "1", content: bytes = b'{"k": 2.0}', created_at: float = T0, **fields: Any
) -> Version:
    """A version of one file with this content; `fields` are the Manifest's own."""
    made = manifest({"stub.json": content}, **fields)
    return Version(model, name, made.digest(), made, created_at)


def version_folder(folder: Path, files: Mapping[str, bytes] | None = None, **fields: Any) -> Manifest:
    """Writes the files and their `manifest.json` into `folder`, ready for ArtifactStore.put, and gives the manifest."""
    contents = {"stub.json": b'{"k": 2.0}'} if files is None else files
    for path, data in contents.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(data)
    made = manifest(contents, **fields)
    (folder / "manifest.json").write_bytes(msgspec.json.encode(made))
    return made


def key(client_id: str, key_id: str = "k1", secret: bytes = b"secret", **fields: Any) -> Key:
    """A key that may predict with every model; its hash is over the id and `secret`. `fields` are the Key's own."""
    hashed = hashlib.sha256(key_id.encode() + secret).digest()
    defaults: dict[str, Any] = {"scopes": ("predict",), "models": ("*",), "created_at": T0}
    return Key(id=key_id, client_id=client_id, secret_hash=hashed, **(defaults | fields))


def prediction_record(
    prediction_id: str = "p1", at: float = T0, inputs: Any = None, outputs: Any = None, **fields: Any
) -> PredictionRecord:
    """A record of one answered row. `fields` are the RecordHeader's or the PredictionRecord's own."""
    header: dict[str, Any] = {**_HEADER, "id": prediction_id, "at_ns": round(at * 1_000_000) * 1000}
    header |= {name: fields.pop(name) for name in tuple(fields) if name in RecordHeader.__struct_fields__}
    ins = {"x": [[1.0, 2.0]]} if inputs is None else inputs
    outs = {"y": [[2.0, 4.0]]} if outputs is None else outputs
    digest = hashlib.sha256(orjson.dumps([ins, outs])).hexdigest()
    body: dict[str, Any] = {"request_bytes": 120, "answer_bytes": 80, "payload_sha256": digest}
    return PredictionRecord(header=RecordHeader(**header), inputs=ins, outputs=outs, **(body | fields))


_HEADER: Mapping[str, Any] = {
    "request_id": "r1",
    "surface": "oip",
    "content_type": b"application/json",
    "content_encoding": b"",
    "request_header_length": b"",
    "answer_header_length": -1,
    "key_id": "k1",
    "client": "acme",
    "endpoint": "tree",
    "model": "tree",
    "version": "1",
    "arm": 0,
    "manifest": "0" * 64,
    "redaction": "none",
    "status": 200,
    "code": "",
    "rows": 1,
    "queue_us": 10,
    "compute_us": 20,
    "total_us": 40,
    "subject": "",
    "idempotency": "",
}


_FILL = """
WITH RECURSIVE n(i) AS (SELECT {first} UNION ALL SELECT i + 1 FROM n WHERE i < {last})
INSERT INTO predictions
SELECT printf('%016x%010x', i % 7, i), {at} * 1000000 + i * {step}, 'r' || i,
       CASE WHEN i < 1000 THEN 'early' ELSE 'c' || (i % 20) END, 'k' || (i % 20),
       CASE WHEN i < 1000 THEN 'old' ELSE 'e' || (i % 5) END, CASE WHEN i < 1000 THEN 'old' ELSE 'm' || (i % 5) END,
       CASE WHEN i % 1000 = 7 THEN 'rare' ELSE i % 3 END, 0,
       CASE WHEN i % 100 = 3 THEN 400 WHEN i % 5000 = 9 THEN 500 ELSE 200 END, '', 1,
       '{{"X":[{{"a":1.5,"b":2.5,"c":3.5,"d":4.5}}]}}', '{{"label":[1],"probabilities":[[0.25,0.75]]}}',
       10, 20, 40, 120, 80, CASE WHEN i % 50000 = 11 THEN 'undecoded' ELSE '' END, 'oip',
       CASE WHEN i % 10 = 1 THEN 's' || (i % 9973) ELSE '' END, 'm', 'none', 'sha', NULL, NULL
FROM n
"""


def fill_log(connection: Any, first: int, count: int, at_s: int, step_us: int = 1000) -> None:
    """`count` records of SQLite's prediction log from number `first` on, `step_us` apart, made by the database itself:
    20 clients, 5 models and endpoints of 3 versions, one in a hundred refused, one in ten with a subject, and
    a few rare ones."""
    connection.exec_driver_sql(_FILL.format(first=first, last=first + count - 1, at=at_s, step=step_us))
