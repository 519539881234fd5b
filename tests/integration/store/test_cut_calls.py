"""A connection is cut at each await of a call in turn: the call reports a failure of the shard and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest

from snapurl.config import Settings
from snapurl.errors import SnapURLError
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.failover import connect_primary
from snapurl.store.cluster.migrate import migrate_all
from snapurl.store.cluster.pool import DOWN_S, Pool, ShardFailed
from snapurl.store.cluster.shards import close_quietly, connect_once, read_topology
from tests.integration.store.test_bootstrap import with_shards
from tests.integration.store.test_silent_shard import through_proxy
from tests.support.cut import Connections, cut_at, cut_at_each
from tests.support.tcp_proxy import proxy_to

PoolMethod = Callable[..., Awaitable[object]]
ANY_SLOTS = "SELECT slots FROM slots LIMIT 5"  # rows of a type that asyncpg has to look up first
LONG = "SELECT repeat('x', 1000) FROM generate_series(1, 2000)"  # more than a socket holds


async def _in_transaction(connection: Any) -> None:
    async with connection.transaction(isolation="repeatable_read", readonly=True):
        await connection.fetchval("SELECT $1::int", 1)
        await connection.fetch(ANY_SLOTS)


async def _copy_out(connection: Any) -> None:
    chunks: list[bytes] = []

    async def take(chunk: bytes) -> None:
        await asyncio.sleep(0)
        chunks.append(chunk)

    await connection.copy_from_query(LONG, output=take)


async def _copy_in(connection: Any) -> None:
    async def lines() -> AsyncIterator[bytes]:
        for _ in range(5):
            await asyncio.sleep(0)
            yield b"x" * 100_000 + b"\n"

    await connection.execute("CREATE TEMPORARY TABLE IF NOT EXISTS lines (line text)")
    await connection.copy_to_table("lines", source=lines())


CALLS: dict[str, Callable[[Any], Awaitable[object]]] = {
    "execute": lambda connection: connection.execute("SELECT 1; SELECT 2"),
    "execute with arguments": lambda connection: connection.execute("SELECT $1::int", 1),
    "fetch": lambda connection: connection.fetch("SELECT $1::int", 1),
    "fetch of a type to look up": lambda connection: connection.fetch(ANY_SLOTS),
    "fetchrow": lambda connection: connection.fetchrow("SELECT $1::int", 1),
    "fetchval": lambda connection: connection.fetchval("SELECT $1::int", 1),
    "transaction": _in_transaction,
    "copy out": _copy_out,
    "copy in": _copy_in,
    "listen": lambda connection: connection.add_listener("snapurl_slots", lambda *_: None),
    "close": lambda connection: close_quietly(connection, 5.0),
}

at_each_side = pytest.mark.parametrize("answered", [False, True], ids=["waiting", "answered"])


@asynccontextmanager
async def pool_of(settings: Settings) -> AsyncIterator[Pool]:
    """Yields a pool with one connection to the first shard."""
    first = settings.shard_dsns[0]
    cluster_id = (await read_topology(settings)).cluster_id
    pool = Pool(first.name, first.dsn, cluster_id, size=1, wait_ms=20_000, statement_timeout_ms=20_000)
    yield pool
    await pool.close()


@at_each_side
async def test_a_call_cut_at_any_await_reports_a_lost_connection(ready: Settings, answered: bool) -> None:
    """Whatever asyncpg raises on a connection that was closed under a call is reported as a lost connection."""

    async def once(name: str, at: int) -> bool:
        connection = await connect_primary(ready.shard_dsns[0].dsn, 5.0)
        try:
            call = CALLS[name](connection)
            _, was_cut = await cut_at(call, at, connection.terminate, answered=answered)
        except LOST:
            return True
        finally:
            connection.terminate()
        return was_cut

    for name in CALLS:
        assert await cut_at_each(partial(once, name)) >= 1, name


@at_each_side
async def test_a_pool_call_cut_at_any_await_is_a_failure_of_the_shard(
    ready: Settings, monkeypatch: pytest.MonkeyPatch, answered: bool
) -> None:
    """A call whose connection, new or used, is terminated gives 503; the next call gets a new connection."""
    connections = Connections(monkeypatch)

    async def once(method: PoolMethod, used: bool, at: int) -> bool:
        async with pool_of(ready) as pool:
            if used:
                await pool.fetch("SELECT 1")
            try:
                _, was_cut = await cut_at(method(pool), at, connections.cut, answered=answered)
            except ShardFailed as error:
                assert error.sent or not used
                was_cut = True
                await asyncio.sleep(0 if used else DOWN_S)
            assert await pool.fetch("SELECT 1")
        return was_cut

    async def read(connection: Any, _: list[int]) -> None:
        await connection.fetch("SELECT $1::int", 1)

    methods: list[PoolMethod] = [
        lambda pool: pool.fetch("SELECT $1::int", 1),
        lambda pool: pool.fetchrow("SELECT $1::int", 1),
        lambda pool: pool.read_with_slots(read),
    ]
    for method in methods:
        for used in (False, True):
            assert await cut_at_each(partial(once, method, used)) >= 2, (method, used)


async def test_a_connect_cut_at_any_await_is_a_failure_of_the_shard(ready: Settings) -> None:
    """A connection that breaks while it is opened is reported as a failed shard, not as an error of the program."""
    first = ready.shard_dsns[0]
    port = urlsplit(first.dsn).port
    assert port is not None
    async with proxy_to("127.0.0.1", port) as proxy:

        async def once(at: int) -> bool:
            opening = connect_once(first.name, through_proxy(first.dsn, proxy), 5.0)
            try:
                connection, was_cut = await cut_at(opening, at, proxy.cut, answered=False)
            except ShardFailed:
                return True
            connection.terminate()
            return was_cut

        assert await cut_at_each(once) >= 2


async def test_a_bug_on_a_live_connection_stays_a_bug(ready: Settings) -> None:
    """A wrong number of arguments or a faulty source of rows is not reported as a lost connection."""
    first = ready.shard_dsns[0]
    connection = await connect_primary(first.dsn, 5.0)

    async def faulty() -> AsyncIterator[bytes]:
        yield b"line\n"
        raise AttributeError("no such attribute")

    await connection.execute("CREATE TEMPORARY TABLE lines (line text)")
    with pytest.raises(AttributeError, match="no such attribute"):
        await connection.copy_to_table("lines", source=faulty())
    assert await connection.fetchval("SELECT 1") == 1
    connection.terminate()
    async with pool_of(ready) as pool:
        with pytest.raises(asyncpg.InterfaceError, match="expects 1 argument"):
            await pool.fetch("SELECT $1::int", 1, 2)
        assert pool.last_error is None


async def test_a_first_start_cut_at_any_await_is_finished_by_the_next(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Losing a shard during a first start ends the start with one line, and the next start completes it."""
    two = with_shards(settings, {item.name: item.dsn for item in settings.shard_dsns[:2]})
    await migrate_all(two)
    connections = Connections(monkeypatch)

    async def once(at: int) -> bool:
        for item in two.shard_dsns:
            connection = await connect_once(item.name, item.dsn, 5.0)
            await connection.execute("TRUNCATE cluster, topology, slots")
            connection.terminate()
        was_cut = True
        with suppress(SnapURLError):
            _, was_cut = await cut_at(ensure_cluster(two), at, connections.cut, answered=True)
        await ensure_cluster(two)
        assert len((await read_topology(two)).shards) == 2
        return was_cut

    assert await cut_at_each(once) >= 20
