"""Keeps the servers of a local cluster running: one that has died is started again, with its data and address.

A shard's server serves nothing after that until its restart has been attested (`ring/restarts.py`). The workers do
so by themselves, since the same data directory has lost nothing.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from time import monotonic

from snapurl.errors import ConfigError
from snapurl.local.cluster import LocalCluster
from snapurl.local.postgres_server import PostgresServer
from snapurl.local.redis_server import RedisServer
from snapurl.run.supervisor import Backoff, exit_text
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import endless_task

log = logging.getLogger("snapurl.up")

POLL_S = 0.5


@asynccontextmanager
async def servers_kept_running(
    cluster: LocalCluster, *, report: Callable[[str], None], backoff: Backoff | None = None
) -> AsyncIterator[None]:
    """Restarts each server that ends during the block. `report` is called with one line for each death."""
    watching = endless_task(partial(_watch, cluster, report, backoff or Backoff()), "servers")
    try:
        yield
    finally:
        await cancel_and_wait(watching)


async def _watch(cluster: LocalCluster, report: Callable[[str], None], backoff: Backoff) -> None:
    known: dict[int, _WatchedServer] = {}
    try:
        while True:
            for server in cluster.servers():
                known.setdefault(id(server), _WatchedServer(server, report, backoff)).check()
            await asyncio.sleep(POLL_S)
    finally:
        await cancel_and_wait(*(item.restarting for item in known.values()))


class _WatchedServer:
    """A server, and the task that restarts it after it has died."""

    def __init__(
        self, server: PostgresServer | RedisServer, report: Callable[[str], None], backoff: Backoff
    ) -> None:
        self.restarting: asyncio.Task[None] | None = None
        self._server = server
        self._report = report
        self._backoff = backoff
        self._started = monotonic()
        self._delay_s = 0.0

    def check(self) -> None:
        """Begins to restart the server if it has ended."""
        if self._server.pid is None and (self.restarting is None or self.restarting.done()):
            self.restarting = asyncio.create_task(self._restart())

    async def _restart(self) -> None:
        self._delay_s = self._backoff.after(self._delay_s, monotonic() - self._started)
        how = exit_text(self._server.exit_code)
        self._report(f"{self._server.title} {how}; restarting it in {self._delay_s:.1f} s")
        await asyncio.sleep(self._delay_s)
        try:
            await self._server.start()
        except ConfigError as error:
            self._report(error.detail)
        except Exception:  # the next check tries again
            log.exception("%s could not be restarted", self._server.title)
        else:
            log.info("%s runs again", self._server.title)
        self._started = monotonic()
