"""The parsers that strangers reach, each as a function of bytes that fails unless a refusal is all that escapes."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import google_crc32c
import msgspec
import numpy as np
import orjson

from modelyard.auth.keys import check_patterns, new_key, parse_key
from modelyard.auth.ports import KeySnapshot
from modelyard.auth.scopes import parse_concurrency, parse_duration, parse_quota, parse_rate, parse_scopes
from modelyard.auth.table import KeyTable, ModelMatcher
from modelyard.codec import CODECS
from modelyard.codec.compression import decompress
from modelyard.codec.log import decode_for_log
from modelyard.codec.oip import OipCodec
from modelyard.codec.signature_plan import plan_of
from modelyard.core.errors import ModelyardError
from modelyard.core.settings import load_settings
from modelyard.core.types import AnswerContext, CodecBounds, DecodedRequest, RawRequest, Signature, Surface, TensorSpec
from modelyard.http.forms.asking import record_filter
from modelyard.http.forms.asking import traffic_weights as weights
from modelyard.http.resource.keys import key_selection
from modelyard.http.resource.paging import encode_cursor, page_of
from modelyard.journal.frame import MARK, encode_frame, read_frames
from modelyard.journal.interpret import RecordDecoder
from modelyard.journal.items import decode_cursor
from modelyard.journal.items import encode_cursor as encode_log_cursor
from modelyard.models.archive import extract_tar
from modelyard.models.complete import check_redaction, complete
from modelyard.models.publish import read_overrides
from modelyard.storage.audit_row import decode_cursor as decode_audit_cursor
from modelyard.storage.file.checked import checked_manifest
from modelyard.testing import FakeClock, prediction_record, version

BOUNDS = CodecBounds()
NOW = 1_700_000_000.0
SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
TREE = Signature((TensorSpec("X", "FP32", (-1, 3), columns=("a", "b", "c")),), (TensorSpec("Y", "FP32", (-1,)),))
WHOLE = Signature((TensorSpec("X", "INT64", (-1, 3)),), (TensorSpec("Y", "FP32", (-1,)),))
MIXED = Signature(
    (TensorSpec("t", "BYTES", (-1,)), TensorSpec("n", "INT32", (-1, 2))), (TensorSpec("Y", "FP32", (-1,)),)
)
SIGNATURES = (TREE, WHOLE, MIXED)


@dataclass(frozen=True)
class Target:
    """`check` fails on what must not happen; `seeds` are good inputs, `tokens` pieces that mean something."""

    check: Callable[[bytes], None]
    seeds: tuple[bytes, ...]
    tokens: tuple[bytes, ...]


def _seen(request: DecodedRequest) -> Any:
    return {n: (a.dtype.str, a.shape, a.tobytes()) for n, a in request.inputs.items()}, request.rows, request.client_id


def _codec(surface: Surface, raw: RawRequest, signature: Signature) -> None:
    try:
        request = CODECS[surface].decode(raw, signature, BOUNDS)
    except ModelyardError as error:
        orjson.dumps([error.message, dict(error.detail)])
        return
    outputs = {"Y": np.zeros(max(request.rows, 1), np.float32)}
    answer = CODECS[surface].encode(request, outputs, AnswerContext("m", "1", "id", signature))
    with suppress(ModelyardError):  # as it promises; the drain keeps such a request raw
        orjson.dumps(decode_for_log(surface, raw, answer, signature, ()))


def _usual(signature: Signature, row: bytes = b"[1,2,3]") -> bytes:
    kind = signature.inputs[0].datatype.encode()
    return b'{"inputs":[{"name":"X","shape":[1,3],"datatype":"%b","data":%b}]}' % (kind, row)


def _together(teacher: bytes, bodies: list[bytes], signature: Signature) -> None:
    """What a codec reads together is what one without memory reads alone."""
    plan_of(signature).slot = None
    codec = OipCodec()
    with suppress(ModelyardError):
        codec.decode(RawRequest(teacher), signature, BOUNDS)
    for body, read in zip(bodies, codec.decode_turn(bodies, signature, BOUNDS), strict=True):
        if read is not None:
            assert _seen(read) == _seen(OipCodec().decode(RawRequest(body), signature, BOUNDS))


def oip(data: bytes) -> None:
    """First byte: the signature, and whether a JSON length is given."""
    choice, body = data[0] if data else 0, data[1:]
    signature = SIGNATURES[choice % 3]
    length = b"%d" % (choice // 6 * len(body) // 42) if choice // 3 % 2 else None
    _codec(Surface.OIP, RawRequest(body, None, length), signature)
    if signature is not MIXED:
        usual = _usual(signature)
        _together(usual, [usual, body, _usual(signature, b"[4,5,6]")], signature)
        _together(body, [body, usual, body.translate(bytes.maketrans(b"12345678", b"23456789"))], signature)


def rows(data: bytes) -> None:
    """First byte: the signature."""
    _codec(Surface.PREDICTIONS, RawRequest(data[1:]), SIGNATURES[(data[0] if data else 0) % 3])


TYPES = (None, b"application/json", b"text/csv", b"text/csv; header=present", b"application/x-npy")


def scoring(data: bytes) -> None:
    """First byte: the signature and the content type; both scoring forms."""
    choice, body = data[0] if data else 0, data[1:]
    signature = SIGNATURES[choice % 3]
    _codec(Surface.TFSERVING, RawRequest(body), signature)
    _codec(Surface.INVOCATIONS, RawRequest(body, TYPES[choice // 3 % 5]), signature)


def manifest(data: bytes) -> None:
    """As an owner's additions, and as a version's stored manifest."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as folder:
        place = Path(folder)
        (place / "modelyard.json").write_bytes(data)
        (place / "manifest.json").write_bytes(data)
        with suppress(ModelyardError):
            overrides = read_overrides(place / "modelyard.json")
            check_redaction(complete(TREE, overrides), overrides.redaction)
        with suppress(ModelyardError):
            checked_manifest("0" * 64, place)


def archive(data: bytes) -> None:
    """Nothing beside the folder, and no more bytes than allowed."""
    with tempfile.TemporaryDirectory(dir=SCRATCH) as outer:
        folder = Path(outer) / "in"
        folder.mkdir()
        with suppress(ModelyardError):
            assert extract_tar(io.BytesIO(data), folder, 100_000) <= 100_000
        assert [path.name for path in Path(outer).iterdir()] == ["in"]
        assert not any(path.is_symlink() for path in folder.rglob("*"))


DECODER = RecordDecoder(lambda _: TREE, decode_for_log, decompress, FakeClock(), 100_000)


def spool(data: bytes) -> None:
    """The bytes as a file; then, behind a good write, as one whose checksum is right."""
    _frames(data)
    tail = data[1:11].ljust(10, b"\0")
    body = (b"\2\0" if data[:1] < b"\x80" else tail[:2]) + tail[2:] + data[11:]
    sealed = (len(body) - 10).to_bytes(4, "little") + google_crc32c.value(body).to_bytes(4, "little") + body
    assert _frames(GOOD + sealed + MARK + GOOD) >= 1


def _frames(data: bytes) -> int:
    reader, count = read_frames(io.BytesIO(data)), 0
    for frame in reader:
        DECODER.record(frame)
        count += 1
    assert 0 <= reader.end <= len(data)
    assert reader.bad_bytes == len(data) - reader.end
    return count


GOOD = b"".join(encode_frame(prediction_record().header, _usual(TREE), b'{"outputs":[]}')) + MARK


def keys(data: bytes) -> None:
    """A presented key, and all that is written in words about one."""
    text = data.decode("latin-1")
    table = KeyTable(KeySnapshot(1, (), ()))
    parsers: list[Callable[[], Any]] = [
        lambda: parse_key(data), lambda: parse_key(text), lambda: table.authenticate(data, NOW),
        lambda: parse_rate(text), lambda: parse_quota(text), lambda: parse_concurrency(text),
        lambda: parse_duration(text), lambda: parse_scopes(text.split(" ")),
        lambda: ModelMatcher(check_patterns(text.split(" "))).allows("aaaaaaaaaaaaaaaaaaaaaaaaaaaa"),
    ]  # fmt: skip
    for parser in parsers:
        with suppress(ModelyardError):
            parser()


def settings(data: bytes) -> None:
    """A configuration file."""
    with tempfile.NamedTemporaryFile(dir=SCRATCH, suffix=".toml") as file:
        file.write(data)
        file.flush()
        before = os.environ.get("MODELYARD_CONFIG")
        try:
            load_settings(Path(file.name))
        except ModelyardError as error:
            orjson.dumps([error.message, dict(error.detail)])
        finally:
            os.environ.pop("MODELYARD_CONFIG", None)
            if before is not None:
                os.environ["MODELYARD_CONFIG"] = before


FIELDS = ("model", "version", "client", "endpoint", "subject", "status", "outcome", "since", "until", "items")


def log_query(data: bytes) -> None:
    """Filters of the log, of keys, shares of traffic, and every list's cursor; the lines are the fields."""
    text = data.decode("utf-8", "replace")
    lines = text.split("\n")
    asked: dict[str, str | None] = dict(zip(FIELDS, lines, strict=False))
    parsers: list[Callable[[], Any]] = [
        lambda: record_filter(asked, NOW),
        lambda: record_filter({"since": text, "outcome": "=" + text}, NOW),
        lambda: key_selection({"unused_since": text, "created_before": lines[-1]}, NOW),
        lambda: page_of([("a", 1.0), ("b", 2.0)], "keys", lambda one: one, 1, text),
        lambda: decode_cursor(text), lambda: decode_audit_cursor(text), lambda: weights({text: len(text), "1": 90}),
    ]  # fmt: skip
    for parser in parsers:
        try:
            parser()
        except ModelyardError as error:
            orjson.dumps([error.message, dict(error.detail)])


def _tar() -> bytes:
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as made:
        for name in ("model.onnx", "sub/" + "é" * 60):
            info = tarfile.TarInfo(name)
            info.size = 5
            made.addfile(info, io.BytesIO(b"12345"))
    return out.getvalue()[:4096]


def _npy() -> bytes:
    out = io.BytesIO()
    np.save(out, np.ones((1, 3), np.float32))
    return out.getvalue()


JSON = tuple(b'{ } [ ] , : " \\u0000 null true -1 1e999 1e39 NaN 18446744073709551616 "X" "a" "t" "n" []'.split(b" "))
MORE = (b'"inputs"', b'"shape"', b'"datatype"', b'"data"', b'"parameters"', b'"binary_data_size"', b'"FP32"', b'"id"')
TARGETS = {
    "oip": Target(oip, (b"\0" + _usual(TREE), b"\1" + _usual(WHOLE), b"\5" + _usual(TREE) + bytes(12)), JSON + MORE),
    "rows": Target(
        rows,
        (b'\0{"items":[{"a":1,"b":2,"c":3},{"X":[1,2,3]}],"subject":"s"}', b'\2{"items":[{"t":"x","n":[1,2]}]}'),
        (*JSON, b'"items"', b'"subject"'),
    ),
    "scoring": Target(
        scoring,
        (
            b'\0{"instances":[[1,2,3]]}',
            b'\3{"dataframe_split":{"columns":["a","b","c"],"data":[[1,2,3]]}}',
            b'\2{"inputs":{"t":["x"],"n":[[1,2]]}}',
            b"\x061,2,3\n4,5,6\n",
            b"\x09a,b,c\n1,2,3\n",
            b"\x0c" + _npy(),
        ),
        (*JSON, b'"instances"', b'"inputs"', b'"dataframe_records"', b"\r\n", b'""', b"'descr'", b"'|O'"),
    ),
    "manifest": Target(
        manifest,
        (msgspec.json.encode(version().manifest), b'{"columns":["a","b","c"],"labels":["n"],"redaction":{"a":"hash"}}'),
        (*JSON, b'"signature"', b'"redaction"', b'"../x"', b'"columns"', b'"metrics"'),
    ),
    "archive": Target(archive, (_tar(),), (b"../", b"/", b"\0" * 8, b"x", b"L", b"5", b"2", b"30 path=a\n", b"\x80")),
    "spool": Target(spool, (GOOD, GOOD[7:], GOOD + GOOD[:40]), (MARK, b"\xdc", b"\xff\xff", b"\xc0", b"\xd9")),
    "keys": Target(
        keys,
        (new_key(bytes).text.encode(), b"100/s", b"30d", b"predict admin", b"tree* [a-z]?", b"**a*a*a*a*b"),
        (b"mdy_", b"*", b"[", b"]", b"[!", b"/", b"none", b"9" * 12),
    ),
    "settings": Target(
        settings,
        (b'workers = 2\n[http]\nport = 1\ntrusted_proxies = ["10.0.0.0/8"]\nroot_path = "/m"\n',),
        (b"[http]\n", b"[[a]]", b"= ", b'"', b"inf", b"1979-05-27", b"'''", b"tls_cert = ", b"data = ", b"\\u0000"),
    ),
    "log_query": Target(
        log_query,
        (
            b"m\n1\nc\ne\ns\n2xx\n=1\n15m\n2026-01-31T12:00Z\ntrue",
            encode_cursor("keys", ("a", 1.0)).encode(),
            encode_log_cursor(5, "p").encode(),
            b"17-3",
            b"=1e999",
        ),
        (b"has", b"none", b"=", b"\n", b"99999999w", b"0001-01-01", b"9999-12-31T23:59:59-23:59", b"1e9"),
    ),
}
