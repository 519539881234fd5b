"""`snapurl serve`: the HTTP workers, on one listening socket that outlives each of them.

The socket is bound here and given to the workers as an open file: connections that wait in its queue when a
worker is killed are simply taken by another.
"""

from __future__ import annotations

import contextlib
import logging
import shutil
import socket
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.run.supervisor import Child, Stage, Supervisor, environ_with, python, stop_signals, unless
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from snapurl.telemetry.logs import configure
from snapurl.telemetry.multiprocess import begin, merge_dead

log = logging.getLogger("snapurl.serve")

BACKLOG = 1024
WORKER_STOP_S_MAX = 4.0
"""For the requests in hand and the last clicks; then a worker is killed."""


async def serve(settings: Settings) -> int:
    """Runs the workers until a signal; returns the exit code. Raises ConfigError if it cannot start."""
    configure(settings.log_level, settings.log_format)
    with listening(settings) as listener, metrics_directory() as metrics:
        async with stop_signals() as stop:
            await unless(stop, prepare(settings))
            if stop.is_set():
                return 0
            workers = Stage(worker_children(settings, listener, metrics, {}), WORKER_STOP_S_MAX)
            return await Supervisor([workers], say=log.warning, ended=partial(merge_dead, metrics)).run(stop)


async def prepare(settings: Settings) -> None:
    """Brings the shards up to date and initialises an empty cluster, if the settings say so."""
    if settings.migrate_on_start:
        await migrate_all(settings)
        await ensure_cluster(settings)


@contextlib.contextmanager
def listening(settings: Settings) -> Iterator[socket.socket]:
    """The listening socket of the service. Raises ConfigError if the address is taken or is not ours."""
    where = f"{settings.host}:{settings.port}"
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
            listener.listen(BACKLOG)
        except OSError as error:
            raise ConfigError(
                f"cannot listen on {where}: {error.strerror}; stop what listens there, or set SNAPURL_PORT"
            ) from None
        listener.setblocking(False)
        yield listener


@contextlib.contextmanager
def metrics_directory(place: Path | None = None) -> Iterator[Path]:
    """An empty directory in which the workers share their metrics, at `place` if given; gone afterwards."""
    directory = place or Path(tempfile.mkdtemp(prefix="snapurl-metrics-"))
    if place:
        shutil.rmtree(place, ignore_errors=True)  # a run that was killed could not
        place.mkdir(mode=0o700)
    begin(directory)
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def worker_children(
    settings: Settings, listener: socket.socket, metrics: Path, changes: dict[str, str]
) -> tuple[Child, ...]:
    """The HTTP workers; `changes` go over the environment that we have."""
    fd = listener.fileno()
    environ = environ_with({**changes, "PROMETHEUS_MULTIPROC_DIR": str(metrics)})
    return tuple(
        Child(f"worker {number}", python("-m", "snapurl.run.worker", "--fd", str(fd)), environ, (fd,))
        for number in range(1, settings.workers + 1)
    )
