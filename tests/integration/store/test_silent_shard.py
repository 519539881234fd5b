"""A shard that does not answer at all: its packets are dropped, or its machine hangs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from urllib.parse import urlsplit, urlunsplit

import pytest

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.errors import OutcomeUnknown, Unavailable
from snapurl.model import Link
from snapurl.store.cluster.pool import DOWN_S, Pool, ShardFailed
from snapurl.store.cluster.shards import Shards, read_topology
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.store.test_bootstrap import with_shards
from tests.support.tcp_proxy import Proxy, proxy_to
from tests.support.waits import HANG_S, until

CALLS = 20
CONNECT_MS = 1_000


def through_proxy(dsn: str, proxy: Proxy) -> str:
    parts = urlsplit(dsn)
    credentials = parts.netloc.rpartition("@")[0]
    return urlunsplit(parts._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}"))


@asynccontextmanager
async def pool_behind_proxy(settings: Settings) -> AsyncIterator[tuple[Pool, Proxy]]:
    """Yields the pool of one shard and the proxy that it connects through."""
    first = settings.shard_dsns[0]
    topology = await read_topology(settings)
    port = urlsplit(first.dsn).port
    assert port is not None
    async with proxy_to("127.0.0.1", port) as proxy:
        dsn = through_proxy(first.dsn, proxy)
        pool = Pool(
            first.name, dsn, topology.cluster_id, size=8, wait_ms=20_000, statement_timeout_ms=CONNECT_MS
        )
        yield pool, proxy
        await pool.close()


@asynccontextmanager
async def first_behind_proxy(settings: Settings) -> AsyncIterator[tuple[Settings, Proxy]]:
    """Yields settings whose first shard is reached through a proxy, and the proxy."""
    dsns = {item.name: item.dsn for item in settings.shard_dsns}
    first = settings.shard_dsns[0]
    port = urlsplit(first.dsn).port
    assert port is not None
    async with proxy_to("127.0.0.1", port) as proxy:
        yield with_shards(settings, {**dsns, first.name: through_proxy(first.dsn, proxy)}), proxy


async def until_tried(pool: Pool) -> None:
    """Waits until the back-off after a failed connect is over."""
    await asyncio.sleep(DOWN_S * 1.2)


async def test_only_one_call_at_a_time_waits_for_a_silent_shard(ready: Settings) -> None:
    """While a shard is silent, one call per 250 ms tries to connect; the others are refused at once."""
    async with pool_behind_proxy(ready) as (pool, proxy):
        proxy.deaf = True
        with pytest.raises(ShardFailed, match="in time"):
            await pool.fetch("SELECT 1")
        await until_tried(pool)
        made = proxy.accepted
        answers = await asyncio.gather(
            *(pool.fetch("SELECT 1") for _ in range(CALLS)), return_exceptions=True
        )
        assert all(isinstance(answer, ShardFailed) for answer in answers)
        assert proxy.accepted - made == 1
        proxy.deaf = False
        await until_tried(pool)
        assert await pool.fetch("SELECT 1")
        assert await pool.fetch("SELECT 1")


async def test_an_old_connect_that_fails_does_not_block_a_shard_that_is_back(ready: Settings) -> None:
    """A connect that began while the shard was silent and fails after its return does not cause a refusal."""
    async with pool_behind_proxy(ready) as (pool, proxy):
        proxy.deaf = True
        early = asyncio.create_task(pool.fetch("SELECT 1"))
        while not proxy.accepted:
            await asyncio.sleep(0.01)
        proxy.deaf = False
        assert await pool.fetch("SELECT 1")
        with pytest.raises(ShardFailed, match="in time"):
            await early
        answers = await asyncio.gather(*(pool.fetch("SELECT 1") for _ in range(CALLS)))
        assert len(answers) == CALLS
        assert pool.last_error is None


async def test_links_with_generated_codes_go_to_shards_that_answer(
    ready: Settings, new_link: NewLinkMaker
) -> None:
    """Single, concurrent and bulk creates with generated codes avoid a silent shard until it is back."""
    first = ready.shard_dsns[0]
    async with first_behind_proxy(ready) as (settings, proxy):
        store = await Store.open(settings)
        try:
            proxy.refuse = True
            proxy.cut()

            async def create() -> str:
                made = await store.links.create(new_link(store.links.new_code()))
                assert isinstance(made, Link)
                return store.shards.map.owner(slot_of(made.code))

            async def create_until(at_first: bool) -> None:
                """Creates links until the shard is known to be silent, or known to be back."""
                async with asyncio.timeout(HANG_S):
                    while store.shards.serves(first.name) is not at_first:
                        with suppress(Unavailable, OutcomeUnknown):
                            await create()

            await create_until(False)
            homes = [await create() for _ in range(40)]
            homes += await asyncio.gather(*(create() for _ in range(100)))
            assert first.name not in homes
            bulk = [new_link(code) for code in store.links.new_codes(200)]
            assert all(isinstance(made, Link) for made in await store.links.create_many(bulk))
            proxy.refuse = False
            await create_until(True)
            assert first.name in [await create() for _ in range(60)]
        finally:
            await store.shards.close()


async def test_a_connection_for_notifications_that_was_cut_off_without_a_sign_is_replaced(
    ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process whose network has forgotten a connection finds out by itself, and hears of changes again."""
    for name in ("POLL_S", "PING_S"):
        monkeypatch.setattr(f"snapurl.store.cluster.shards.{name}", 0.01)
    hasty = ready.model_copy(update={"statement_timeout_ms": CONNECT_MS})
    async with first_behind_proxy(hasty) as (settings, proxy):
        proxy.mute_after = b"SELECT 1"
        shards = await Shards.connect(settings)
        try:
            await until(lambda: proxy.muted == 1)
            proxy.mute_after = b"LISTEN"
            await until(lambda: proxy.muted == 2)
        finally:
            await shards.close()
