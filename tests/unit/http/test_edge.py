"""TLS files and proxies: what is refused, what is renewed, whose request it is."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives import serialization
from hypothesis import given
from hypothesis import strategies as st

from modelyard.core.errors import SettingsError
from modelyard.core.settings import HttpSettings, load_settings
from modelyard.http.edge.certificate import TlsFiles, make_self_signed, own_names, read_certificate, utc_now
from modelyard.http.edge.proxied import Edge, Proxies, client_address, native_targets, networks
from modelyard.http.edge.tls import TlsContext, TlsKeeper, check_files

PROXIES = networks(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])


def made(folder: Path, name: str, days_ago: float = 0) -> TlsFiles:
    files = TlsFiles(folder / f"{name}.pem", folder / f"{name}.key")
    make_self_signed(files, ("localhost",), utc_now() - timedelta(days=days_ago))
    return files


def test_bad_files_are_named(tmp_path: Path) -> None:
    """A missing file, no PEM, a key with a passphrase, another's key and an expired certificate each have their code
    and name the file; nobody is asked for a passphrase."""
    good, other, old = made(tmp_path, "good"), made(tmp_path, "other"), made(tmp_path, "old", days_ago=91)
    noise, locked, absent = (tmp_path / name for name in ("noise.pem", "locked.key", "absent.pem"))
    noise.write_text("-----BEGIN CERTIFICATE-----\nnothing\n-----END CERTIFICATE-----\n")
    locked.write_bytes(
        serialization.load_pem_private_key(good.key.read_bytes(), None).private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(b"secret"),
        )
    )
    for certificate, key, code, word in (
        (absent, good.key, "tls_file_unreadable", "absent.pem"),
        (good.certificate, absent, "tls_file_unreadable", "absent.pem"),
        (noise, good.key, "tls_file_unreadable", "noise.pem"),
        (good.certificate, noise, "tls_file_unreadable", "noise.pem"),
        (good.certificate, locked, "tls_file_unreadable", "passphrase"),
        (good.certificate, tmp_path, "tls_file_unreadable", str(tmp_path)),
        (good.certificate, other.key, "tls_key_mismatch", "other.key"),
        (old.certificate, old.key, "tls_certificate_expired", "expired on"),
    ):
        with pytest.raises(SettingsError) as refused:
            check_files(TlsFiles(certificate, key), utc_now())
        assert (refused.value.code, word in refused.value.message) == (code, True), refused.value


def test_a_bad_reload_changes_nothing(tmp_path: Path) -> None:
    """A worker that finds unusable files goes on with what it has."""
    files, other = made(tmp_path, "live"), made(tmp_path, "other")
    context = TlsContext(files)
    before = context._current
    files.key.write_bytes(other.key.read_bytes())
    context.reload()
    assert context._current is before
    files.certificate.write_bytes(other.certificate.read_bytes())
    context.reload()
    assert context._current is not before


def test_self_signed_is_kept_and_renewed(tmp_path: Path) -> None:
    """A start finds the certificate of the one before; with less than 30 days left, or for another name, it is made
    anew, at a start or while the server runs; files of the operator are looked at only when asked."""
    now = utc_now()

    def at(days: float, host: str = "127.0.0.1") -> TlsKeeper:
        return TlsKeeper(HttpSettings(tls="self-signed", host=host), tmp_path, lambda: now + timedelta(days=days))

    first, again, late = at(0).start(), at(59).start(), at(61).start()
    assert first is not None
    assert again is not None
    assert late is not None
    assert first.fingerprint == again.fingerprint != late.fingerprint
    elsewhere = at(61, "192.0.2.1").start()
    assert elsewhere is not None
    assert "192.0.2.1" in elsewhere.names
    assert not at(62).refresh(asked=False)
    assert at(62).refresh(asked=True)
    assert at(130).refresh(asked=False)
    files = made(tmp_path, "operator")
    given = HttpSettings(tls_cert=files.certificate, tls_key=files.key)
    assert not TlsKeeper(given, tmp_path, lambda: now + timedelta(days=89)).refresh(asked=False)
    assert not TlsKeeper(given, tmp_path, lambda: now + timedelta(days=91)).refresh(asked=True)
    assert TlsKeeper(HttpSettings(), tmp_path).start() is None


def test_own_names() -> None:
    """The loopback and this machine, and the address if it is one; no wildcard."""
    assert {"localhost", "127.0.0.1", "::1"} <= set(own_names("0.0.0.0"))
    assert "0.0.0.0" not in own_names("0.0.0.0")
    assert own_names("192.0.2.1")[-1] == "192.0.2.1"


def test_certificate_without_names(tmp_path: Path) -> None:
    """What a file says: validity to the second, names, fingerprint as other tools print it."""
    found = read_certificate(made(tmp_path, "one").certificate)
    assert found.names == ("localhost",)
    assert isinstance(found.not_after, datetime)
    assert len(bytes.fromhex(found.fingerprint)) == 32


@pytest.mark.parametrize(
    ("peer", "header", "expected"),
    [
        ("203.0.113.9", None, "203.0.113.9"),
        ("203.0.113.9", "198.51.100.1", "203.0.113.9"),
        ("10.1.2.3", None, "10.1.2.3"),
        ("10.1.2.3", "198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "6.6.6.6, 198.51.100.1", "198.51.100.1"),
        ("10.1.2.3", "6.6.6.6, 198.51.100.1, 10.9.9.9, 192.0.2.7", "198.51.100.1"),
        ("10.1.2.3", "10.0.0.1, 10.0.0.2", "10.0.0.1"),
        ("10.1.2.3", "", "10.1.2.3"),
        ("10.1.2.3", "6.6.6.6, unknown, 10.0.0.2", "10.0.0.2"),
        ("10.1.2.3", "6.6.6.6, <script>", "10.1.2.3"),
        ("10.1.2.3", "198.51.100.1:4711", "198.51.100.1"),
        ("10.1.2.3", "[2001:db9::5]:443", "2001:db9::5"),
        ("::ffff:10.1.2.3", "::ffff:198.51.100.1", "198.51.100.1"),
        ("2001:db8::1", "2001:DB9:0::0005", "2001:db9::5"),
        ("unix:", "198.51.100.1", "unix:"),
    ],
)
def test_client_address(peer: str, header: str | None, expected: str) -> None:
    """The rightmost address that is no trusted proxy's; whatever an untrusted one wrote before it is not read."""
    assert client_address(peer, header, PROXIES) == expected


@given(st.text(max_size=60), st.sampled_from(["10.0.0.1", "203.0.113.9"]))
def test_nothing_a_caller_writes_hides_it(written: str, peer: str) -> None:
    """Whatever stands before what the proxy adds, the answer is the proxy's word, or the peer that nobody vouches
    for."""
    expected = "198.51.100.1" if peer == "10.0.0.1" else peer
    assert client_address(peer, f"{written}, 198.51.100.1", PROXIES) == expected


def test_several_fields_are_one_list() -> None:
    """Repeated fields are read in order, as one."""
    fields = [(b"x-forwarded-for", b"6.6.6.6"), (b"host", b"x"), (b"x-forwarded-for", b"198.51.100.1, 10.0.0.9")]
    assert Proxies(HttpSettings(trusted_proxies=("10.0.0.0/8",))).address("10.0.0.1", fields) == "198.51.100.1"
    assert Proxies(HttpSettings()).address("10.0.0.1", fields) == "10.0.0.1"


def scope_of(settings: HttpSettings, path: str, headers: Sequence[tuple[bytes, bytes]] = ()) -> dict[str, Any]:
    """What the application inside sees."""
    seen: list[dict[str, Any]] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(scope)

    given = {"type": "http", "path": path, "raw_path": path.encode(), "root_path": "", "headers": headers}
    asyncio.run(Edge(app, settings)({**given, "client": ("10.0.0.1", 5)}, None, None))  # type: ignore[arg-type]
    return seen[0]


def test_prefix_is_taken_off() -> None:
    """A proxy may leave the prefix or take it off: both reach the same route, native ones too."""
    settings = HttpSettings(root_path="/yard/models")
    for path in ("/yard/models/v1/keys", "/v1/keys"):
        seen = scope_of(settings, path)
        assert (seen["path"], seen["raw_path"]) == ("/v1/keys", b"/v1/keys")
    assert scope_of(settings, "/yard/models/v1/keys")["root_path"] == "/yard/models"
    assert scope_of(settings, "/yard/modelsX/v1/keys")["path"] == "/yard/modelsX/v1/keys"
    targets = native_targets(settings)
    plain = native_targets(HttpSettings())
    for url in (b"/yard/models/v2/models/tree/infer", b"/v2/models/tree/infer"):
        assert targets.native(url) == plain.native(b"/v2/models/tree/infer") is not None
    assert targets.native(b"/yard/models/yard/models/v2/models/tree/infer") is None
    assert plain.native(b"/yard/models/v2/models/tree/infer") is None


def test_caller_behind_a_proxy() -> None:
    """`scope["client"]` is the caller's own address behind a trusted proxy, the peer's otherwise."""
    forwarded = [(b"x-forwarded-for", b"198.51.100.1")]
    assert scope_of(HttpSettings(trusted_proxies=("10.0.0.0/8",)), "/", forwarded)["client"] == ("198.51.100.1", 0)
    assert scope_of(HttpSettings(), "/", forwarded)["client"] == ("10.0.0.1", 5)


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("http.root_path", "models"),
        ("http.root_path", "/models/"),
        ("http.root_path", "/v1"),
        ("http.root_path", "/a/../b"),
        ("http.root_path", "/a b"),
        ("http.trusted_proxies", ("10.0.0.1/8",)),
        ("http.trusted_proxies", ("proxy.internal",)),
        ("http.tls", "on"),
    ],
)
def test_wrong_settings(setting: str, value: Any) -> None:
    """What cannot be meant is refused by name."""
    with pytest.raises(SettingsError) as refused:
        load_settings(**{setting: value})
    assert refused.value.detail["field"] == setting
