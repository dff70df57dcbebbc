"""Signing in to ElastiCache by IAM: a token for each connection, over TLS, and what a refused one says.

The server is a real one with TLS. ElastiCache, which checks the signature of a token, is not here and was never asked:
a server that knows the token of this moment as its user's password stands in for it. That a token is what AWS's own
library signs is compared with that library.
"""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from counterserver.server import CounterServer, counting
from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import LimitsSettings, load_settings
from modelyard.http.edge.certificate import TlsFiles, make_self_signed, own_names, utc_now
from modelyard.limits.ports import RateAsk
from modelyard.storage.counters import open_counter, probe
from modelyard.storage.valkey.counter import ValkeyCounter
from modelyard.storage.valkey.iam import EXPIRES_S, TokenLogin, token
from modelyard.storage.valkey.location import Location
from modelyard.testing import FakeClock

USER = CACHE = "yard-limits"
NOW_S = 1_800_000_000.0
REGION = "eu-central-1"
SECRET = "hunter2-secret-key"
CACHE_TF = Path(__file__).parents[3] / "infra" / "modules" / "database" / "cache.tf"


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs it on a loop of its own."""

    @functools.wraps(test)
    def run(*arguments: Any, **named: Any) -> None:
        asyncio.run(test(*arguments, **named))

    return run


@pytest.fixture(autouse=True)
def aws(monkeypatch: pytest.MonkeyPatch) -> None:
    """Credentials of nobody, in the environment alone."""
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    known = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": SECRET, "AWS_REGION": REGION}
    known |= {"AWS_EC2_METADATA_DISABLED": "true", "AWS_CONFIG_FILE": "/nonexistent"}
    for name, value in {**known, "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent"}.items():
        monkeypatch.setenv(name, value)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    folder = tmp_path_factory.mktemp("tls")
    files = TlsFiles(folder / "certificate.pem", folder / "key.pem")
    make_self_signed(files, own_names("127.0.0.1"), utc_now())
    return files


class Cache:
    """A server with TLS, whose user's password is the token of some time. Its administrator comes without TLS."""

    def __init__(self, server: CounterServer, rights: str, folder: Path) -> None:
        self.url = f"iam://{USER}@127.0.0.1:{server.port}/{CACHE}"
        self.location = Location.parse(self.url)
        self._server = server
        self._rights = rights
        self._socket = folder / "s"

    def expects(self, at_s: float) -> None:
        """From now on it knows the token of this time, and no other."""
        secret = signed(self.location, at_s)
        self.ask("ACL", "SETUSER", USER, "reset", *self._rights.split(), f">{secret}")

    def ask(self, *command: str) -> Any:
        """What it answers its administrator."""
        import valkey

        with valkey.Valkey(unix_socket_path=str(self._socket)) as client:
            return client.execute_command(*command)


@pytest.fixture(scope="module")
def cache(certificate: TlsFiles, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cache]:
    """Its user has the rights that Terraform gives the service's."""
    folder = tmp_path_factory.mktemp("socket")
    (rights,) = re.findall(r'access_string = "(.*?)"', CACHE_TF.read_text())
    files = (f"tls-cert-file {certificate.certificate}", f"tls-key-file {certificate.key}", "tls-auth-clients no")
    with counting("tls-port", *files, f"unixsocket {folder / 's'}") as running:
        yield Cache(running, rights, folder)


class Frozen:
    """Credentials as botocore gives them."""

    def __init__(self, session_token: str | None = None) -> None:
        self.access_key, self.secret_key, self.token = "AKIDEXAMPLE", SECRET, session_token


def signed(location: Location, at_s: float, session_token: str | None = None) -> str:
    return token(location, Frozen(session_token), REGION, at_s)


@asynccontextmanager
async def counter(cache: Cache, certificate: TlsFiles, clock: FakeClock) -> AsyncIterator[ValkeyCounter]:
    made = ValkeyCounter(cache.location, TokenLogin(cache.location, clock), certificate.certificate)
    try:
        yield made
    finally:
        await made.close()


async def passed(counter: ValkeyCounter, client: str = "acme") -> int:
    (decision,) = await counter.take([RateAsk(client, 0, 60.0, 1000)])
    return decision.passed


def test_a_token_is_the_address_of_a_presigned_request() -> None:
    """User, cache, service, region and fifteen minutes are in it, no scheme and no secret; what is serverless says
    so."""
    said = signed(Location.parse(f"iam://{USER}@master.yard-limits.abc.euc1.cache.amazonaws.com:6379/{CACHE}"), NOW_S)
    parts = urlsplit(f"//{said}")
    asked = {name: value[0] for name, value in parse_qs(parts.query).items()}
    assert (parts.netloc, parts.path) == (CACHE, "/")
    assert (asked["Action"], asked["User"], asked["X-Amz-Expires"]) == ("connect", USER, str(EXPIRES_S))
    assert asked["X-Amz-Credential"] == f"AKIDEXAMPLE/20270115/{REGION}/elasticache/aws4_request"
    assert asked["X-Amz-Date"] == "20270115T080000Z"
    assert "ResourceType" not in asked
    assert SECRET not in said
    serverless = Location.parse(f"iam://{USER}@yard-limits-abc123.serverless.euc1.cache.amazonaws.com/{CACHE}")
    assert "&ResourceType=ServerlessCache&" in signed(serverless, NOW_S)
    assert "X-Amz-Security-Token=a%2Fb" in signed(serverless, NOW_S, "a/b")


@pytest.mark.parametrize("session_token", [None, "a/b+c=="])
def test_a_token_is_what_awss_library_presigns(monkeypatch: pytest.MonkeyPatch, session_token: str | None) -> None:
    """The same, letter by letter, as botocore's signer of requests makes of AWS's documented example at that time."""
    import datetime

    from botocore.credentials import Credentials
    from botocore.hooks import HierarchicalEmitter
    from botocore.model import ServiceId
    from botocore.signers import RequestSigner

    at = datetime.datetime.fromtimestamp(NOW_S, datetime.UTC).replace(tzinfo=None)
    monkeypatch.setattr("botocore.auth.get_current_datetime", lambda *_: at)
    credentials = Credentials("AKIDEXAMPLE", SECRET, session_token)
    emitter = HierarchicalEmitter()  # the signer holds it but weakly
    signer = RequestSigner(ServiceId("elasticache"), REGION, "elasticache", "v4", credentials, emitter)
    request = {"method": "GET", "url": f"https://{CACHE}/?Action=connect&User={USER}", "body": {}, "headers": {}}
    theirs = signer.generate_presigned_url(
        {**request, "context": {}}, operation_name="connect", expires_in=EXPIRES_S, region_name=REGION
    )
    assert signed(Location.parse(f"iam://{USER}@127.0.0.1/{CACHE}"), NOW_S, session_token) == theirs.removeprefix(
        "https://"
    )


@on_loop
async def test_each_connection_has_a_token_of_its_own(cache: Cache, certificate: TlsFiles) -> None:
    """An hour later, when the first token is long worthless, what is connected counts on; what was cut signs in with
    a new one, and the exchange is not lost."""
    clock = FakeClock(now=NOW_S)
    cache.expects(NOW_S)
    async with counter(cache, certificate, clock) as one:
        assert await passed(one) == 1
        clock.advance(3600)
        cache.expects(NOW_S + 3600)
        assert await passed(one) == 1
        assert await passed(one) == 1
        cache.ask("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        clock.advance(1)
        cache.expects(NOW_S + 3601)
        assert await passed(one) == 1


@on_loop
async def test_a_token_that_is_wrong_or_over_is_refused(cache: Cache, certificate: TlsFiles) -> None:
    """In our words, which name what to look at; nothing of the token is told, and waiting does not help."""
    cache.expects(NOW_S)
    late = FakeClock(now=NOW_S + EXPIRES_S + 1)
    with pytest.raises(UnavailableError) as found:
        async with counter(cache, certificate, late) as one:
            await passed(one)
    said = f"{found.value.message}{dict(found.value.detail)}"
    assert (found.value.detail["reason"], found.value.retry_after_s) == ("wrong_login", None)
    assert "elasticache:Connect" in said
    assert not [part for part in ("X-Amz", "AKID", SECRET, USER) if part in said]


@on_loop
async def test_what_terraform_lets_the_user_do_is_enough_and_no_more(cache: Cache, certificate: TlsFiles) -> None:
    """The access string of infra/ counts rates and quotas, and reads, lists and flushes nothing of others."""
    cache.expects(NOW_S)
    async with counter(cache, certificate, FakeClock(now=NOW_S)) as one:
        (decision,) = await one.take([RateAsk("quota", 0, 60.0, 10, 3, 100)])
        assert decision.quota is not None
    for command in ("KEYS *", "FLUSHALL", "CONFIG GET *", "GET other", "DEL modelyard:rate:{quota}", "ACL LIST"):
        assert b"permission" in cache.ask("ACL", "DRYRUN", USER, *command.split())


@on_loop
async def test_without_credentials_or_region(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each is said, and a start ends with it."""
    monkeypatch.delenv("AWS_REGION")
    reasons = []
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        login = TokenLogin(cache.location, FakeClock())
        with pytest.raises(UnavailableError) as found:
            await login.renew()
        reasons.append((found.value.detail["reason"], found.value.retry_after_s))
        monkeypatch.delenv(name, raising=False)
        monkeypatch.setenv("AWS_REGION", REGION)
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY", raising=False)
    with pytest.raises(UnavailableError) as found:
        await TokenLogin(cache.location, FakeClock()).renew()
    assert [*reasons[:1], (found.value.detail["reason"], found.value.retry_after_s)] == [
        ("no_region", None),
        ("no_credentials", None),
    ]


def test_tls_is_demanded(cache: Cache, certificate: TlsFiles, counter_server: CounterServer) -> None:
    """An `iam://` URL is never spoken in the clear, and the certificate is verified: a token is a password."""
    cache.expects(NOW_S)
    with pytest.raises(UnavailableError) as found:
        probe(LimitsSettings(url=cache.url, timeout_ms=2000))
    assert found.value.detail["reason"] == "tls_refused"
    plain = f"iam://{USER}@127.0.0.1:{counter_server.port}/{CACHE}"
    with pytest.raises(UnavailableError):
        probe(LimitsSettings(url=plain, tls_ca=certificate.certificate, timeout_ms=200))
    with pytest.raises(UnavailableError) as found:
        probe(LimitsSettings(url=cache.url, tls_ca=certificate.certificate, timeout_ms=2000))
    assert found.value.detail["reason"] == "wrong_login", "the token of today is not that of 2027"


@pytest.mark.parametrize(
    "url", ["iam://host:6379/cache", "iam://user@host", "iam://user:pass@host/cache", "iam://u@h/"]
)
def test_urls_that_cannot_be(url: str) -> None:
    """No user, no cache, a password: refused when the settings are read."""
    with pytest.raises(SettingsError) as found:
        load_settings(None, **{"limits.url": url})
    assert "iam://user@host:6379/cache" in str(found.value.detail["expected"])
    assert "pass@" not in f"{found.value.message}{dict(found.value.detail)}"


def test_by_the_settings(cache: Cache) -> None:
    """What Terraform writes into `limits.url` is taken; a doctor's line shows neither user nor token."""
    template = re.findall(r'"(iam://[^"]*)"', CACHE_TF.read_text())
    assert template == ["iam://${var.names.cache}@${local.cache_address}/${var.names.cache}"]
    made = open_counter(load_settings(None, **{"limits.url": cache.url}).limits)
    assert made is not None
    asyncio.run(made.close())
    assert USER not in cache.location.shown()
