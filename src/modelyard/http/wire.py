"""What a predict request looks like on the wire: its target, its key, the head of its answer. Shared by the native
route and its ASGI twin, so that they cannot differ."""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from http import HTTPStatus
from urllib.parse import parse_qsl

import msgspec

from modelyard.codec.oip_request import read_subject
from modelyard.core.call import Answer, RateState, RequestHead
from modelyard.core.errors import InvalidRequestError
from modelyard.core.types import NAME, Surface

SUBJECT = b"x-modelyard-subject"
IDEMPOTENCY_KEY = b"idempotency-key"
_IDEMPOTENCY = re.compile(rb"[ -~]{1,255}")
Headers = Iterable[tuple[bytes, bytes]]

_PREDICT = (
    (Surface.OIP, re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?/infer")),
    (Surface.PREDICTIONS, re.compile(r"/v1/models/([^/]+)(?:/versions/([^/]+))?/predictions")),
    (Surface.TFSERVING, re.compile(r"/v1/models/([^/]+)(?:/versions/([^/]+))?:predict")),
)
_INVOCATIONS = "/invocations"
PREDICT_ROUTES = (
    "/v2/models/{model}/infer",
    "/v2/models/{model}/versions/{version}/infer",
    "/v1/models/{model}/predictions",
    "/v1/models/{model}/versions/{version}/predictions",
    "/v1/models/{model}:predict",
    "/v1/models/{model}/versions/{version}:predict",
    _INVOCATIONS,
)
"""Every predict route, as the reference page and the twin test list them."""


class Target(msgspec.Struct, frozen=True):
    """What a predict request's path asks for; `model` is empty where the path does not say it (`/invocations`)."""

    surface: Surface
    model: str
    version: str | None


def predict_target(path: str) -> Target | None:
    """The target of a percent-decoded path, None if it is no predict route."""
    for surface, pattern in _PREDICT:
        match = pattern.fullmatch(path)
        if match:
            return Target(surface, match[1], match[2])
    return Target(Surface.INVOCATIONS, "", None) if path == _INVOCATIONS else None


def check_names(target: Target) -> None:
    """Raises InvalidRequestError("name_invalid") for names that no model or version can have."""
    for field, name in (("model", target.model), ("version", target.version)):
        if name and not (NAME.fullmatch(name) and ".." not in name):
            raise InvalidRequestError(
                "name_invalid",
                f"`{name[:80]}` cannot be the name of a {field}.",
                field=field,
                expected="1 to 128 letters, digits, `.`, `_`, `-`, a letter or digit at both ends",
                got=name[:200],
            )


def invoked_model(fields: Mapping[bytes, bytes], query: bytes, fallback: str | None) -> str:
    """The endpoint that a request to `/invocations` is for: `x-modelyard-model`, else SageMaker's
    `X-Amzn-SageMaker-Target-Model` (there a file's name: `.tar.gz` is left out), else the query's `model`, else
    `fallback`. Raises InvalidRequestError("field_missing") where nothing says it, and "name_invalid"."""
    named = fields.get(b"x-modelyard-model", b"")
    if not named:
        named = fields.get(b"x-amzn-sagemaker-target-model", b"").removesuffix(b".tar.gz")
    if not named and query:
        # As text: of bytes that are not ASCII once decoded, parse_qsl makes a UnicodeEncodeError.
        named = dict(parse_qsl(query.decode("latin-1"))).get("model", "").encode()
    model = named.decode("latin-1").strip() or fallback
    if model is None:
        raise InvalidRequestError(
            "field_missing",
            "Say which model: there is more than one here, and `http.default_endpoint` is not set.",
            field="x-modelyard-model",
            expected="an endpoint's name in the header `x-modelyard-model`, or in the query: `/invocations?model=…`",
            got=None,
        )
    check_names(Target(Surface.INVOCATIONS, model, None))
    return model


class TargetCache:
    """Raw request targets that the native route answers; bounded. Whatever needs decoding (percent-encoding, a
    query, absolute form) is not native and goes to the twin."""

    MOST = 4096

    def __init__(self) -> None:
        self._targets: dict[bytes, Target | None] = {}

    def native(self, url: bytes) -> Target | None:
        """The target, if this is a plain predict path with good names."""
        try:
            return self._targets[url]
        except KeyError:
            pass
        target = None
        if len(url) <= 600 and re.fullmatch(rb"/[A-Za-z0-9._:/-]+", url):
            target = predict_target(url.decode("ascii"))
            if target is not None:
                try:
                    check_names(target)
                except InvalidRequestError:
                    target = None
        if len(self._targets) >= self.MOST:
            self._targets.clear()
        self._targets[url] = target
        return target


def presented_key(headers: Headers) -> bytes | None:
    """The API key: `x-api-key`, or `Authorization: Bearer`. InvalidRequestError("keys_differ") if two differ."""
    key: bytes | None = None
    for name, value in headers:
        if name == b"x-api-key":
            presented = value.strip()
        elif name == b"authorization" and value[:7].lower() == b"bearer ":
            presented = value[7:].strip()
        else:
            continue
        if key is not None and presented != key:
            raise InvalidRequestError(
                "keys_differ",
                "The request carries two different keys.",
                field="x-api-key",
                expected="one key, in `x-api-key` or `Authorization: Bearer`",
                got="two",
            )
        key = presented
    return key


def read_head(target: Target, key: bytes | None, fields: Mapping[bytes, bytes]) -> RequestHead:
    """What the spine needs of a request's head; of a field that came twice, the last one counts.

    InvalidRequestError("parameter_invalid") for a subject or an Idempotency-Key that cannot be one.
    """
    get = fields.get
    subject, idempotency = get(SUBJECT), get(IDEMPOTENCY_KEY)
    return RequestHead(
        target.surface,
        target.model,
        target.version,
        key,
        get(b"content-type"),
        get(b"content-encoding"),
        get(b"inference-header-content-length"),
        get(b"accept-encoding"),
        get(b"x-request-id"),
        None if subject is None else read_subject(subject.decode("utf-8", "surrogateescape"), "x-modelyard-subject"),
        "" if idempotency is None else read_idempotency(idempotency),
        get(b"x-forwarded-for"),
    )


def read_idempotency(key: bytes) -> str:
    """An Idempotency-Key; InvalidRequestError("parameter_invalid")."""
    if _IDEMPOTENCY.fullmatch(key):
        return key.decode("ascii")
    raise InvalidRequestError(
        "parameter_invalid",
        "The Idempotency-Key cannot be one.",
        field="idempotency-key",
        expected="1 to 255 printable ASCII characters",
        got=key[:80].decode("latin-1"),
        example="5f0c8a1e-order-17",
    )


def head_without_upgrade(method: bytes, url: bytes, headers: Headers) -> bytes:
    """The head of a request again, without its offer to change the protocol (RFC 9110, 7.8: it may be ignored)."""
    lines = [b"%b %b HTTP/1.1" % (method, url)]
    for name, value in headers:
        if name == b"connection":
            kept = [
                token for token in value.split(b",") if token.strip().lower() not in (b"upgrade", b"http2-settings")
            ]
            value = b",".join(kept)
        elif name in (b"upgrade", b"http2-settings"):
            continue
        lines.append(name + b": " + value)
    return b"\r\n".join(lines) + b"\r\n\r\n"


def rate_fields(rate: RateState | None) -> list[tuple[bytes, bytes]]:
    """RateLimit-*: the burst, what is left of it now, and whole seconds until it is back."""
    if rate is None:
        return []
    return [
        (b"ratelimit-limit", b"%d" % rate.limit),
        (b"ratelimit-remaining", b"%d" % rate.remaining),
        (b"ratelimit-reset", b"%d" % math.ceil(rate.reset_s)),
    ]


def answer_fields(answer: Answer) -> list[tuple[bytes, bytes]]:
    """The answer's own header fields, without those of the connection; names in lower case."""
    fields = [
        (b"content-type", b"application/json" if answer.header_length is None else b"application/octet-stream"),
        (b"content-length", b"%d" % len(answer.body)),
        (b"x-request-id", answer.request_id.encode("ascii")),
    ]
    if answer.prediction_id is not None:
        fields.append((b"x-prediction-id", answer.prediction_id.encode("ascii")))
    if answer.version is not None:
        fields.append((b"x-model-version", answer.version.encode("ascii")))
    fields += rate_fields(answer.rate)
    if answer.retry_after_s is not None:
        fields.append((b"retry-after", b"%d" % max(1, math.ceil(answer.retry_after_s))))
    if answer.header_length is not None:
        fields.append((b"inference-header-content-length", b"%d" % answer.header_length))
    if answer.content_encoding is not None:
        fields.append((b"content-encoding", answer.content_encoding))
    if answer.allow is not None:
        fields.append((b"allow", answer.allow.encode("ascii")))
    if answer.replayed:
        fields.append((b"idempotent-replayed", b"true"))
    if answer.status == 401:
        fields.append((b"www-authenticate", b"Bearer"))
    return fields


def _status_line(status: int) -> bytes:
    try:
        phrase = HTTPStatus(status).phrase
    except ValueError:
        phrase = ""
    return f"HTTP/1.1 {status} {phrase}\r\n".encode("ascii")


STATUS_LINES: Mapping[int, bytes] = {status: _status_line(status) for status in range(200, 600)}


_last: tuple[str | None, RateState | None, str] = (None, None, "")


def _standing_fields(version: str | None, rate: RateState | None) -> str:
    """The fields that the answers of one turn to one client have in common; the last ones are remembered."""
    global _last
    last_version, last_rate, text = _last
    if version is last_version and rate is last_rate:
        return text
    fields = [(b"content-type", b"application/json")]
    if version is not None:
        fields.append((b"x-model-version", version.encode("ascii")))
    text = b"".join(b"%b: %b\r\n" % field for field in (*fields, *rate_fields(rate))).decode("ascii")
    _last = version, rate, text
    return text


def answer_bytes(answer: Answer, date: bytes, close: bool) -> bytes:
    """The whole answer as it goes to the socket; `date` is a ready header line."""
    plain = answer.header_length is None and answer.content_encoding is None and not answer.replayed
    if answer.status == 200 and plain and not close:
        standing, prediction_id = _standing_fields(answer.version, answer.rate), answer.prediction_id
        body = answer.body
        return (
            (
                f"HTTP/1.1 200 OK\r\n{standing}content-length: {len(body)}\r\nx-request-id: {answer.request_id}\r\n"
                f"x-prediction-id: {prediction_id}\r\n"
            ).encode("ascii")
            + date
            + b"\r\n"
            + body
        )
    parts = [STATUS_LINES[answer.status], date]
    for name, value in answer_fields(answer):
        parts += (name, b": ", value, b"\r\n")
    if close:
        parts.append(b"connection: close\r\n")
    parts.append(b"\r\n")
    parts.append(answer.body)
    return b"".join(parts)
