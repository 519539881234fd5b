"""The caches of two workers over one Redis: what they return, and which stale values they never return."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import pytest
from msgspec.structs import replace
from redis.asyncio import Redis

from snapurl import batcher
from snapurl.cache import reader
from snapurl.cache.codec import encode
from snapurl.cache.reader import LinkCache
from snapurl.config import Settings, load_settings
from snapurl.errors import Unavailable
from snapurl.local.cluster import LocalCluster
from snapurl.model import MISSING, CachedLink, Link
from snapurl.redis_client import redis_client
from tests.support.waits import HANG_S, PATIENT, until

LINK = Link(
    "https://old.example/", code="a", created_at=datetime.now(UTC), deleted_at=None, owner="", version=1
)
NEW = replace(LINK, url="https://new.example/", version=2)


class Shard:
    """The shard behind the caches. It counts its reads, and delays the result of one on demand."""

    def __init__(self, link: Link | None = LINK) -> None:
        self.link = link
        self.reads = 0
        self.open = asyncio.Event()
        self.open.set()

    def find(self, code: str) -> asyncio.Future[CachedLink]:
        return asyncio.ensure_future(self._find(code))

    async def _find(self, code: str) -> CachedLink:
        found = self.link
        self.reads += 1
        await self.open.wait()
        return CachedLink.from_link(found) if found is not None and found.code == code else MISSING


@pytest.fixture
async def settings(redis_url: str) -> Settings:
    return load_settings(redis_url=redis_url, **PATIENT)


@pytest.fixture(autouse=True)
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a busy machine not look like a Redis that is late."""
    monkeypatch.setattr(reader, "PATIENCE_S", HANG_S)


@asynccontextmanager
async def worker(settings: Settings, shard: Shard, *, listening: bool = True) -> AsyncIterator[LinkCache]:
    """Yields one worker's caches, by default subscribed to invalidations."""
    redis = redis_client(settings)
    cache = LinkCache(settings, "test", shard.find, redis, time.monotonic)
    await cache.start()
    if listening:
        await until(lambda: cache.is_subscribed)
    try:
        yield cache
    finally:
        await cache.stop()
        await redis.aclose()


async def url_of(cache: LinkCache) -> str | None:
    found = await cache.resolve("a")
    return None if found is None else found.url


async def until_url(cache: LinkCache, url: str | None) -> None:
    async with asyncio.timeout(HANG_S):
        while await url_of(cache) != url:
            await asyncio.sleep(0.005)


async def test_an_edit_is_seen_by_every_worker(settings: Settings) -> None:
    """A link that two workers have cached shows its new URL at both as soon as it is edited."""
    shard = Shard()
    async with worker(settings, shard) as one, worker(settings, shard) as two:
        assert [await url_of(one), await url_of(two)] == [LINK.url] * 2
        assert two.peek("a") is not None
        shard.link = NEW
        await one.changed(NEW)
        assert await url_of(one) == NEW.url
        await until_url(two, NEW.url)
        assert shard.reads <= 2, "the second may ask before Redis has kept what the first has read"


@pytest.mark.parametrize("what", ["ALL", "WRITE"])
async def test_nobody_waits_for_a_redis_that_stalls(
    settings: Settings, what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While Redis does not answer or stores nothing, links come from their shard; Redis caches them afterwards."""
    monkeypatch.setattr(reader, "PATIENCE_S", 0.05)
    shard = Shard()
    async with worker(settings, shard) as one, redis_client(settings) as redis:
        await redis.client_pause(3_000, all=what == "ALL")
        stalled = asyncio.ensure_future(redis.set("something", "else"))
        assert await url_of(one) == LINK.url
        assert not stalled.done()
        await stalled
        async with asyncio.timeout(HANG_S):
            while not await redis.exists("snapurl:test:link:a"):
                await asyncio.sleep(0.01)


@pytest.mark.parametrize("is_cached", [True, False])
async def test_a_late_redis_is_waited_for_if_the_shard_fails(
    settings: Settings, monkeypatch: pytest.MonkeyPatch, is_cached: bool
) -> None:
    """While a shard is down and Redis is slow, a link that Redis has still redirects, and others are refused."""
    monkeypatch.setattr(reader, "PATIENCE_S", 0.01)
    asked: list[str] = []

    async def down(code: str) -> CachedLink:
        asked.append(code)
        raise Unavailable("db0 is down")

    async with worker(settings, Shard()) as writer:
        if is_cached:
            await writer.changed(LINK)
    async with redis_client(settings) as redis:
        cache = LinkCache(settings, "test", down, redis, time.monotonic)
        await redis.client_pause(1_000)
        if is_cached:
            found = await cache.resolve("a")
            assert found is not None and found.url == LINK.url
        else:
            with pytest.raises(Unavailable):
                await cache.resolve("a")
        assert asked == ["a"], "Redis was to be late"
        await cache.stop()


async def test_a_slow_reader_cannot_bring_the_old_address_back(settings: Settings) -> None:
    """A worker that read the old row before an edit and caches it after the edit leaves it in neither cache."""
    shard = Shard()
    async with worker(settings, shard) as slow, worker(settings, shard) as editor:
        shard.open.clear()
        reading = asyncio.create_task(slow.resolve("a"))
        await until(lambda: shard.reads == 1)
        shard.link = NEW
        await editor.changed(NEW)
        await asyncio.sleep(0.1)  # the invalidation arrives while the read is in flight
        shard.open.set()
        found = await reading
        assert found is not None
        assert found.url == NEW.url
        assert await url_of(slow) == NEW.url
        async with worker(settings, shard) as third:
            assert await url_of(third) == NEW.url


async def test_a_slow_reader_without_a_subscription_cannot_bring_it_back_either(settings: Settings) -> None:
    """Without any subscription, Redis rejects the old version after the edit."""
    shard = Shard()
    redis = redis_client(settings)
    unsubscribed = LinkCache(settings, "test", shard.find, redis, time.monotonic)
    async with worker(settings, shard) as editor:
        shard.open.clear()
        reading = asyncio.create_task(unsubscribed.resolve("a"))
        await until(lambda: shard.reads == 1)
        await editor.changed(NEW)
        shard.open.set()
        await reading
        assert unsubscribed.peek("a") is None
        assert await url_of(unsubscribed) == NEW.url
    await unsubscribed.stop()
    await redis.aclose()


async def test_a_deleted_link_stays_deleted(settings: Settings) -> None:
    """A delete leaves a tombstone in Redis that a late reader of the old row does not replace."""
    shard = Shard()
    gone = replace(LINK, version=2, deleted_at=datetime.now(UTC))
    async with worker(settings, shard) as one, worker(settings, shard) as two:
        shard.open.clear()
        reading = asyncio.create_task(two.resolve("a"))
        await until(lambda: shard.reads == 1)
        await one.changed(gone)
        shard.link = gone
        shard.open.set()
        await reading
        for cache in (one, two):
            found = await cache.resolve("a")
            assert found is not None
            assert found.deleted


async def test_a_new_link_replaces_a_cached_miss(settings: Settings) -> None:
    """A code with a cached miss redirects at every worker as soon as it is created."""
    shard = Shard(None)
    async with worker(settings, shard) as one, worker(settings, shard) as two:
        assert [await url_of(one), await url_of(two)] == [None, None]
        reads = shard.reads
        assert await url_of(one) is None
        assert shard.reads == reads
        shard.link = LINK
        await one.changed(LINK)
        assert await url_of(one) == LINK.url
        await until_url(two, LINK.url)


async def test_a_hundred_at_once_are_one_load(settings: Settings) -> None:
    """A hundred concurrent requests for one uncached code cause one read of the shard."""
    shard = Shard()
    async with worker(settings, shard) as cache:
        found = await asyncio.gather(*(cache.resolve("a") for _ in range(100)))
        assert shard.reads == 1
        assert {link.url for link in found if link} == {LINK.url}


async def test_many_links_at_once_are_few_queries(settings: Settings) -> None:
    """A thousand concurrent requests for links not in L1 need two or three Redis commands, all answered right."""
    codes = [f"c{number}" for number in range(1_000)]
    links = {code: replace(LINK, code=code, url=f"https://{code}.example/") for code in codes}

    def never(code: str) -> asyncio.Future[CachedLink]:
        raise AssertionError(f"{code} is in Redis")

    async with worker(settings, Shard()) as writer:
        for link in links.values():
            await writer.changed(link)
    redis = redis_client(settings)
    cache = LinkCache(settings, "test", never, redis, time.monotonic)
    before = (await redis.info("commandstats"))["cmdstat_mget"]["calls"] if await redis.mget(["none"]) else 0
    found = await asyncio.gather(*(cache.resolve(code) for code in codes))
    calls = (await redis.info("commandstats"))["cmdstat_mget"]["calls"] - before
    assert [link.url for link in found if link] == [link.url for link in links.values()]
    assert calls <= 3
    await cache.stop()
    await redis.aclose()


async def mgets(redis: Redis) -> int:
    """Returns how many queries for links Redis has received."""
    stats = await redis.info("commandstats")
    return int(stats.get("cmdstat_mget", {"calls": 0})["calls"])


async def test_links_requested_at_the_same_time_share_queries(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Most of the links that are requested while others are being loaded share a query."""
    monkeypatch.setattr(reader, "LINGER_S", 0.1)
    shard = Shard()
    shard.open.clear()
    async with worker(settings, shard) as cache, redis_client(settings) as redis:
        before = await mgets(redis)
        loads = []
        for number in range(12):
            loads.append(asyncio.create_task(cache.resolve(f"c{number}")))
            await asyncio.sleep(0.005)
        shard.open.set()
        await asyncio.gather(*loads)
        assert await mgets(redis) - before <= 6


async def test_a_single_query_never_lingers(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """A link that is requested alone is not delayed to wait for others."""
    monkeypatch.setattr(reader, "LINGER_S", 3_600)
    async with worker(settings, Shard()) as cache:
        for number in range(batcher.LOADED_MIN * 2):
            assert await cache.resolve(f"c{number}") is None


async def test_a_client_that_goes_away_takes_nothing_from_the_others(settings: Settings) -> None:
    """When the first of several pending requests is cancelled, the others still get their answer."""
    shard = Shard()
    async with worker(settings, shard) as cache:
        shard.open.clear()
        first = asyncio.create_task(cache.resolve("a"))
        await until(lambda: shard.reads == 1)
        second = asyncio.create_task(cache.resolve("a"))
        await asyncio.sleep(0)
        first.cancel()
        shard.open.set()
        found = await second
        assert found is not None
        assert shard.reads == 1


async def test_a_worker_without_a_subscription_keeps_nothing(
    settings: Settings, cluster: LocalCluster
) -> None:
    """When Redis fails a worker empties its cache and reads from the shard; when Redis is back it caches again."""
    shard = Shard()
    async with worker(settings, shard) as cache:
        assert await url_of(cache) == LINK.url
        assert cache.peek("a") is not None
        await cluster.redis.kill()
        try:
            await until(lambda: not cache.is_subscribed)
            assert cache.peek("a") is None
            assert await url_of(cache) == LINK.url
            assert cache.peek("a") is None
        finally:
            await cluster.redis.start()
        await until(lambda: cache.is_subscribed)
        assert await url_of(cache) == LINK.url
        assert cache.peek("a") is not None


async def test_an_edit_while_redis_is_down_is_announced_when_it_is_back(
    settings: Settings, cluster: LocalCluster
) -> None:
    """A link that is cached in Redis and edited during an outage shows its new URL after the outage."""
    shard = Shard()
    async with worker(settings, shard) as editor, worker(settings, shard) as other:
        assert await url_of(editor) == LINK.url
        await cluster.redis.stop()
        try:
            await until(lambda: not other.is_subscribed)
            shard.link = NEW
            await editor.changed(NEW)
            assert await url_of(other) == NEW.url
        finally:
            await cluster.redis.start()
        await until(lambda: other.is_subscribed)
        await until_url(other, NEW.url)
        redis = Redis.from_url(settings.redis_url.get_secret_value(), decode_responses=True)
        async with asyncio.timeout(HANG_S):
            while str(await redis.get("snapurl:test:link:a")).split(" ")[0] != "2":
                await asyncio.sleep(0.02)
        await redis.aclose()


@pytest.mark.parametrize("message", ["\u00b2 lru", "", "1", "1 a\r\nb", "x" * 70_000, b"\xff a", "-1 a"])
async def test_a_message_that_cannot_be_read_is_a_lost_subscription(
    settings: Settings, message: str | bytes
) -> None:
    """After any message on the channel, workers empty their cache, subscribe again and still hear of edits."""
    shard = Shard()
    async with worker(settings, shard) as editor, worker(settings, shard) as other:
        for cache in (editor, other):
            assert await url_of(cache) == LINK.url
        async with redis_client(settings) as redis:
            await redis.publish("snapurl:test:changed", message)
        await until(lambda: other.peek("a") is None)
        await until(lambda: other.is_subscribed and editor.is_subscribed)
        assert await url_of(other) == LINK.url
        assert other.peek("a") is not None
        shard.link = NEW
        await editor.changed(NEW)
        await until_url(other, NEW.url)


@pytest.mark.parametrize(
    "value",
    [
        "\u00b2 302 - 0 https://x/",
        "",
        "nothing",
        "9" * 400,
        b"\xff",
        "0 2 302 - 0 https://x/\r\nA: b",
        "1 302 - 0 https://x/",
        None,
    ],
)
async def test_a_value_that_cannot_be_read_is_replaced(settings: Settings, value: str | bytes | None) -> None:
    """Whatever stands in Redis in place of a link, redirects come from the shard, and Redis then has the link."""
    shard = Shard()
    async with worker(settings, shard) as cache, redis_client(settings) as redis:
        key = "snapurl:test:link:a"
        await (redis.lpush(key, "a list") if value is None else redis.set(key, value))
        assert await url_of(cache) == LINK.url
        async with asyncio.timeout(HANG_S):
            while (
                await redis.type(key) != b"string"
                or await redis.get(key) != encode(CachedLink.from_link(LINK)).encode()
            ):
                await asyncio.sleep(0.01)


async def test_a_link_with_options_is_not_in_redis(settings: Settings) -> None:
    """A link with options is read at its shard, whatever a worker that does not know them has left in Redis."""
    off = replace(NEW, enabled=False)
    shard = Shard(off)
    key, plain_of_old_worker = "snapurl:test:link:a", "2 302 - 0 https://new.example/"
    async with (
        worker(settings, shard) as cache,
        worker(settings, shard) as other,
        redis_client(settings) as redis,
    ):
        await redis.set(key, plain_of_old_worker)
        assert await cache.resolve("a") == CachedLink.from_link(off)
        await cache.changed(replace(off, version=3))
        assert await redis.get(key) == b"3"
        shard.link = replace(off, version=3)
        assert await other.resolve("a") == CachedLink.from_link(shard.link)


async def test_the_change_of_a_large_link_keeps_slow_readers_out(settings: Settings) -> None:
    """A link that becomes too large for Redis leaves its version there, which keeps the old one out."""
    shard = Shard()
    large = replace(NEW, url="https://large.example/".ljust(8_000, "x"))
    async with worker(settings, shard) as slow, worker(settings, shard) as editor:
        shard.open.clear()
        reading = asyncio.create_task(slow.resolve("a"))
        await until(lambda: shard.reads == 1)
        await editor.changed(large)
        shard.open.set()
        await reading
        shard.link = large
        await until_url(slow, large.url)
        async with worker(settings, shard) as third, redis_client(settings) as redis:
            assert await url_of(third) == large.url
            assert await redis.get("snapurl:test:link:a") == b"2"
