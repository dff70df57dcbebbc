"""TLS as clients meet it: real handshakes, new certificates without a lost request, one sentence for a bad file."""

from __future__ import annotations

import asyncio
import http.client
import signal
import socket
import ssl
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import trained
import tritonclient.http as triton
import tritonclient.http.aio as triton_aio
from server import RunningServer, command, until
from test_start import refused

from modelyard.http.edge.certificate import TlsFiles, make_self_signed, read_certificate, utc_now

Serve = Callable[..., RunningServer]
NAMES = ("localhost", "127.0.0.1")


def made(folder: Path, name: str, days_ago: float = 0) -> TlsFiles:
    """A certificate and its key, made some days ago."""
    files = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key")
    make_self_signed(files, NAMES, utc_now() - timedelta(days=days_ago))
    return files


def connect(port: int, context: ssl.SSLContext, name: str = "127.0.0.1") -> ssl.SSLSocket:
    return context.wrap_socket(socket.create_connection(("127.0.0.1", port), timeout=20), server_hostname=name)


def shown(port: int) -> str:
    """The certificate that a new connection is shown, DER in hex."""
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with connect(port, context) as connection:
        found = connection.getpeercert(binary_form=True)
    assert found is not None
    return found.hex()


def der(files: TlsFiles) -> str:
    return ssl.PEM_cert_to_DER_cert(files.certificate.read_text()).hex()


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningServer]:
    """Two workers behind a certificate of the server's own, with `cancer`."""
    data = tmp_path_factory.mktemp("tls") / "data"
    ca = data / "tls" / "certificate.pem"
    started = RunningServer(data, workers=2, arguments=("--tls", "self-signed"), ca=ca).start()
    try:
        assert started.publish("cancer", trained.cancer().content, "1").status == 201
        yield started
    except BaseException:
        started.end()
        raise
    started.stop()


@pytest.fixture(scope="module")
def key(server: RunningServer) -> str:
    text: str = server.create_key("tls", rate="1000000/s")["key"]
    return text


def test_self_signed(server: RunningServer, key: str) -> None:
    """`--tls self-signed` makes a certificate of 90 days for this machine's names in the private folder; clients that
    trust it need nothing else, others refuse."""
    files = TlsFiles(server.data / "tls" / "certificate.pem", server.data / "tls" / "key.pem")
    assert server.url.startswith("https://127.0.0.1:")
    assert server.ask("POST", "/v2/models/cancer/infer", trained.infer_body(X=ROWS), key=key).status == 200
    found = read_certificate(files.certificate)
    assert {"localhost", "127.0.0.1", "::1", socket.gethostname()} <= set(found.names)
    assert 89 < found.days_left(utc_now()) <= 90
    assert found.fingerprint in server.output
    assert stat.S_IMODE(files.key.stat().st_mode) == 0o600
    for name in ("localhost", "127.0.0.1"):
        connect(server.port, ssl.create_default_context(cafile=str(files.certificate)), name).close()
    with pytest.raises(ssl.SSLCertVerificationError):
        connect(server.port, ssl.create_default_context())


def test_predict_on_the_folder(server: RunningServer, key: str, tmp_path: Path) -> None:
    """`modelyard predict` finds the server of a folder, and trusts the certificate that it made for itself."""
    np.save(tmp_path / "rows.npy", ROWS)
    done = command("predict", "cancer", tmp_path / "rows.npy", "--data", server.data, "--key", key, "--json")
    assert done.returncode == 0, done.stderr


ROWS = trained.cancer().rows[:7]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.parametrize("aio", [False, True])
def test_tritonclient_over_tls(server: RunningServer, key: str, aio: bool) -> None:
    """tritonclient with `ssl=True`, sync and aio, in its default binary mode: the right numbers."""
    address, ca = server.url.removeprefix("https://"), str(server.data / "tls" / "certificate.pem")
    wanted = triton.InferInput("X", list(ROWS.shape), "FP32")
    wanted.set_data_from_numpy(ROWS)
    headers = {"x-api-key": key}

    async def ask() -> Any:
        context = ssl.create_default_context(cafile=ca)
        async with triton_aio.InferenceServerClient(address, ssl=True, ssl_context=context) as client:
            return await client.infer("cancer", [wanted], headers=headers)

    if aio:
        result = asyncio.run(ask())
    else:
        client = triton.InferenceServerClient(address, ssl=True, ssl_options={"ca_certs": ca}, network_timeout=20)
        result = client.infer("cancer", [wanted], headers=headers)
        client.close()
    assert np.allclose(result.as_numpy("probabilities"), trained.cancer().probabilities[:7], atol=1e-6)


@pytest.mark.parametrize("version", ["TLSv1_1", "TLSv1_2", "TLSv1_3"])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion.TLSv1_1 is deprecated")
def test_versions(server: RunningServer, version: str) -> None:
    """1.2 and 1.3 are spoken, 1.1 is not; of the protocols inside, HTTP/1.1 alone."""
    context = ssl.create_default_context(cafile=str(server.data / "tls" / "certificate.pem"))
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    context.set_alpn_protocols(["h2", "http/1.1"])
    context.minimum_version = context.maximum_version = ssl.TLSVersion[version]
    if version == "TLSv1_1":
        with pytest.raises((ssl.SSLError, ConnectionError)):
            connect(server.port, context)
        return
    with connect(server.port, context) as connection:
        assert connection.version() == version.replace("_", ".")
        assert connection.selected_alpn_protocol() == "http/1.1"


def test_who_does_not_speak_tls_hurts_nobody(server: RunningServer, key: str) -> None:
    """Plain HTTP, noise and a client that never shakes hands on the TLS port get no answer; others are answered."""
    silent = socket.create_connection(("127.0.0.1", server.port), timeout=20)
    for data in (b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + b"\0" * 70_000):
        with socket.create_connection(("127.0.0.1", server.port), timeout=20) as plain:
            try:
                plain.sendall(data)
                said = plain.recv(100)
            except ConnectionError:
                said = b""
            assert not said.startswith(b"HTTP")
    assert server.ask("POST", "/v2/models/cancer/infer", trained.infer_body(X=ROWS), key=key, fresh=True).status == 200
    silent.close()


def test_half_closed(server: RunningServer) -> None:
    """A client that says farewell after its request leaves no line of a library in the log."""
    context = ssl.create_default_context(cafile=str(server.data / "tls" / "certificate.pem"))
    with connect(server.port, context) as connection:
        connection.sendall(b"GET /v2/health/live HTTP/1.1\r\nhost: x\r\n\r\n" * 3)
        with suppress(ssl.SSLError):  # an answer came meanwhile
            connection.unwrap()
    assert server.ask("GET", "/v2/health/live", key=None, fresh=True).status == 200
    assert not server.events("library.message")


class Callers:
    """Threads that ask without a pause, over connections that stay and over new ones; `failed` says how often not."""

    def __init__(self, server: RunningServer, key: str) -> None:
        self._server, self._key = server, key
        self._over = threading.Event()
        self.answered, self.failed = 0, list[str]()
        self._threads = [threading.Thread(target=self._ask, args=(fresh,)) for fresh in (False, True)]

    def __enter__(self) -> Callers:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(30)

    def _ask(self, fresh: bool) -> None:
        body = trained.infer_body(X=ROWS)
        while not self._over.is_set():
            try:
                reply = self._server.ask("POST", "/v2/models/cancer/infer", body, key=self._key, fresh=fresh)
                assert reply.status == 200, reply.body
                self.answered += 1
            except Exception as error:
                self.failed.append(repr(error))


def test_new_certificate_without_a_lost_request(serve: Serve, tmp_path: Path) -> None:
    """SIGHUP under load: every new connection is shown the new certificate, open ones go on, nothing fails. Files
    that cannot be used are said in the log, and what was served stays."""
    first, second = made(tmp_path, "first"), made(tmp_path, "second")
    live = TlsFiles(tmp_path / "live.pem", tmp_path / "live.key")
    both = tmp_path / "both.pem"
    both.write_bytes(first.certificate.read_bytes() + second.certificate.read_bytes())

    def install(certificate: TlsFiles, key: TlsFiles) -> None:
        live.certificate.write_bytes(certificate.certificate.read_bytes())
        live.key.write_bytes(key.key.read_bytes())

    install(first, first)
    files = ("--tls-cert", str(live.certificate), "--tls-key", str(live.key))
    server = serve(workers=2, arguments=files, ca=both)
    assert server.publish("cancer", trained.cancer().content, "1").status == 201
    key = server.create_key("tls", rate="1000000/s")["key"]
    kept = http.client.HTTPSConnection("127.0.0.1", server.port, context=ssl.create_default_context(cafile=str(both)))
    kept.request("GET", "/v2/health/live")
    assert kept.getresponse().read()
    with Callers(server, key) as callers:
        until(lambda: callers.answered > 50 or callers.failed, 30)
        assert shown(server.port) == der(first)
        install(second, second)
        server.signal(signal.SIGHUP)
        until(lambda: server.events("tls.reloaded"), 10, "the reload")
        until(lambda: {shown(server.port) for _ in range(10)} == {der(second)}, 10, "every worker's new certificate")
        before = callers.answered
        until(lambda: callers.answered > before + 50 or callers.failed, 30)
    assert callers.failed == []
    kept.request("GET", "/v2/health/live")
    assert kept.getresponse().status == 200
    kept.close()
    install(first, second)
    server.signal(signal.SIGHUP)
    (event,) = until(lambda: server.events("tls.refused"), 10, "the refusal")
    assert event["code"] == "tls_key_mismatch"
    assert shown(server.port) == der(second)


def test_bad_files_end_the_start(tmp_path: Path) -> None:
    """One sentence: a key that is another certificate's, and a certificate without a key."""
    good, other = made(tmp_path, "good"), made(tmp_path, "other")
    serve = ("serve", "--data", tmp_path / "data", "--port", "0", "--tls-cert", good.certificate)
    refused(command(*serve, "--tls-key", other.key), 1, "tls_key_mismatch", "other.key")
    refused(command(*serve), 2, "setting_invalid", "tls_cert and tls_key go together")


def test_warning_without_tls(serve: Serve) -> None:
    """An address that others can reach is served without TLS only with a warning."""
    words = "Keys travel in the clear"
    loopback = serve()
    assert words not in loopback.output
    loopback.stop()
    assert words in serve(settings={"http.host": "0.0.0.0"}).output
