"""The primary of a shard fails and its standby is promoted, under load."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest

from snapurl.local.postgres_server import PostgresServer
from snapurl.store.cluster.failover import NotPrimary, connect_primary
from tests.failover.conftest import Maker, World
from tests.failover.servers import Server, all_hosts, promote
from tests.support.requirements import requires
from tests.support.waits import until


@contextlib.asynccontextmanager
async def load(world: World) -> AsyncIterator[list[str]]:
    """Creates links on every shard during the block. Yields the codes that failed on shards other than db0."""
    failed: list[str] = []

    async def create(name: str) -> None:
        for code in world.codes(name):
            if not await world.try_to_create(code) and name != "db0":
                failed.append(code)
            await asyncio.sleep(0.002)

    writers = [asyncio.create_task(create(name)) for name in ("db0", "db0", "db1", "db2")]
    try:
        yield failed
    finally:
        for writer in writers:
            writer.cancel()
        outcomes = await asyncio.gather(*writers, return_exceptions=True)
    assert all(isinstance(outcome, asyncio.CancelledError) for outcome in outcomes), outcomes


async def kill(server: Server) -> None:
    await server.kill()


async def freeze(server: Server) -> None:
    """Freezes a server as if its machine hung: connections stay open, nothing answers."""
    for pid in pids_of(server):
        os.kill(pid, signal.SIGSTOP)


async def kill_frozen(server: Server) -> None:
    """Kills each process: frozen ones cannot notice that the postmaster has gone."""
    children = pids_of(server)[1:]
    await server.kill()
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)


def pids_of(server: PostgresServer) -> list[int]:
    """Returns the process ids of the postmaster and its children."""
    assert server.pid is not None
    children = Path(f"/proc/{server.pid}/task/{server.pid}/children").read_text()
    return [server.pid, *map(int, children.split())]


@pytest.mark.parametrize("end", [kill, pytest.param(freeze, marks=requires("/proc"))])
async def test_a_promoted_standby_takes_over_and_nothing_acknowledged_is_missing(
    make_world: Maker, end: Callable[[Server], Awaitable[None]]
) -> None:
    """With a synchronous standby, acknowledged creates survive the loss of the primary; other shards never fail."""
    world = await make_world(standby=True, synchronous=True)
    primary, standby = world.hosts["db0"]
    async with load(world) as failed:
        await until(lambda: len(world.acked) > 50)
        await end(primary)
        await asyncio.sleep(0.5)
        await promote(standby)
        print(f"{end}: well {await world.heals('db0'):.2f} s after the promotion")
        await asyncio.sleep(0.5)
    assert not failed
    assert await world.missing() == set()
    if end is freeze:
        await kill_frozen(primary)
    await world.reopen()
    assert await world.missing() == set()


async def test_a_connection_to_a_standby_is_refused(make_world: Maker) -> None:
    """A standby is not used until it is promoted, whether the DSN names it alone or with others."""
    world = await make_world(standby=True)
    primary, standby = world.hosts["db0"]
    with pytest.raises(NotPrimary):
        await connect_primary(all_hosts(standby), 5.0)
    connection = await connect_primary(all_hosts(standby, primary), 5.0)
    assert await connection.fetchval("SELECT NOT pg_is_in_recovery()")
    await connection.close()
