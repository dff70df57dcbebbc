"""A wrong `limits.url`, password or certificate: one sentence that says what, where and what to do, before anything
serves; nothing of a secret in it."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from server import command

from counterserver.server import CounterServer, counting
from modelyard.app.server import check_counter
from modelyard.cli.doctor import examine
from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import LimitsSettings, load_settings
from modelyard.http.edge.certificate import TlsFiles, make_self_signed, own_names, utc_now
from modelyard.storage.counters import probe

SECRET = "the-right-password"


@pytest.fixture(scope="module")
def guarded() -> Iterator[CounterServer]:
    """Asks for a password; has a user who may only count, and one who may only look."""
    with counting(password=SECRET) as running:
        only = ("+eval", "+evalsha", "+time", "+get", "+set", "+select", "~modelyard:*")
        only += ("+hget", "+hset", "+hdel", "+pexpire")
        running.ask("ACL", "SETUSER", "counting", "on", f">{SECRET}", *only)
        running.ask("ACL", "SETUSER", "looking", "on", f">{SECRET}", "+get", "~*")
        yield running


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """Of this machine's own."""
    folder = tmp_path_factory.mktemp("tls")
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem")
    make_self_signed(files, own_names("127.0.0.1"), utc_now())
    return files


@pytest.fixture(scope="module")
def over_tls(certificate: TlsFiles) -> Iterator[CounterServer]:
    """Speaks TLS alone."""
    files = (f"tls-cert-file {certificate.certificate}", f"tls-key-file {certificate.key}", "tls-auth-clients no")
    with counting("tls-port", *files) as running:
        yield running


def refused(**chosen: Any) -> SettingsError | UnavailableError:
    """What a start would say; one sentence, without a secret."""
    with pytest.raises((SettingsError, UnavailableError)) as found:
        probe(LimitsSettings(**{"timeout_ms": 2000, **chosen}))
    said = found.value.message
    assert said.endswith(".")
    assert "\n" not in said
    assert SECRET not in f"{said}{dict(found.value.detail)}"
    assert found.value.code == "limits_unavailable"
    return found.value


def at(server: CounterServer, user: str = "") -> str:
    """Its URL, with a user in it."""
    return server.url.replace("://", f"://{user}@") if user else server.url


def test_the_right_ones_pass(guarded: CounterServer, over_tls: CounterServer, certificate: TlsFiles) -> None:
    """The default user, a user with the rights that the guide names and no others, another database, TLS that is
    verified; and no counter at all."""
    probe(LimitsSettings(url=at(guarded), password=SECRET, timeout_ms=2000))
    probe(LimitsSettings(url=at(guarded, "counting"), password=SECRET, timeout_ms=2000))
    probe(LimitsSettings(url=f"{guarded.url}/3", password=SECRET, timeout_ms=2000))
    probe(LimitsSettings(url=at(over_tls), tls_ca=certificate.certificate, timeout_ms=2000))
    probe(LimitsSettings())


def test_what_waiting_cannot_help(guarded: CounterServer, over_tls: CounterServer) -> None:
    """Login, rights, certificate, scheme, name, database: no `retry_after_s`, so a start ends."""
    url = guarded.url
    found = {
        "no password": refused(url=url),
        "a wrong one": refused(url=url, password="wrong"),
        "a stranger": refused(url=at(guarded, "stranger"), password=SECRET),
        "no right": refused(url=at(guarded, "looking"), password=SECRET),
        "an unknown authority": refused(url=over_tls.url),
        "a name that is no host": refused(url="redis://no-such-host.invalid"),
        "a database that is not there": refused(url=f"{url}/99", password=SECRET),
    }
    assert {name: error.detail["reason"] for name, error in found.items()} == {
        "no password": "wrong_login",
        "a wrong one": "wrong_login",
        "a stranger": "wrong_login",
        "no right": "not_permitted",
        "an unknown authority": "tls_refused",
        "a name that is no host": "unknown_host",
        "a database that is not there": "refused",
    }
    assert all(error.retry_after_s is None for error in found.values())


def test_what_waiting_may_help(guarded: CounterServer, over_tls: CounterServer) -> None:
    """Nobody listens, or closes at once (as a server that wants TLS does), or says nothing (as one that speaks none
    does to TLS): the start goes on, and the sentence tells of the scheme."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        slow = refused(url=f"redis://127.0.0.1:{port}", timeout_ms=50)
    nobody = refused(url=f"redis://127.0.0.1:{port}")
    hangs_up = refused(url=over_tls.url.replace("rediss:", "redis:"))
    no_tls = refused(url=guarded.url.replace("valkey:", "rediss:"), password=SECRET, timeout_ms=50)
    found = (slow, no_tls, nobody, hangs_up)
    assert [error.detail["reason"] for error in found] == ["too_slow"] * 2 + ["unreachable"] * 2
    assert "rediss://" in hangs_up.message
    assert "scheme" in no_tls.message
    assert all(error.retry_after_s for error in found)


@pytest.mark.parametrize(
    "url", ["http://counter", "redis://", "redis://:secret-x@counter", "redis://me:secret-x@counter", "redis://a?db=1"]
)
def test_urls_that_cannot_be(url: str) -> None:
    """Another scheme, no host, a password in it, options: refused when the settings are read; a password is not
    repeated."""
    with pytest.raises(SettingsError) as found:
        load_settings(None, **{"limits.url": url})
    assert found.value.detail["field"] == "limits.url"
    assert "limits.password" in str(found.value.detail["expected"])
    assert "secret-x" not in f"{found.value.message}{dict(found.value.detail)}"


def test_a_port_that_cannot_be() -> None:
    """Beyond 65535: said as such."""
    with pytest.raises(SettingsError) as found:
        probe(LimitsSettings(url="redis://127.0.0.1:99999"))
    assert "65535" in found.value.message


@pytest.mark.parametrize(
    ("url", "unused"),
    [("iam://me@cache:6379/c", "password"), ("dynamodb://limits", "password"), ("dynamodb://limits", "tls_ca")],
)
def test_a_login_that_nothing_asks_for(url: str, unused: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A password, or an authority, beside a URL that takes none: a start ends with one sentence, the doctor says it,
    and neither repeats it."""
    monkeypatch.setenv("MODELYARD_LIMITS__URL", url)
    monkeypatch.setenv(f"MODELYARD_LIMITS__{unused.upper()}", SECRET)
    with pytest.raises(SettingsError) as raised:
        check_counter(load_settings(None))
    assert raised.value.detail["field"] == f"limits.{unused}"
    (found,) = [one for one in examine(None, {"data": tmp_path / "data", "http.port": 0})[0] if one.name == "limits"]
    assert str(found.state) == "problem"
    for said in (raised.value.message, f"{found.said} {found.remedy}"):
        assert f"limits.{unused}" in said
        assert SECRET not in said


def test_a_start_ends_with_the_sentence(guarded: CounterServer, tmp_path: Path) -> None:
    """`serve` says it and no traceback, and nothing serves."""
    env = {"MODELYARD_LIMITS__URL": guarded.url, "MODELYARD_LIMITS__PASSWORD": "wrong-one"}
    done = command("serve", "--data", tmp_path / "data", "--port", "0", env=env)
    assert done.returncode != 0
    said = re.sub(r"\s+", " ", done.stdout + done.stderr)
    assert "refuses the login" in said
    assert "Traceback" not in said
    assert "wrong-one" not in said


def test_the_doctor(guarded: CounterServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each host by itself; a counter that counts; one that is away; one that refuses the login."""

    def look() -> tuple[str, str]:
        findings, _ = examine(None, {"data": tmp_path / "data", "http.port": 0})
        (found,) = [finding for finding in findings if finding.name == "limits"]
        return str(found.state), found.said

    assert look() == ("ok", "counted by this host alone")
    monkeypatch.setenv("MODELYARD_LIMITS__URL", guarded.url)
    monkeypatch.setenv("MODELYARD_LIMITS__PASSWORD", SECRET)
    monkeypatch.setenv("MODELYARD_LIMITS__TIMEOUT_MS", "2000")
    state, said = look()
    assert (state, "counts" in said) == ("ok", True)
    monkeypatch.setenv("MODELYARD_LIMITS__URL", "redis://127.0.0.1:1")
    assert look()[0] == "problem"
    monkeypatch.setenv("MODELYARD_LIMITS__PASSWORD", "wrong-one")
    monkeypatch.setenv("MODELYARD_LIMITS__URL", guarded.url)
    state, said = look()
    assert (state, "refuses the login" in said, "wrong-one" in said) == ("problem", True, False)
