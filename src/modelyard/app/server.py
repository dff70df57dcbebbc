"""The parent process: settings, folder, socket, first administrator, then the supervisor."""

from __future__ import annotations

import errno
import socket
from collections.abc import Callable, Mapping

import msgspec
import structlog
from pydantic import SecretStr

from modelyard.app.auditing import server_started, server_stopped, version_unhealthy
from modelyard.app.folder import DataFolder
from modelyard.app.spawning import Inherited, Spawner
from modelyard.app.usage import restored_quotas
from modelyard.auth.keys import KeyIssuer
from modelyard.auth.scopes import Scope
from modelyard.core.clock import SystemClock
from modelyard.core.errors import SettingsError, UnavailableError
from modelyard.core.events import Event
from modelyard.core.settings import Settings
from modelyard.http.edge.certificate import Certificate
from modelyard.http.edge.tls import TlsKeeper
from modelyard.http.processes.board import Board
from modelyard.http.processes.health import Suspects, UnhealthyVersions, version_token
from modelyard.http.processes.loads import LoadFiles
from modelyard.http.processes.supervisor import Supervisor
from modelyard.http.processes.tally import Tallies
from modelyard.limits.gcra import SharedGcra
from modelyard.models.signing.trust import Trust
from modelyard.runtimes.shared.place import clear
from modelyard.storage.counters import probe
from modelyard.storage.sql.open import open_stores

log = structlog.get_logger()

BACKLOG = 2048
ADMINISTRATOR = "administrator"
LIBRARIES = {
    "onnx": ("onnxruntime", "modelyard.runtimes.onnx"),
    "sklearn": ("modelyard.runtimes.sklearn",),
    "lightgbm": ("modelyard.runtimes.trees.lightgbm",),
    "xgboost": ("modelyard.runtimes.trees.xgboost",),
    "torchscript": ("modelyard.runtimes.torch.script",),
    "torch_export": ("modelyard.runtimes.torch.pt2",),
    "python": ("modelyard.runtimes.jail.formats",),
    "pickle": ("modelyard.runtimes.jail.formats",),
}
"""What loading a model of this format imports."""


class Started(msgspec.Struct, frozen=True):
    """What the start found: the address, the first administrator's key if this start made one, and the certificate
    that TLS shows (None without TLS)."""

    url: str
    admin_key: SecretStr | None
    certificate: Certificate | None = None


def serve(
    settings: Settings,
    threads: Mapping[str, str],
    prepared: Callable[[Started], None],
    ready: Callable[[Started], None],
) -> int:
    """Runs a server until it is told to stop; the exit status.

    `threads` are the environment variables that size the numeric libraries of the workers. `prepared` is called once
    the socket is bound and keys exist, `ready` when the first worker accepts. Raises SettingsError,
    ConflictError("data_folder_in_use").
    """
    Trust.of(settings.models)
    folder = DataFolder(settings.data)
    folder.open()
    folder.lock()
    check_counter(settings)
    keeper = TlsKeeper(settings.http, folder.path)
    certificate = keeper.start()
    listener = listen(settings)
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    scheme = "http" if certificate is None else "https"
    started = Started(f"{scheme}://{shown}:{port}", first_administrator(settings), certificate)
    server_started(settings, started.url)
    prepared(started)
    board = Board.create(folder.board)
    Tallies(folder.tallies).clear()
    LoadFiles(folder.loads).clear()
    clear(folder.run)
    counter = SharedGcra.create(settings.limits.max_clients)
    inherited = Inherited(listener.fileno(), counter, restored_quotas(settings))
    spawn = Spawner(settings, threads, inherited, libraries(settings))

    def announce() -> None:
        # For commands on this machine: no certificate names the address of all interfaces.
        address = started.url.replace("//0.0.0.0:", "//127.0.0.1:").replace("//[::]:", "//[::1]:")
        folder.announce(address, keeper.made)
        ready(started)

    supervisor = Supervisor(board, settings.workers, spawn.worker, spawn.drain, announce, keeper.refresh)
    supervisor.suspects = Suspects(settings.models.unhealthy_deaths, settings.models.unhealthy_within_s)
    supervisor.on_unhealthy = lambda token: mark_unhealthy(settings, folder, board, token)
    try:
        return supervisor.run()
    finally:
        folder.withdraw()
        server_stopped(settings, started.url)


def check_counter(settings: Settings) -> None:
    """Sees whether the counter that hosts share counts. Where it is only away the start goes on, and the log says so;
    SettingsError("setting_invalid") where waiting would not help."""
    try:
        probe(settings.limits)
    except UnavailableError as error:
        if error.retry_after_s is None:
            raise SettingsError("setting_invalid", error.message, **error.detail) from None
        choice = settings.limits.on_failure
        log.error(Event.LIMIT_COUNTER_FAILED, on_failure=choice, said=error.message, **error.detail)


def listen(settings: Settings) -> socket.socket:
    """The listening socket, bound once for all workers; SettingsError("port_in_use" | "setting_invalid")."""
    host, port = settings.http.host, settings.http.port
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise _cannot_listen(host, port, error) from None
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError as error:
        listener.close()
        raise _cannot_listen(host, port, error) from None
    listener.setblocking(False)
    return listener


def _cannot_listen(host: str, port: int, error: OSError) -> SettingsError:
    if error.errno == errno.EADDRINUSE:
        return SettingsError(
            "port_in_use",
            f"Another program listens on {host}:{port}. Choose another port with --port, or 0 for a free one.",
            field="http.port",
            got=port,
        )
    return SettingsError(
        "setting_invalid",
        f"The server cannot listen on {host}:{port}: {error.strerror}.",
        field="http.host",
        got=host,
    )


def first_administrator(settings: Settings) -> SecretStr | None:
    """Sees that an administrator's key exists: the given one, or at the first start a new one, which is returned."""
    stores = open_stores(settings, settings.data)
    try:
        issuer = KeyIssuer(stores.keys, SystemClock())
        given = settings.auth.admin_key
        if given is not None:
            issuer.adopt(given.get_secret_value(), ADMINISTRATOR, scopes=list(Scope))
            return None
        if any(Scope.ADMIN in key.scopes for key in stores.keys.snapshot().keys):
            return None
        return issuer.create(ADMINISTRATOR, scopes=list(Scope)).text
    finally:
        stores.close()


def libraries(settings: Settings) -> tuple[str, ...]:
    """Modules that the published models need."""
    stores = open_stores(settings, settings.data)
    try:
        formats = {known.manifest.format for known in stores.registry.versions()}
    finally:
        stores.close()
    return tuple(name for form in sorted(formats) for name in LIBRARIES.get(form, ()))


def mark_unhealthy(settings: Settings, folder: DataFolder, board: Board, token: int) -> None:
    """A version killed its workers too often: noted in the data folder, so that no worker loads it again until it is
    revived; those that run look at once."""
    model = version = ""
    try:
        stores = open_stores(settings, settings.data)
        try:
            for known in stores.registry.versions():
                if version_token(known.model, known.version) == token:
                    model, version = known.model, known.version
        finally:
            stores.close()
    except Exception as error:  # the mark needs no name
        log.warning(Event.SNAPSHOT_FAILED, error=type(error).__name__, reason=str(error)[:300])
    try:
        deaths = settings.models.unhealthy_deaths
        UnhealthyVersions(folder.unhealthy).mark(token, model, version, deaths, SystemClock().now())
    except OSError as error:
        log.error(Event.MODEL_UNHEALTHY, model=model, version=version, reason=str(error))
        return
    board.ring()
    log.error(Event.MODEL_UNHEALTHY, model=model, version=version)
    version_unhealthy(settings, model, version, deaths)
