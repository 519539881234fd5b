"""`snapurl serve`: a supervisor and its HTTP workers on the same listening sockets.

How the command becomes an HTTP server, in order:

1. `cli.serve` loads the settings and calls `serve` here.
2. `serve` binds the sockets of the service (`listening`) and of its metrics port, applies migrations and
   initialises an empty cluster (`prepare`), and starts a `Supervisor` with SNAPURL_WORKERS children
   (`worker_children`).
3. Each child runs `run.worker.main`, which gets the sockets as open files and makes the Sanic app
   (`app.create_app`).
4. `run.worker.start` starts Sanic's server on the socket. Before it accepts connections it runs
   `app.open_services`, which connects to PostgreSQL and Redis.
5. For each connection Sanic makes a protocol: `http/fastpath/protocol.py` (`FastProtocol`), which answers plain
   redirects and creates and passes all else to Sanic's router; its routes are those of `http/routes.py`.

The first worker that is ready makes the socket listen: before that connections are refused, and a proxy goes
elsewhere. The socket outlives each worker: if one is killed, connections that wait in its queue go to another. At
the end it is closed before the workers (`leave`), so that nobody waits in its queue then.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import secrets
import shutil
import signal
import socket
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.redis_client import redis_pool
from snapurl.run.supervisor import (
    Child,
    Stage,
    Supervisor,
    environ_with,
    python_argv,
    stop_signals,
    unless_stopped,
)
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.dsn import plain_text_warning
from snapurl.store.cluster.migrate import check_migrated, migrate_all
from snapurl.telemetry.logs import configure
from snapurl.telemetry.metrics_port import bind
from snapurl.telemetry.multiprocess import initialise, merge_dead
from snapurl.urls import host_in_url

log = logging.getLogger("snapurl.serve")

LEAVE_SIGNAL = signal.SIGUSR1  # to workers: fail health checks
WORKER_STOP_S_MAX = 4.0
"""Time for requests in progress and the last clicks; then a worker is killed."""


async def serve(settings: Settings) -> int:
    """Runs the workers until a signal. Returns the exit code; raises ConfigError if it cannot start."""
    configure(settings.log_level, settings.log_format)
    redis_pool(settings)  # a URL that cannot be used is refused here, not by each worker
    if warning := plain_text_warning(settings):
        log.warning(warning)
    with ExitStack() as stack:
        listener = stack.enter_context(listening(settings))
        port = None
        if settings.metrics_port:
            port = stack.enter_context(bind(settings.metrics_host, settings.metrics_port))
        metrics = stack.enter_context(metrics_directory())
        async with stop_signals() as stop:
            await unless_stopped(stop, prepare(settings))
            if stop.is_set():
                return 0
            workers = Stage(worker_children(settings, listener, port, metrics, {}), WORKER_STOP_S_MAX)
            supervisor = Supervisor(
                [workers],
                report=log.warning,
                on_exit=partial(merge_dead, metrics),
                before_stop=partial(leave, settings, listener, workers),
            )
            log.info("serving on %s with %d workers", listening_url(settings), settings.workers)
            return await supervisor.run(stop)


async def leave(settings: Settings, listener: socket.socket, workers: Stage, supervisor: Supervisor) -> None:
    """Takes the service out of use before its workers stop.

    For `stop_delay_s` its health checks fail and it answers everything else, so that balancers go elsewhere. Then
    the socket accepts no more connections, in all processes that have it.
    """
    if settings.stop_delay_s:
        supervisor.signal(workers, LEAVE_SIGNAL)
        await asyncio.sleep(settings.stop_delay_s)
    with contextlib.suppress(OSError):  # no worker has made it listen yet
        listener.shutdown(socket.SHUT_RDWR)


async def prepare(settings: Settings) -> None:
    """Applies migrations and initialises an empty cluster.

    If SNAPURL_MIGRATE_ON_START is off, it raises ConfigError for a shard that lacks migrations.
    """
    if settings.migrate_on_start:
        await migrate_all(settings)
        await ensure_cluster(settings)
    else:
        await check_migrated(settings)


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """Binds the socket of the service, on which the workers listen. Raises ConfigError if that cannot be."""
    where = f"{host_in_url(settings.host)}:{settings.port}"
    try:
        family, kind, _, _, address = socket.getaddrinfo(
            settings.host, settings.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind)
    except OSError as error:
        raise ConfigError(f"cannot listen on {where} (SNAPURL_HOST): {error.strerror}") from None
    with listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind(address)
        except OSError as error:
            raise ConfigError(f"cannot listen on {where}: {error.strerror}; {_advice(error)}") from None
        listener.setblocking(False)
        yield listener


def _advice(error: OSError) -> str:
    if error.errno == errno.EADDRNOTAVAIL:
        return "set SNAPURL_HOST to an address of this machine, or to 0.0.0.0 for all of them"
    if error.errno in (errno.EACCES, errno.EPERM):
        return "set SNAPURL_PORT to a port above 1023, or allow this user the lower ones"
    return "stop the program on that port, or set SNAPURL_PORT"


def listening_url(settings: Settings) -> str:
    """Returns the address that the service listens on, as a URL."""
    return f"http://{host_in_url(settings.host)}:{settings.port}"


@contextlib.contextmanager
def metrics_directory(place: Path | None = None) -> Iterator[Path]:
    """Makes an empty directory for the workers' metrics, at `place` if given, and removes it afterwards."""
    directory = place or Path(tempfile.mkdtemp(prefix="snapurl-metrics-"))
    if place:
        shutil.rmtree(place, ignore_errors=True)  # left by a run that was killed
        place.mkdir(mode=0o700)
    initialise(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def worker_children(
    settings: Settings,
    listener: socket.socket,
    metrics_listener: socket.socket | None,
    metrics: Path,
    changes: dict[str, str],
) -> tuple[Child, ...]:
    """Returns the HTTP workers, with this process's environment and `changes`.

    All of them listen on both sockets, and `metrics` is the directory in which they share their metrics.
    """
    listeners = {"--fd": listener, "--metrics-fd": metrics_listener}
    fds = {option: each.fileno() for option, each in listeners.items() if each is not None}
    words = (word for option, fd in fds.items() for word in (option, str(fd)))
    argv = python_argv("-m", "snapurl.run.worker", *words)
    own = {"PROMETHEUS_MULTIPROC_DIR": str(metrics)}
    if not settings.session_secret.get_secret_value():
        own["SNAPURL_SESSION_SECRET"] = secrets.token_urlsafe(32)
    environ = environ_with({**own, **changes})
    return tuple(
        Child(f"worker {number}", argv, environ, tuple(fds.values()))
        for number in range(1, settings.workers + 1)
    )
