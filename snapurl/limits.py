"""Rate limits: a sliding window per bucket and client, in Redis, shared by all workers.

While Redis does not answer, each worker counts in its own memory, so a limit may be exceeded by the number of
workers. Redis is tried again after RETRY_S: requests in between do not wait for it. Requests pass until the failure
is noticed: limits protect the service, they are not access control.
"""

from __future__ import annotations

import logging
import math
import time
from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

from limits import RateLimitItem
from limits import parse as parse_rate
from limits.aio.storage import MemoryStorage, RedisStorage
from limits.aio.strategies import SlidingWindowCounterRateLimiter
from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.addresses import site_of
from snapurl.config import Settings
from snapurl.errors import Unavailable
from snapurl.redis_client import redis_fault, redis_pool
from snapurl.telemetry.metrics import (
    LIMIT_FALLBACKS,
    LIMIT_REFUSALS,
    REDIS_FAILURES,
    REDIS_SECONDS,
    timed,
    timing,
)
from snapurl.telemetry.traces import REDIS, span

log = logging.getLogger("snapurl.limits")

RETRY_S = 1.0
PROBE_KEY, PROBE_MS = "snapurl:probe", 1_000
ONCE_PREFIX = "snapurl:once:"
MEMORY_BUCKETS_MAX = 100_000  # when reached, the fallback in memory is emptied
BLOCKED_MAX = 100_000  # clients; beyond it the one that was blocked first is unblocked

SITE_FACTOR = 8  # the rate of an IPv6 /48 is this many times the rate of one client in it

UNLIMITED = "none"
_LIMIT_SECONDS = timing(REDIS_SECONDS, "limit")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a limit: `remaining` of `limit` hits per `window_s`; the window ends in `reset_s` seconds.

    `client` is the one that was counted, or its site if that is over the limit.
    """

    client: str
    allowed: bool
    limit: int
    remaining: int
    reset_s: int
    window_s: int


class Limiter:
    """Counts hits. `clock_s` is monotonic and only decides when Redis is tried again."""

    def __init__(self, settings: Settings, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._pool = redis_pool(settings)
        storage = RedisStorage(
            "async+redis://",  # selects the client; the pool has the address
            implementation="redispy",
            key_prefix="snapurl:limit",
            connection_pool=self._pool,  # type: ignore[arg-type]  # passed to redis-py unchanged
        )
        self._shared = SlidingWindowCounterRateLimiter(storage)
        self._local_storage = MemoryStorage()
        self._local = SlidingWindowCounterRateLimiter(self._local_storage)
        self._clock_s = clock_s
        self._redis_down_until_s = -math.inf
        self._is_failing = False

    async def hit(
        self, bucket: str, client: str, rate: str, cost: int = 1, *, factor: int = 1
    ) -> Verdict | None:
        """Counts `cost` hits of `client`, all or none, against `factor` times the rate.

        Hits of an IPv6 client that are allowed count against its site, too, at SITE_FACTOR times the rate. Returns
        None if `rate` is "none". Never raises.
        """
        if rate == UNLIMITED:
            return None
        verdict = await self._count(_parsed(rate, factor), bucket, client, cost)
        site = site_of(client)
        if site is None or not verdict.allowed:
            return verdict
        of_site = await self._count(_parsed(rate, factor * SITE_FACTOR), bucket, site, cost)
        return verdict if of_site.allowed else of_site

    async def is_first(self, name: str, within_s: int) -> bool:
        """Whether no call for `name`, on any worker, came in the `within_s` seconds before.

        Raises Unavailable while Redis does not answer: no worker alone can tell.
        """
        try:
            return bool(
                await Redis(connection_pool=self._pool).set(f"{ONCE_PREFIX}{name}", "", ex=within_s, nx=True)
            )
        except (RedisError, OSError, TimeoutError) as error:
            REDIS_FAILURES.labels("limit").inc()
            raise Unavailable(f"Redis {redis_fault(error)}") from None

    async def _count(self, item: RateLimitItem, bucket: str, client: str, cost: int) -> Verdict:
        """Counts in Redis, or in memory while Redis does not answer."""
        if self._clock_s() >= self._redis_down_until_s:
            try:
                with timed(_LIMIT_SECONDS), span("redis limit", "client", REDIS):
                    verdict = await self._hit(self._shared, item, bucket, client, cost)
            except (RedisError, OSError, TimeoutError) as error:
                self._redis_down_until_s = self._clock_s() + RETRY_S
                REDIS_FAILURES.labels("limit").inc()
                if not self._is_failing:
                    log.warning("Redis %s: limits are counted per worker", redis_fault(error))
                self._is_failing = True
            else:
                if self._is_failing:
                    log.info("Redis counts limits again")
                self._is_failing = False
                return verdict
        LIMIT_FALLBACKS.inc()
        if len(self._local_storage.storage) >= MEMORY_BUCKETS_MAX:
            await self._local_storage.reset()
        return await self._hit(self._local, item, bucket, client, cost)

    async def _hit(
        self,
        strategy: SlidingWindowCounterRateLimiter,
        item: RateLimitItem,
        bucket: str,
        client: str,
        cost: int,
    ) -> Verdict:
        allowed = await strategy.hit(item, bucket, client, cost=cost)
        stats = await strategy.get_window_stats(item, bucket, client)
        if not allowed:
            LIMIT_REFUSALS.labels(bucket).inc()
        window_s = item.get_expiry()
        wait_s = max(1, min(window_s, math.ceil(stats.reset_time - time.time())))
        return Verdict(client, allowed, item.amount, max(0, int(stats.remaining)), wait_s, window_s)

    async def redis_fault(self) -> str | None:
        """Returns why Redis does not accept writes, without an address or a secret; None if it does."""
        try:
            await Redis(connection_pool=self._pool).set(PROBE_KEY, "", px=PROBE_MS)
        except (RedisError, OSError, TimeoutError) as error:
            return redis_fault(error)
        return None

    async def close(self) -> None:
        await self._pool.disconnect()


@lru_cache(maxsize=256)
def _parsed(rate: str, factor: int) -> RateLimitItem:
    item = parse_rate(rate)
    return type(item)(item.amount * factor, item.multiples)


def hits_max(rate: str) -> int:
    """Returns how many hits of a rate other than "none" are allowed at once."""
    amount: int = _parsed(rate, 1).amount
    return amount


class Blocklist:
    """Clients and sites that are blocked for a while. A check costs nothing while there are none. No I/O."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._until_s: OrderedDict[str, float] = OrderedDict()
        self._last_s = 0.0

    def __bool__(self) -> bool:
        """Whether any client is blocked. Empties the table once the last block has expired."""
        if self._until_s and self._last_s <= self._clock_s():
            self._until_s.clear()
        return bool(self._until_s)

    def block(self, client: str, seconds: float) -> bool:
        """Blocks a client or site for `seconds` from now; returns whether it was not blocked before."""
        is_new = not self._left_s(client)
        self._until_s[client] = until_s = self._clock_s() + seconds
        self._last_s = max(self._last_s, until_s)
        self._until_s.move_to_end(client)
        while len(self._until_s) > BLOCKED_MAX:
            self._until_s.popitem(last=False)
        return is_new

    def seconds_left(self, client: str) -> float:
        """Returns for how many seconds `client` or its site is still blocked; 0.0 if neither is."""
        left_s = self._left_s(client)
        site = None if left_s else site_of(client)
        return left_s if site is None else self._left_s(site)

    def _left_s(self, name: str) -> float:
        until_s = self._until_s.get(name)
        if until_s is None:
            return 0.0
        left_s = until_s - self._clock_s()
        if left_s <= 0:
            del self._until_s[name]
            return 0.0
        return left_s
