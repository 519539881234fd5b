"""Visitors in Redis: an estimate per link and day, which never costs a click."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from redis.asyncio import Redis

from snapurl.clicks import shipper as module
from snapurl.clicks.shipper import Shipper
from snapurl.clicks.stream import name_key, salt_key, visitors_key
from snapurl.clicks.tally import Tally
from snapurl.config import Settings
from snapurl.redis_client import redis_client
from snapurl.telemetry.metrics import (
    CLICK_VISITORS_BYTES,
    CLICK_VISITORS_BYTES_MAX,
    CLICK_VISITORS_LEFT_OUT,
)
from tests.integration.store.conftest import ready
from tests.support.clicks import classifier, said
from tests.support.waits import until

__all__ = ["ready"]

NOW = datetime(2026, 11, 28, 19, 30, tzinfo=UTC)
SALT = b"a salt of 16 byt"  # else the error of the estimate would be another each time
VISITORS = 10_000


@pytest.fixture
async def redis(ready: Settings) -> AsyncIterator[Redis]:
    async with redis_client(ready) as client:
        yield client


@pytest.fixture
async def namespace(redis: Redis) -> str:
    """Returns a namespace that no other test uses, with the salt of the day."""
    unique = uuid.uuid4().hex
    await redis.set(salt_key(unique, NOW.date()), SALT)
    return unique


@asynccontextmanager
async def worker(settings: Settings, namespace: str, now: datetime = NOW) -> AsyncIterator[Tally]:
    """Yields a tally, which is shipped at the end of the block."""
    tally = Tally(settings.click_codes_max)
    async with redis_client(settings) as redis:
        made = Shipper(settings, namespace, tally, classifier(), redis, lambda: now)
        yield tally
        await made.start()
        await until(lambda: not made.held)
        await made.stop()


def address(number: int) -> str:
    return f"10.0.{number >> 8}.{number & 255}"


async def test_visitors_are_estimated_per_link_and_day(ready: Settings, redis: Redis, namespace: str) -> None:
    """10,000 visitors of two workers are counted within 3 %, each once; bots, those who refuse it and clicks
    without an address are none. Redis forgets them after three days."""
    async with AsyncExitStack() as stack:
        tallies = [await stack.enter_async_context(worker(ready, namespace)) for _ in range(2)]
        for number in range(VISITORS):
            tallies[number % 2].record("a", said(), address(number))
            if number % 4 == 0:
                tallies[1].record("a", said("x.example"), address(number))
        tallies[0].record("b", said(refuses=True), address(1))
        tallies[0].record("b", said("", b"Googlebot/2.1"), address(1))
        tallies[0].record("b", said())
    key = visitors_key(namespace, NOW.date(), "a")
    assert abs(await redis.pfcount(key) - VISITORS) <= 0.03 * VISITORS
    assert await redis.exists(visitors_key(namespace, NOW.date(), "b")) == 0
    assert 0 < await redis.ttl(key) <= 3 * 86_400
    memory = int((await redis.info("memory"))["maxmemory"])
    bound = min(module.VISITORS_BYTES_MAX, memory // 8 or module.VISITORS_BYTES_MAX)
    assert await redis.strlen(key) < CLICK_VISITORS_BYTES._value.get() < bound
    assert CLICK_VISITORS_BYTES_MAX._value.get() == bound


async def test_the_salt_of_a_day_is_random_and_goes(ready: Settings, redis: Redis, namespace: str) -> None:
    """The first worker of a day makes a salt that all others use, and that is gone after two days."""
    later = NOW.replace(day=29)
    for _ in range(2):
        async with worker(ready, namespace, later) as tally:
            tally.record("a", said(), address(1))
    assert await redis.pfcount(visitors_key(namespace, date(2026, 11, 29), "a")) == 1
    key = salt_key(namespace, later.date())
    salt = await redis.get(key)
    assert isinstance(salt, bytes) and len(salt) == 16 and salt != SALT
    assert 0 < await redis.ttl(key) <= 2 * 86_400


async def test_visitors_give_way_and_clicks_count(
    ready: Settings, redis: Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond their share of Redis, and where it cannot take them, visitors are left out; their clicks are not."""
    left_out = CLICK_VISITORS_LEFT_OUT._value.get()
    monkeypatch.setattr(module, "VISITORS_BYTES_MAX", 1)
    for code in ("a", "b"):
        async with worker(ready, namespace) as tally:
            tally.record(code, said(), address(1))
    assert CLICK_VISITORS_LEFT_OUT._value.get() == left_out + 1
    assert await redis.pfcount(visitors_key(namespace, NOW.date(), "a")) == 1
    assert await redis.exists(visitors_key(namespace, NOW.date(), "b")) == 0
    monkeypatch.undo()
    await redis.lpush(visitors_key(namespace, NOW.date(), "c"), "no visitors")
    async with worker(ready, namespace) as tally:
        tally.record("c", said(), address(1))
    stream = await redis.get(name_key(namespace))
    assert stream is not None and await redis.xlen(stream) == 3


async def test_a_worker_without_clicks_does_not_look_for_them(ready: Settings, namespace: str) -> None:
    """Between two clicks nothing runs, and the next one is shipped, in the hour in which it was counted."""
    looks = 0
    hour = NOW

    def now() -> datetime:
        nonlocal looks
        looks += 1
        return hour

    tally = Tally(10)
    settings = ready.model_copy(update={"click_flush_ms": 10})
    async with redis_client(settings) as redis:
        made = Shipper(settings, namespace, tally, classifier(), redis, now)
        await made.start()
        for _ in range(2):
            tally.record("a", said())
            await until(lambda: not made.held)
            seen = looks
            hour += timedelta(hours=1)
            await asyncio.sleep(0.2)
            assert looks == seen
        await made.stop()
        (stream,) = [key async for key in redis.scan_iter(match=f"*{namespace}*", _type="stream")]
        entries: Any = await redis.xrange(stream)
    shipped = [json.loads(fields[b"clicks"]) for _, fields in entries]
    assert shipped == [{"2026-11-28T19": {"a": 1}}, {"2026-11-28T20": {"a": 1}}]
