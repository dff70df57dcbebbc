"""TLS to a real PostgreSQL: verified, or refused in a sentence of its own for each reason."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import pytest

from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.storage.sql.database import Database
from modelyard.storage.sql.dialects import postgresql_tls
from postgres.server import Server, serving
from postgres.tls import Authority

HOST = "db.example.com"
BUSY_TIMEOUT_S = 5


@dataclass(frozen=True)
class Place:
    """A server, the authority that clients trust, and one that they do not."""

    server: Server
    trusted: Authority
    foreign: Authority

    def shows(self, certificate: tuple[bytes, bytes]) -> None:
        """It presents this one from now on."""
        self.server.stop()
        self.server.certify(*certificate)
        self.server.start()

    def database(self, **options: str) -> Database:
        """By a name that is not this machine's, and without a word about `sslmode`: it is verified by itself."""
        given = {"hostaddr": "127.0.0.1", "sslrootcert": str(self.trusted.pem), **options}
        query = "&".join(f"{name}={value}" for name, value in given.items())
        return Database(f"postgresql://postgres@{HOST}:{self.server.port}/postgres?{query}", BUSY_TIMEOUT_S)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    """Without TLS at first."""
    folder = tmp_path_factory.mktemp("authorities")
    with serving() as server:
        yield Place(server, Authority(folder), Authority(folder, "foreign"))


def refusal(database: Database) -> str:
    """What a start says that cannot go on."""
    try:
        with pytest.raises(SettingsError) as caught:
            database.open()
        with pytest.raises(UnavailableError) as later:
            database.ping()
    finally:
        database.close()
    assert caught.value.message == later.value.message
    assert caught.value.detail["field"] == "database.url"
    said = f"{caught.value.message} {caught.value.detail}"
    assert not [name for name in (HOST, "127.0.0.1", "example", "authority.pem", "postgres") if name in said]
    return caught.value.message


def test_each_reason_has_its_sentence(place: Place) -> None:
    """SEC-4: no TLS, a foreign authority, another name, an expired certificate, no file of authorities; each by its
    cause, at the start and later. What is in order is connected to, and encrypted."""
    said = [refusal(place.database())]
    place.shows(place.foreign.issue(HOST))
    said.append(refusal(place.database()))
    place.shows(place.trusted.issue("elsewhere.example.com"))
    said.append(refusal(place.database()))
    place.shows(place.trusted.issue(HOST, expired=True))
    said.append(refusal(place.database()))
    place.shows(place.trusted.issue(HOST))
    said.append(refusal(place.database(sslrootcert="/nonexistent.pem")))
    said.append(refusal(place.database(sslrootcert="system")))
    expected = ("speaks no TLS", "not trusted here", "for another name", "has expired", "cannot be read", "not trusted")
    assert len(set(said)) == len(said) - 1
    for words, sentence in zip(expected, said, strict=True):
        assert words in sentence

    good = place.database()
    good.open()
    with good.read() as connection:
        shown = connection.exec_driver_sql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()")
        assert shown.scalar_one() is True
    good.close()


def test_what_cannot_be_asked_again_stays_as_it_is(place: Place) -> None:
    """Where nobody answers the second time, or the refusal speaks of something else, it is the first refusal."""
    import psycopg

    unproven, other = (psycopg.OperationalError(text) for text in ("certificate verify failed", "no such thing"))
    nowhere = {"host": "127.0.0.1", "port": 1}
    assert postgresql_tls.explained(unproven, nowhere, 1) is unproven
    assert postgresql_tls.explained(other, {"host": "127.0.0.1", "port": place.server.port}, 1) is other
