"""Signing in to the database: passwords that change, tokens for each connection, references to secrets.

The database is a real PostgreSQL with TLS. Secrets Manager and Systems Manager are moto's: an emulator shows that our
requests are what AWS documents, not what AWS answers. RDS itself, which checks the signature of a token, is not here: a
server that knows the newest token as its user's password stands in for it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest

from modelyard.audit.event import without_url_passwords
from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.settings import DatabaseSettings, Settings
from modelyard.storage.login.aws import AwsSecrets, RdsTokens
from modelyard.storage.login.database import AGAIN_AFTER_S, SecretLogin, login_of
from modelyard.storage.login.references import Reference, reference_of
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects.mysql import connect_args
from modelyard.storage.sql.dialects.postgresql import _connect_args
from modelyard.storage.sql.open import open_stores
from objectstore.emulator import Emulator
from postgres.server import Server, serving
from postgres.tls import Authority

HOST = "db.example.com"
ARN = "arn:aws:secretsmanager:eu-central-1:123456789012:secret:modelyard-x"
BUSY_TIMEOUT_S = 5


class Kept:
    """Secrets of this test; `reads` counts."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.reads = 0

    def read(self, reference: Reference) -> str:
        self.reads += 1
        return self.text


class Minted:
    """A new token for each request, which `server` knows as the password of `signed` from then on: it takes none of
    those before."""

    def __init__(self, server: Server) -> None:
        self.made: list[tuple[str, int, str]] = []
        self._server = server

    def make(self, host: str, port: int, user: str) -> str:
        self.made.append((host, port, user))
        token = f"token-{len(self.made)}"
        self._server.query(f"ALTER ROLE signed PASSWORD '{token}'")
        return token


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    """A server with TLS and a login by password, and the options that reach and verify it."""
    authority = Authority(tmp_path_factory.mktemp("authority"))
    with serving() as server:
        server.stop()
        server.certify(*authority.issue(HOST))
        server.start()
        server.query("CREATE ROLE signed LOGIN")
        yield server, f"{HOST}:{server.port}/postgres?hostaddr=127.0.0.1&sslrootcert={authority.pem}"


def forget_connections(database: Database) -> None:
    """The next transaction signs in anew."""
    database.close()


def test_each_connection_has_a_token_of_its_own(place: tuple[Server, str]) -> None:
    """`iam://`: tokens expire, so none is used twice; a token of before is refused by the server, and nothing but TLS
    carries one."""
    server, target = place
    tokens = Minted(server)
    database = Database(f"iam://signed@{target}", BUSY_TIMEOUT_S, tokens=tokens)
    database.open()
    for _ in range(3):
        database.ping()
    assert tokens.made == [(HOST, server.port, "signed")]
    forget_connections(database)
    with database.read(), database.read():
        pass
    assert len(tokens.made) == 3
    database.close()
    stale = Database(f"postgresql://signed:token-1@{target}", BUSY_TIMEOUT_S)
    with pytest.raises(SettingsError, match="refuses the login"):
        stale.open()
    plain = Database(f"iam://signed@{target}&sslmode=disable", BUSY_TIMEOUT_S, tokens=tokens)
    with pytest.raises(SettingsError, match="does not let this machine in"):
        plain.open()


@pytest.mark.parametrize("whole", [False, True])
def test_a_changed_password_is_read_again(place: tuple[Server, str], whole: bool) -> None:
    """The secret is read once; when the server refuses what it said, once more, and the caller sees nothing of it. A
    secret that did not change is not tried again, and not asked for again at once."""
    server, target = place
    server.query("ALTER ROLE signed PASSWORD 'first'")
    form = f"postgresql://signed:{{}}@{target}" if whole else "{}"
    secret = Kept(form.format("first"))
    url = f"aws-sm://{ARN}" if whole else f"postgresql://signed:aws-sm://{ARN}#password@{target}"
    database = Database(url, BUSY_TIMEOUT_S, secrets=secret)
    database.open()
    database.ping()
    assert secret.reads == 1
    server.query("ALTER ROLE signed PASSWORD 'second'")
    secret.text = form.format("second")
    database.ping()  # connections that are there go on
    forget_connections(database)
    database.ping()
    assert secret.reads == 2
    server.query("ALTER ROLE signed PASSWORD 'third'")  # and the secret is late
    forget_connections(database)
    for _ in range(5):
        with pytest.raises(UnavailableError, match="refuses the login"):
            database.ping()
    assert secret.reads == 2
    database.close()


def test_a_start_reads_the_secret_again_too(place: tuple[Server, str], tmp_path: Path) -> None:
    """Between the reading and the first connection the password may have changed."""
    server, target = place
    server.query("ALTER ROLE signed PASSWORD 'first'")
    secret = Kept("zeroth")
    database = Database(f"postgresql://signed:aws-ssm:///modelyard/password@{target}", BUSY_TIMEOUT_S, secrets=secret)
    secret.text = "first"
    database.open()
    assert secret.reads == 2
    database.close()


def test_a_refused_login_asks_for_the_secret_now_and_then() -> None:
    """However many connections are refused at once: one reading in five seconds."""
    secret, now = Kept("a"), [0.0]
    login = SecretLogin(lambda: {"password": secret.read(Reference("aws-sm", "x"))}, {"password": "a"}, lambda: now[0])
    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(lambda _: login.renew(now[0]), range(8))) == [False] * 8
    assert secret.reads == 1
    secret.text = "b"
    assert not login.renew(now[0] + 0.1)
    now[0] += AGAIN_AFTER_S
    assert login.renew(now[0])
    assert login.given() == {"password": "b"}
    assert not login.renew(now[0] + 0.1)


def test_who_was_refused_beside_another_gets_what_that_one_read() -> None:
    """Two connections are refused after a change of the password. The first reads the new one; the second, which began
    before that, is told to try it too, and one that begins afterwards is not."""
    secret, now = Kept("b"), [10.0]
    login = SecretLogin(lambda: {"password": secret.read(Reference("aws-sm", "x"))}, {"password": "a"}, lambda: now[0])
    began = now[0]
    now[0] += 0.5
    assert [login.renew(began), login.renew(began)] == [True, True]
    assert login.given() == {"password": "b"}
    now[0] += 0.5
    assert not login.renew(now[0])
    assert secret.reads == 1


def test_a_token_is_what_rds_expects(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signed here, for this host, port and user, in the region that the host's name says, for fifteen minutes, without
    asking anybody."""
    for name, value in (("ACCESS_KEY_ID", "AKIAIOSFODNN7EXAMPLE"), ("SECRET_ACCESS_KEY", "x"), ("REGION", "us-east-1")):
        monkeypatch.setenv(f"AWS_{name}", value)
    host = "yard.cluster-abc.eu-central-1.rds.amazonaws.com"
    token = RdsTokens(1).make(host, 5432, "modelyard")
    said = parse_qs(urlsplit(f"https://{token}").query)
    assert token.startswith(f"{host}:5432/?")
    assert (said["Action"], said["DBUser"], said["X-Amz-Expires"]) == (["connect"], ["modelyard"], ["900"])
    assert said["X-Amz-Credential"][0].endswith("/eu-central-1/rds-db/aws4_request")
    elsewhere = parse_qs(urlsplit("https://" + RdsTokens(1).make("db.example.com", 5432, "modelyard")).query)
    assert "/us-east-1/rds-db/" in elsewhere["X-Amz-Credential"][0]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"aws-sm://{ARN}", Reference("aws-sm", ARN)),
        (f"aws-sm://{ARN}#password", Reference("aws-sm", ARN, "password")),
        ("aws-sm://modelyard/db@prod", Reference("aws-sm", "modelyard/db@prod")),
        ("aws-ssm:///modelyard/url", Reference("aws-ssm", "/modelyard/url")),
        ("postgresql://u@h/d", None),
        ("secret", None),
    ],
)
def test_references_have_one_form(text: str, expected: Reference | None) -> None:
    """Service, name or ARN, and a key of the JSON object."""
    assert reference_of(text, "database.url") == expected


@pytest.mark.parametrize("text", ["aws-sm://", "aws-sm://a b", "aws-sm://x#", "aws-sm://x#a#b", "aws-ssm://x?y"])
def test_a_broken_reference_is_a_wrong_setting(text: str) -> None:
    """Named by the setting, before anybody is asked; what stands in it is not repeated."""
    with pytest.raises(SettingsError) as caught:
        login_of(text, 1, Kept("x"))
    assert caught.value.detail["field"] == "database.url"
    assert "got" not in caught.value.detail


@pytest.mark.parametrize("url", ["iam://host:5432/db", "iam://user@/db", "no url", "://"])
def test_a_url_without_a_login_is_a_wrong_setting(url: str) -> None:
    """IAM needs a user and a host."""
    with pytest.raises(SettingsError, match=r"`database\.url`"):
        login_of(url, 1)


def test_the_port_says_which_database_it_is() -> None:
    """infra/ writes `iam://` for both engines."""
    drivers = [login_of(f"iam://u@h:{port}/d", 1)[0].drivername for port in (5432, 3306, 6000)]
    assert drivers == ["postgresql", "mysql", "postgresql"]


def test_a_reference_by_moto(
    place: tuple[Server, str], emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """By an emulator alone: a JSON secret's key, a plain parameter with a whole URL; both over HTTP, and a password
    that rotates in both places."""
    import boto3

    server, target = place
    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.url)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    secrets = boto3.session.Session(region_name="eu-central-1").client("secretsmanager")
    parameters = boto3.session.Session(region_name="eu-central-1").client("ssm")
    arn = secrets.create_secret(Name="db", SecretString="{}")["ARN"]

    def set_password(password: str) -> None:
        server.query(f"ALTER ROLE signed PASSWORD '{password}'")
        secrets.put_secret_value(SecretId=arn, SecretString=json.dumps({"password": password}))
        whole = f"postgresql://signed:{password}@{target}"
        parameters.put_parameter(Name="/yard/url", Type="SecureString", Value=whole, Overwrite=True)

    for url in (f"postgresql://signed:aws-sm://{arn}#password@{target}", "aws-ssm:///yard/url"):
        set_password("first")
        database = Database(url, BUSY_TIMEOUT_S)
        database.open()
        set_password("second")
        forget_connections(database)
        database.ping()
        database.close()


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("aws-sm://nothing", "there is none of this name"),
        ("aws-ssm:///nothing", "there is none of this name"),
        ("aws-sm://empty#password", "holds no such text"),
        ("aws-sm://empty#username", None),
    ],
)
def test_a_secret_that_is_not_there_is_said(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, url: str, words: str | None
) -> None:
    """One sentence with the setting and the remedy, at the start; nothing of AWS's own text."""
    import boto3

    monkeypatch.setenv("AWS_ENDPOINT_URL", emulator.url)
    client = boto3.session.Session(region_name="us-east-1").client("secretsmanager")
    known = {secret["Name"] for secret in client.list_secrets()["SecretList"]}
    if "empty" not in known:
        client.create_secret(Name="empty", SecretString=json.dumps({"username": "x", "password": ""}))
    if words is None:
        assert AwsSecrets(5).read(Reference("aws-sm", "empty", "username")) == "x"
        return
    with pytest.raises(UnavailableError, match=words) as caught:
        open_stores(Settings(database=DatabaseSettings(url=url)), tmp_path / "data")
    assert caught.value.detail["field"] == "database.url"
    assert "nothing" not in caught.value.message


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"AWS_ENDPOINT_URL": "http://127.0.0.1:1", "AWS_REGION": "us-east-1"}, "AWS does not answer"),
        ({"AWS_ENDPOINT_URL": "http://10.0.0.1", "AWS_REGION": "us-east-1"}, "in the clear"),
        ({"AWS_ACCESS_KEY_ID": "", "AWS_REGION": "us-east-1"}, "no AWS credentials"),
        ({"AWS_DEFAULT_REGION": ""}, "no region is known"),
    ],
)
def test_what_stops_a_reading_is_said(
    emulator: Emulator, monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], words: str
) -> None:
    """Nobody answers, no TLS, no credentials, no region: each by its cause."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value) if value else monkeypatch.delenv(name, raising=False)
    with pytest.raises((UnavailableError, SettingsError), match=words):
        AwsSecrets(0.5).read(Reference("aws-sm", "x"))


def test_passwords_in_urls_are_not_shown() -> None:
    """Where settings are listed, whatever the password holds; a reference to one may be read."""
    assert without_url_passwords("postgresql://u:s3/cr@t@h:5432/d") == "postgresql://u:***@h:5432/d"
    reference = f"postgresql://u:aws-sm://{ARN}#password@h/d"
    assert without_url_passwords(reference) == reference
    assert without_url_passwords("https://h:8443/path") == "https://h:8443/path"


@pytest.mark.parametrize(("engine", "option", "port"), [("postgres", "sslrootcert", 5432), ("mysql", "ssl_ca", 3306)])
def test_the_authority_that_terraform_names(engine: str, option: str, port: int) -> None:
    """RDS signs with an authority that no system knows: infra/ names the image's bundle in the URL, in the words of
    each engine, and the option outlives the login by IAM. A start without the file is refused."""
    made = (Path(__file__).parents[3] / "infra" / "modules" / "database" / "main.tf").read_text()
    (bundle,) = re.findall(r'"mysql" \? "ssl_ca" : "sslrootcert"\}=(/[a-z/.-]+)"', made)
    assert bundle in (Path(__file__).parents[3] / "infra" / "README.md").read_text()
    url, login = login_of(f"iam://modelyard@db.example.com:{port}/modelyard?{option}={bundle}", 1)
    assert (dict(url.query), url.drivername.startswith(engine), login is None) == ({option: bundle}, True, False)
    if engine == "postgres":
        given = _connect_args(url, 1)
        assert (given["sslmode"], "sslrootcert" in given) == ("verify-full", False)
    else:
        with pytest.raises(SettingsError) as found:
            connect_args(url, 1)
        assert "ssl_ca" in found.value.message
