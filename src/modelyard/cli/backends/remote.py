"""A server, spoken with over HTTP; its refusals arrive as the errors that they were."""

from __future__ import annotations

import io
import json
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO
from urllib.parse import quote

import orjson
import urllib3

from modelyard.auth.scopes import parse_concurrency
from modelyard.cli.backends import NOTHING, Json, Progress
from modelyard.cli.backends.patience import Patience, ask_again, patience
from modelyard.core.errors import CODES, CommandError, InternalError, ModelyardError
from modelyard.models.archive import pack_folder

PIECE_BYTES = 256 * 1024
OVERRIDES = "modelyard.json"


class RemoteBackend:
    """cli.backends.Backend over a server's management routes."""

    def __init__(
        self,
        server: str,
        key: str | None,
        bounds: Patience | None = None,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        """`bounds` are those of the environment if left out; `pause` waits between two tries."""
        self._base = base_url(server)
        self._bounds = patience() if bounds is None else bounds
        self._pause = pause
        self._headers = {"x-api-key": key} if key else {}
        self._pool = urllib3.PoolManager(retries=False, maxsize=1)

    def ask(
        self,
        method: str,
        path: str,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        query: Mapping[str, Any] | None = None,
        timeout_s: float | None = None,
        stream: bool = False,
    ) -> urllib3.BaseHTTPResponse:
        """One request; the answer, if it is 2xx. ModelyardError as the server said it, CommandError if it did not.
        A refusal that asks to come back later is asked again, within the bounds; a body that streams is not."""
        bounds = self._bounds if body is None or isinstance(body, bytes) else replace(self._bounds, retries=0)

        def once() -> urllib3.BaseHTTPResponse:
            return self._pool.request(
                method,
                self._base + path,
                fields=query or None,
                body=body,
                headers={**self._headers, **(headers or {})},
                timeout=self._bounds.timeout(timeout_s),
                preload_content=not stream,
                redirect=False,
            )

        try:
            answer = ask_again(once, method, _code, bounds, self._pause)
            if 200 <= answer.status < 300:
                return answer
            raise refusal(answer.status, answer.data)
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(self._base, error) from None

    def create_key(
        self,
        client: str,
        scopes: Sequence[str],
        models: Sequence[str],
        rate: str | None,
        expires: str | None,
        bounds: Mapping[str, Any] = NOTHING,
    ) -> Json:
        """Issues a key."""
        body: Json = {"client": client, "scopes": list(scopes), "models": list(models), **_bounds(bounds)}
        body |= {name: text for name, text in (("rate", rate), ("expires", expires)) if text is not None}
        return self._json("POST", "/v1/keys", body)

    def keys(self, selection: Mapping[str, str] = NOTHING) -> list[Json]:
        """Keys, newest first."""
        return self._all("/v1/keys", "keys", selection)

    def change_key(self, key_id: str, given: Mapping[str, Any]) -> Json:
        """Changes a key and its client."""
        return self._json("PATCH", f"/v1/keys/{_part(key_id)}", _bounds(given))

    def rotate_key(self, key_id: str, overlap: str) -> Json:
        """Issues a successor."""
        return self._json("POST", f"/v1/keys/{_part(key_id)}/rotation", {"overlap": overlap})

    def revoke_keys(self, selection: Mapping[str, str], dry_run: bool) -> Json:
        """Ends the keys of a selection."""
        return self._json("POST", "/v1/keys/revocations", {**selection, "dry_run": dry_run})

    def me(self) -> Json:
        """Where the holder of the key stands."""
        return self._json("GET", "/v1/me")

    def revoke_key(self, key_id: str) -> Json:
        """Ends a key."""
        return self._json("DELETE", f"/v1/keys/{_part(key_id)}")

    def publish(
        self,
        model: str,
        source: Path,
        version: str | None,
        metrics: Json | None,
        example: Json | None,
        sent: Progress,
    ) -> Json:
        """Streams a file, or a folder as a tar archive."""
        path = f"/v1/models/{_part(model)}/versions" + ("" if version is None else f"/{_part(version)}")
        method = "POST" if version is None else "PUT"
        with tempfile.TemporaryFile() as spare:
            file, kind = _body_of(source, metrics, example, spare)
            with file:
                headers = {"content-type": kind, "content-length": str(_size(file))}
                if kind == "application/octet-stream":
                    headers["x-modelyard-filename"] = _filename(source)
                answer = self.ask(method, path, _Watched(file, sent), headers, timeout_s=self._bounds.publish_s)
        return _parsed(answer.data)

    def models(self) -> list[Json]:
        """All models, by name."""
        return self._all("/v1/models", "models")

    def model(self, name: str) -> Json:
        """One model with its versions."""
        return self._json("GET", f"/v1/models/{_part(name)}")

    def version(self, model: str, version: str) -> Json:
        """One version."""
        return self._json("GET", f"/v1/models/{_part(model)}/versions/{_part(version)}")

    def revive(self, model: str, version: str) -> Json:
        """Loads a version again."""
        return self._json("POST", f"/v1/models/{_part(model)}/versions/{_part(version)}/revive")

    def traffic(self, endpoint: str) -> Json:
        """An endpoint's shares."""
        return self._json("GET", f"/v1/endpoints/{_part(endpoint)}/traffic")

    def set_traffic(self, endpoint: str, weights: Mapping[str, int], revision: int | None = None) -> Json:
        """Replaces what was seen, by its tag."""
        seen = self.traffic(endpoint)["revision"] if revision is None else revision
        path = f"/v1/endpoints/{_part(endpoint)}/traffic"
        headers = {"content-type": "application/json", "if-match": f'"{seen}"'}
        return _parsed(self.ask("PUT", path, orjson.dumps({"weights": dict(weights)}), headers).data)

    def predictions(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> Json:
        """One page."""
        query = {**filters, "limit": str(limit), **({"cursor": cursor} if cursor else {})}
        return self._json("GET", "/v1/predictions", query=query)

    def count_predictions(self, filters: Mapping[str, str]) -> int:
        """How many match."""
        return int(self._json("GET", "/v1/predictions/count", query=filters)["count"])

    def prediction(self, prediction_id: str, raw: bool = False) -> Json:
        """One record."""
        query = {"raw": "true"} if raw else None
        return self._json("GET", f"/v1/predictions/{_part(prediction_id)}", query=query)

    def give_outcome(self, prediction_id: str, said: Json) -> Json:
        """Gives one outcome."""
        return self._json("POST", f"/v1/predictions/{_part(prediction_id)}/outcome", said)

    def give_outcomes(self, lines: bytes) -> Json:
        """Gives many."""
        return _parsed(self.ask("POST", "/v1/outcomes", lines, {"content-type": "application/x-ndjson"}).data)

    def outcomes(self, prediction_id: str) -> Json:
        """All outcomes that a request's items were given."""
        return self._json("GET", f"/v1/predictions/{_part(prediction_id)}/outcomes")

    def export_predictions(self, filters: Mapping[str, str], form: str) -> Iterator[bytes]:
        """All that match, as they come."""
        answer = self.ask("GET", "/v1/predictions/export", query={**filters, "format": form}, stream=True)
        return self._pieces(answer)

    def analytics(self, question: str, asked: Mapping[str, str]) -> Json:
        """Figures of the log."""
        of_model = question != "requests"
        path = f"models/{_part(asked['model'])}/{question}" if of_model else question
        query = {name: text for name, text in asked.items() if not (of_model and name == "model")}
        return self._json("GET", f"/v1/analytics/{path}", query=query)

    def audit(self, filters: Mapping[str, str], limit: int, cursor: str | None) -> Json:
        """One page of the audit log."""
        query = {**filters, "limit": str(limit), **({"cursor": cursor} if cursor else {})}
        return self._json("GET", "/v1/audit", query=query)

    def audit_head(self) -> Json | None:
        """Its last event."""
        found: Json | None = self._json("GET", "/v1/audit/head")["head"]
        return found

    def verify_audit(self, kept: Json | None) -> Json:
        """The check of its chain, part by part."""
        found = part = self._json("GET", "/v1/audit/verify", query=kept)
        while not part["complete"]:
            behind = {"after_sequence": part["head"]["sequence"], "after_hash": part["head"]["hash"]}
            part = self._json("GET", "/v1/audit/verify", query={**(kept or {}), **behind})
            found["checked"] += part["checked"]
            found["problems"] += part["problems"]
            found["head"] = part["head"] or found["head"]
        return {**found, "sound": not found["problems"], "complete": True}

    def export_audit(self, filters: Mapping[str, str]) -> Iterator[bytes]:
        """All events that match, as they come."""
        return self._pieces(self.ask("GET", "/v1/audit/export", query=filters, stream=True))

    def retention(self) -> Json:
        """How long records stay."""
        return self._json("GET", "/v1/retention")

    def sweep(self, force: bool) -> Json:
        """Deletes what is due."""
        return self._json("POST", "/v1/retention/sweeps", {"force": force})

    def holds(self) -> list[Json]:
        """Legal holds in force."""
        found: list[Json] = self._json("GET", "/v1/retention/holds")["holds"]
        return found

    def hold(self, said: Json) -> Json:
        """Puts one on."""
        return self._json("POST", "/v1/retention/holds", said)

    def release(self, hold_id: str) -> Json:
        """Ends one."""
        return _parsed(self.ask("DELETE", f"/v1/retention/holds/{_part(hold_id)}").data)

    def erase(self, subject: str, dry_run: bool) -> Json:
        """Deletes what is stored about a subject."""
        return self._json("POST", "/v1/retention/erasures", {"subject": subject, "dry_run": dry_run})

    def close(self) -> None:
        """Closes the connections."""
        self._pool.clear()

    def _pieces(self, answer: urllib3.BaseHTTPResponse) -> Iterator[bytes]:
        try:
            yield from answer.stream(PIECE_BYTES)
        except urllib3.exceptions.HTTPError as error:
            raise _unreachable(self._base, error) from None

    def _all(self, path: str, name: str, selection: Mapping[str, Any] = NOTHING) -> list[Json]:
        """Every element of a list, page by page."""
        found: list[Json] = []
        query: Json = dict(selection)
        while True:
            page = self._json("GET", path, query=query)
            found += page[name]
            cursor = page.get("next_cursor")
            if not cursor:
                return found
            query = {**selection, "cursor": cursor}

    def _json(self, method: str, path: str, body: Any = None, query: Mapping[str, Any] | None = None) -> Json:
        if body is None:
            return _parsed(self.ask(method, path, query=query).data)
        return _parsed(self.ask(method, path, orjson.dumps(body), {"content-type": "application/json"}).data)


def base_url(server: str) -> str:
    """The server's address without a slash at its end; CommandError("usage_invalid") if it is none."""
    try:
        url = urllib3.util.parse_url(server)
    except urllib3.exceptions.LocationParseError:
        url = urllib3.util.Url()
    if url.scheme not in ("http", "https") or not url.host:
        raise CommandError(
            "usage_invalid", f"`{server[:200]}` is not a server's address.", field="--server",
            expected="http:// or https:// and a host", got=server[:200], example="http://127.0.0.1:8080",
        )  # fmt: skip
    return server.rstrip("/")


def _code(answer: urllib3.BaseHTTPResponse) -> str:
    """The code of a refusal; empty where it is not in our form."""
    try:
        return str(json.loads(answer.data)["code"])
    except (ValueError, KeyError, TypeError):
        return ""


def refusal(status: int, body: bytes) -> ModelyardError:
    """The error that the server meant."""
    try:
        form = json.loads(body)
        family, message, detail = CODES[form["code"]], str(form["error"]), dict(form.get("detail") or {})
    except (ValueError, KeyError, TypeError):
        return CommandError("answer_unreadable", f"The server answered {status} in a form that is not Modelyard's.")
    if family is InternalError:
        message = f"{message} Request id: {form.get('request_id', '')}."
    reserved = ("code", "message", "self", "retry_after_s")
    return family(form["code"], message, **{str(n): v for n, v in detail.items() if n not in reserved})


def _unreachable(server: str, error: Exception) -> CommandError:
    if isinstance(error, urllib3.exceptions.ReadTimeoutError):
        return CommandError("server_unreachable", f"The server at {server} did not answer in time.", field="--server")
    return CommandError("server_unreachable", f"No server answers at {server}.", field="--server", got=server)


def _bounds(given: Mapping[str, Any]) -> Json:
    """A client's bounds as the server reads them."""
    if given.get("concurrency") is None:
        return dict(given)
    return {**given, "concurrency": parse_concurrency(str(given["concurrency"]))}


def _parsed(body: bytes) -> Json:
    try:
        found: Json = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise CommandError("answer_unreadable", "The server's answer is not JSON.", field="--server") from None
    return found


def _part(name: str) -> str:
    return quote(name, safe="")


def _filename(source: Path) -> str:
    return "model" + (source.suffix if source.suffix[1:].isalnum() and source.suffix.isascii() else "")


class _Watched(io.RawIOBase):
    """A file that says how much of it was read."""

    def __init__(self, file: BinaryIO, sent: Progress) -> None:
        self._file = file
        self._sent = sent

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        data = self._file.read(PIECE_BYTES if size < 0 else max(size, PIECE_BYTES))
        self._sent(len(data))
        return data


def _body_of(source: Path, metrics: Json | None, example: Json | None, spare: BinaryIO) -> tuple[BinaryIO, str]:
    """The file to send, open at its start. What is known beside a single file travels with it in an archive."""
    more = {name: value for name, value in (("metrics", metrics), ("example", example)) if value is not None}
    if not source.is_dir() and not more:
        return source.open("rb"), "application/octet-stream"
    if not source.is_dir() or more:
        with tempfile.TemporaryDirectory() as made:
            _gather(source, more, Path(made))
            _write(pack_folder(Path(made)), spare)
    else:
        _write(pack_folder(source), spare)
    return spare, "application/x-tar"


def _gather(source: Path, more: Json, folder: Path) -> None:
    """A folder with the source's files (hard to copy cheaply across file systems, so copied) and what is known."""
    import shutil

    if source.is_dir():
        shutil.copytree(source, folder, dirs_exist_ok=True, symlinks=True)
    else:
        shutil.copyfile(source, folder / _filename(source))
    known: Json = {}
    if (folder / OVERRIDES).is_file():
        known = _parsed((folder / OVERRIDES).read_bytes())
    (folder / OVERRIDES).write_bytes(orjson.dumps({**known, **more}))


def _write(pieces: Iterable[bytes], file: BinaryIO) -> None:
    for piece in pieces:
        file.write(piece)
    file.seek(0)


def _size(file: BinaryIO) -> int:
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    return size
