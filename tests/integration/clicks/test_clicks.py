"""Clicks from workers to shards, counted exactly once whatever is killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
from pydantic import SecretStr
from redis.asyncio import Redis
from redis.exceptions import OutOfMemoryError

from ring.slots import slot_of
from snapurl.clicks.health import consumer_fault
from snapurl.clicks.shipper import Shipper
from snapurl.clicks.stream import alive_key, name_key, visitors_key
from snapurl.clicks.tally import Tally
from snapurl.config import Settings
from snapurl.errors import Unavailable
from snapurl.local.cluster import LocalCluster
from snapurl.local.free_ports import free_port
from snapurl.model import SourceKind
from snapurl.periods import DateRange
from snapurl.redis_client import redis_client
from snapurl.telemetry.metrics import CLICK_SOURCES_DROPPED, CLICKS_HELD
from tests.integration.store.conftest import Store, ready, store
from tests.support.clicks import classifier, said
from tests.support.programs import PIPE, Process, start
from tests.support.tcp_proxy import proxy_to
from tests.support.waits import HANG_S, until

__all__ = ["ready", "store"]

CODES = [f"link{n}" for n in range(200)]
REFERRERS = ["", "a.example", "b.example"]


@pytest.fixture
def seed() -> int:
    """Returns the seed, and prints it so that a failing run can be repeated with TEST_SEED."""
    chosen = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"TEST_SEED={chosen}")
    return chosen


def environ(settings: Settings) -> dict[str, str]:
    return {
        **os.environ,
        "SNAPURL_SHARDS": settings.shards.get_secret_value(),
        "SNAPURL_REDIS_URL": settings.redis_url.get_secret_value(),
    }


async def start_consumer(settings: Settings) -> Process:
    return await start("snapurl.clicks", env=environ(settings))


@asynccontextmanager
async def consumer(settings: Settings) -> AsyncIterator[Process]:
    process = await start_consumer(settings)
    try:
        yield process
    finally:
        if process.returncode is None:
            process.terminate()
        assert await asyncio.wait_for(process.wait(), HANG_S) in (0, -signal.SIGKILL, -signal.SIGTERM)


@asynccontextmanager
async def shipper(settings: Settings, namespace: str) -> AsyncIterator[Tally]:
    """Yields a worker's tally, which is shipped until the end of the block and then flushed."""
    redis = redis_client(settings)
    tally = Tally(settings.click_codes_max)
    made = Shipper(settings, namespace, tally, classifier(), redis, lambda: datetime.now(UTC))
    await made.start()
    try:
        yield tally
    finally:
        await made.stop()
        await redis.aclose()


async def until_counted(store: Store, expected: Counter[str]) -> None:
    """Waits until the counts are the expected ones, and asserts that they stay so."""
    async with asyncio.timeout(HANG_S):
        while True:
            # A restarted shard serves requests once it has been compared with the others.
            with contextlib.suppress(Unavailable):
                if await counted(store, expected) == expected:
                    break
            await asyncio.sleep(0.1)
    await asyncio.sleep(0.3)
    assert await counted(store, expected) == expected


async def counted(store: Store, codes: Counter[str]) -> Counter[str]:
    totals = {code: await store.clicks_of(code) for code in codes}
    return Counter({code: clicks for code, clicks in totals.items() if clicks})


async def test_20_000_clicks_count_exactly_whatever_is_killed(
    store: Store, ready: Settings, cluster: LocalCluster, seed: int
) -> None:
    """20,000 clicks on 200 links are counted exactly, with their sources, although consumers are killed, workers
    stopped and Redis restarted."""
    rng = random.Random(seed)
    namespace = store.shards.topology.cluster_id
    expected: Counter[str] = Counter()
    referred: Counter[tuple[str, str]] = Counter()
    process = await start_consumer(ready)
    for round_ in range(10):
        async with shipper(ready, namespace) as tally, shipper(ready, namespace) as other:
            for _ in range(100):
                for _ in range(20):
                    code = rng.choice(CODES)
                    referrer = rng.choice(REFERRERS)
                    expected[code] += 1
                    referred[code, referrer] += 1
                    rng.choice((tally, other)).record(code, said(referrer))
                await asyncio.sleep(0.002)
                if rng.random() < 0.03:
                    process.kill()
                    await process.wait()
                    process = await start_consumer(ready)
            if round_ == 5:
                await cluster.redis.kill()
                await asyncio.sleep(0.3)
                await cluster.redis.start()
    assert expected.total() == 20_000
    await until_counted(store, expected)
    told = {(code, value): clicks for code in CODES for value, clicks in (await store.told(code)).items()}
    assert told == {(code, referrer): clicks for (code, referrer), clicks in referred.items() if referrer}
    for code, clicks in expected.items():
        assert await store.told(code, SourceKind.BROWSER) == {"firefox": clicks}
    process.terminate()
    assert await process.wait() == 0


async def test_visitors_are_told_with_the_clicks(store: Store, ready: Settings) -> None:
    """Each day of a link has its visitors, within 3 % of 10,000. What else Redis has under their key is none."""
    namespace = store.shards.topology.cluster_id
    today = datetime.now(UTC).date()
    expected = Counter({"many": 20_000, "few": 2, "wrong": 3})
    async with Redis.from_url(ready.redis_url.get_secret_value()) as redis:
        await redis.pfadd(visitors_key(namespace, today, "many"), *map(str, range(10_000)))
        await redis.pfadd(visitors_key(namespace, today, "few"), "one")
        await redis.set(visitors_key(namespace, today, "wrong"), "text")
        async with consumer(ready), shipper(ready, namespace) as tally:
            for code in expected.elements():
                tally.record(code)
            await until_counted(store, expected)
    found = {code: (await store.statistics.days_of_link(code, DateRange()))[0].visitors for code in expected}
    assert found == {"many": pytest.approx(10_000, rel=0.03), "few": 1, "wrong": 0}


async def test_lost_replies_of_redis_count_nothing_twice(store: Store, ready: Settings) -> None:
    """A batch whose acknowledgement was lost is sent again, and counts once."""
    parts = urlsplit(ready.redis_url.get_secret_value())
    assert parts.hostname is not None
    assert parts.port is not None
    expected: Counter[str] = Counter()
    async with proxy_to(parts.hostname, parts.port) as proxy, consumer(ready):
        address = ready.redis_url.get_secret_value().replace(f":{parts.port}", f":{proxy.port}")
        through = ready.model_copy(update={"redis_url": type(ready.redis_url)(address), "click_flush_ms": 5})
        async with shipper(through, store.shards.topology.cluster_id) as tally:
            for number in range(300):
                if number % 10 == 0:
                    proxy.lose_replies(1)
                code = CODES[number % 7]
                expected[code] += 1
                tally.record(code)
                await asyncio.sleep(0.003)
        assert proxy.replies_lost >= 10
        await until_counted(store, expected)


async def test_a_wiped_redis_begins_a_new_stream(store: Store, ready: Settings) -> None:
    """After Redis has lost its data, the cursors of the old stream skip no click of the new one."""
    namespace = store.shards.topology.cluster_id
    expected: Counter[str] = Counter()
    async with consumer(ready), shipper(ready, namespace) as tally:
        for _ in range(2):
            for code in CODES[:20]:
                expected[code] += 1
                tally.record(code)
            await until_counted(store, expected)
            async with Redis.from_url(ready.redis_url.get_secret_value()) as redis:
                await redis.flushdb()


async def test_clicks_of_a_silent_shard_wait_and_the_others_count(
    store: Store, ready: Settings, cluster: LocalCluster
) -> None:
    """While one shard is down the clicks of the others are counted; its clicks follow when it is back."""
    namespace = store.shards.topology.cluster_id
    at_db1 = [code for code in CODES if store.shards.map.owner(slot_of(code)) == "db1"]
    others = [code for code in CODES if code not in at_db1]
    async with consumer(ready), shipper(ready, namespace) as tally:
        await cluster.shard("db1").kill()
        try:
            for code in CODES:
                tally.record(code)
            await until_counted(store, Counter(others))
        finally:
            await cluster.shard("db1").start()
        await until_counted(store, Counter(CODES))


async def test_two_consumers_count_once_and_one_takes_over(store: Store, ready: Settings) -> None:
    """With two consumers each click counts once; when one is killed, the other takes over within seconds."""
    namespace = store.shards.topology.cluster_id
    expected: Counter[str] = Counter()
    async with consumer(ready) as one, consumer(ready), shipper(ready, namespace) as tally:
        for step in range(2):
            for code in CODES:
                expected[code] += 1
                tally.record(code)
            await until_counted(store, expected)
            if not step:
                one.kill()


async def test_the_stream_is_trimmed_and_bounded(store: Store, ready: Settings) -> None:
    """Counted entries are trimmed from the stream; while it is full, workers keep their clicks."""
    namespace = store.shards.topology.cluster_id
    small = ready.model_copy(update={"click_stream_entries_max": 3, "click_flush_ms": 5})
    expected: Counter[str] = Counter()
    async with (
        Redis.from_url(ready.redis_url.get_secret_value()) as redis,
        shipper(small, namespace) as tally,
    ):
        for _ in range(20):
            for code in CODES[:5]:
                expected[code] += 1
                tally.record(code)
            await asyncio.sleep(0.02)
        name = await redis.get(name_key(namespace))
        assert name is not None
        assert await redis.xlen(name) == 3
        async with consumer(ready):
            await until_counted(store, expected)
            await until_it_is(0, lambda: redis.xlen(name))


async def until_it_is(answer: object, ask: Callable[[], Awaitable[object]]) -> None:
    async def is_so() -> bool:
        return await ask() == answer

    await until(is_so)


async def test_an_entry_that_cannot_be_read_is_skipped(store: Store, ready: Settings) -> None:
    """An unreadable entry in the stream is skipped, and the clicks after it are counted."""
    namespace = store.shards.topology.cluster_id
    async with Redis.from_url(ready.redis_url.get_secret_value()) as redis:
        await redis.set(name_key(namespace), "nonsense")
        await redis.xadd("nonsense", {"clicks": "{"})
        await redis.xadd("nonsense", {"other": "1"})
        async with consumer(ready), shipper(ready, namespace) as tally:
            tally.record("after")
            await until_counted(store, Counter({"after": 1}))


async def test_a_millisecond_that_lasts_does_not_run_out_of_numbers(store: Store, ready: Settings) -> None:
    """Clicks are still counted when the clock of Redis has gone back so far that stream ids run out."""
    namespace = store.shards.topology.cluster_id
    future = 1 << 42
    async with Redis.from_url(ready.redis_url.get_secret_value()) as redis:
        await redis.set(name_key(namespace), "late")
        await redis.xadd("late", {"clicks": "{}"}, id=f"{future}-{(1 << 20) - 3}")
        expected: Counter[str] = Counter()
        async with consumer(ready):
            for _ in range(4):
                async with shipper(ready, namespace) as tally:
                    tally.record("late")
                    expected["late"] += 1
            await until_counted(store, expected)


async def test_sources_are_bounded_while_redis_is_away(ready: Settings) -> None:
    """While Redis is down, sealed and current click sources share one bound; clicks are counted beyond it."""
    away = ready.model_copy(
        update={"redis_url": SecretStr("redis://127.0.0.1:1/0"), "click_sources_max": 5, "click_flush_ms": 5}
    )
    dropped = CLICK_SOURCES_DROPPED._value.get()
    async with shipper(away, "nowhere") as tally:
        for referrer in ("in.the.entry.in.flight", "sealed", "open"):
            tally.record("a", said(referrer))  # referrer, device, system, browser, channel
            await until(lambda: not len(tally))
        await until(lambda: CLICK_SOURCES_DROPPED._value.get() == dropped + 5)
        tally.record("a", said("open"))
        await until(lambda: CLICKS_HELD._value.get() == 4)


@pytest.mark.parametrize(
    ("recorded", "report"),
    [(["a"], "1 click is lost"), (["a", "b", "a"], "3 clicks are lost"), ([], "")],
)
async def test_clicks_that_are_lost_at_a_shutdown_are_all_reported(
    ready: Settings, caplog: pytest.LogCaptureFixture, recorded: list[str], report: str
) -> None:
    """A worker that stops while Redis is down reports every click that it loses: those of the entry that it was
    sending, sealed ones and the latest."""
    away = ready.model_copy(
        update={"redis_url": SecretStr("redis://127.0.0.1:1/0"), "click_flush_ms": 5, "click_codes_max": 100}
    )
    async with shipper(away, "nowhere") as tally:
        for code in recorded[:2]:
            tally.record(code)
            await until(lambda: not len(tally))  # in the entry in flight, then sealed
        for code in recorded[2:]:
            tally.record(code)
    lost = [record.getMessage() for record in caplog.records if " lost: " in record.getMessage()]
    assert [message.partition(":")[0] for message in lost] == [report] * bool(report)


async def test_a_consumer_of_its_own_serves_its_metrics(ready: Settings) -> None:
    """With `--metrics-port` a consumer's lag and deliveries can be scraped; a port in use is a one-line error."""
    port = free_port(set())
    words = ("snapurl", "clicks", "--metrics-port", str(port))
    process = await start(*words, env=environ(ready))
    try:
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client, asyncio.timeout(HANG_S):
            text = ""
            while "snapurl_click_lag_seconds" not in text:
                await asyncio.sleep(0.05)
                with contextlib.suppress(httpx.TransportError):
                    text = (await client.get("/metrics")).text
        second = await start(*words, env=environ(ready), stderr=PIPE)
        _, said = await asyncio.wait_for(second.communicate(), HANG_S)
        assert second.returncode == 2
        assert said.decode().startswith(f"snapurl: cannot serve metrics on 127.0.0.1:{port}: ")
        assert said.count(b"\n") == 1
    finally:
        process.terminate()
        await process.wait()


async def test_clicks_are_counted_though_redis_is_full(store: Store, ready: Settings) -> None:
    """A consumer that starts while Redis is full still empties the stream."""
    expected = Counter(dict.fromkeys(CODES, 3))
    namespace = store.shards.topology.cluster_id
    redis = redis_client(ready)
    async with shipper(ready, namespace) as tally:
        for code in expected.elements():
            tally.record(code)
    try:
        await redis.config_set("maxmemory", 1)
        with pytest.raises(OutOfMemoryError):
            await redis.set("x", "y")
        async with consumer(ready):
            await until_counted(store, expected)
            stream: Any = await redis.get(name_key(namespace))
            await until_it_is(0, lambda: redis.xlen(stream))
    finally:
        await redis.config_set("maxmemory", 0)
        await redis.aclose()


async def test_the_health_check_asks_the_consumer_itself(store: Store, ready: Settings) -> None:
    """The health check fails if no consumer runs or one is frozen, although Redis and the shards are healthy."""
    key = alive_key(store.shards.topology.cluster_id, socket.gethostname())
    none = "no click consumer has been at work on this host for some seconds"
    async with redis_client(ready) as redis:
        await redis.delete(key)
        assert await consumer_fault(ready) == none
        async with consumer(ready) as process:
            await until_it_is(None, lambda: consumer_fault(ready))
            assert 10_000 < await redis.pttl(key) <= 15_000
            process.send_signal(signal.SIGSTOP)
            await redis.pexpire(key, 1)
            await until_it_is(none, lambda: consumer_fault(ready))
            process.send_signal(signal.SIGCONT)
            await until_it_is(None, lambda: consumer_fault(ready))
