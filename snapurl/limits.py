"""Rate limits: a sliding window per bucket and client, in Redis, shared by all workers.

While Redis does not answer, each worker counts in its own memory, so a limit may be exceeded by the number of
workers. Redis is tried again after RETRY_S: requests in between do not wait for it. Requests pass until the failure
is noticed: limits protect the service, they are not access control.
"""

from __future__ import annotations

import ipaddress
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

from snapurl.config import Settings
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
MEMORY_BUCKETS_MAX = 100_000  # when reached, the fallback in memory is emptied
BLOCKED_MAX = 100_000  # addresses; beyond it the one that was blocked first is unblocked
ADDRESSES_CACHED = 4_096  # parsed client addresses; the least recently used is evicted

UNLIMITED = "none"
_LIMIT_SECONDS = timing(REDIS_SECONDS, "limit")


@dataclass(frozen=True, slots=True)
class Verdict:
    """The state of a limit: `remaining` of `limit` hits per `window_s`; the window ends in `reset_s` seconds."""

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

    async def hit(self, bucket: str, client: str, rate: str, cost: int = 1) -> Verdict | None:
        """Counts `cost` hits of `client`, all or none. Returns None if `rate` is "none". Never raises."""
        if rate == UNLIMITED:
            return None
        item = _parsed(rate)
        if self._clock_s() >= self._redis_down_until_s:
            try:
                with timed(_LIMIT_SECONDS), span("redis limit", "client", REDIS):
                    return await self._hit(self._shared, item, bucket, client, cost)
            except (RedisError, OSError, TimeoutError) as error:
                self._redis_down_until_s = self._clock_s() + RETRY_S
                REDIS_FAILURES.labels("limit").inc()
                log.warning("limits are counted per worker while Redis is down: %s", type(error).__name__)
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
        return Verdict(allowed, item.amount, max(0, int(stats.remaining)), wait_s, window_s)

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
def _parsed(rate: str) -> RateLimitItem:
    return parse_rate(rate)


def hits_max(rate: str) -> int:
    """Returns how many hits of a rate other than "none" are allowed at once."""
    return _parsed(rate).amount


class Blocklist:
    """Addresses that are blocked for a while. A check costs nothing while there are none. No I/O."""

    def __init__(self, clock_s: Callable[[], float] = time.monotonic) -> None:
        self._clock_s = clock_s
        self._until_s: OrderedDict[str, float] = OrderedDict()
        self._last_s = 0.0

    def __bool__(self) -> bool:
        """Whether any address is blocked. Empties the table once the last block has expired."""
        if self._until_s and self._last_s <= self._clock_s():
            self._until_s.clear()
        return bool(self._until_s)

    def block(self, address: str, seconds: float) -> None:
        """Blocks `address` for `seconds` from now."""
        self._until_s[address] = until_s = self._clock_s() + seconds
        self._last_s = max(self._last_s, until_s)
        self._until_s.move_to_end(address)
        while len(self._until_s) > BLOCKED_MAX:
            self._until_s.popitem(last=False)

    def seconds_left(self, address: str) -> float:
        """Returns for how many seconds `address` is still blocked; 0.0 if it is not."""
        until_s = self._until_s.get(address)
        if until_s is None:
            return 0.0
        left_s = until_s - self._clock_s()
        if left_s <= 0:
            del self._until_s[address]
            return 0.0
        return left_s


def client_address(peer: str, forwarded: str | None, proxies_count: int) -> str:
    """Returns the client that a request is counted against: an IPv4 address, or the /64 of an IPv6 address.

    `forwarded` is the complete X-Forwarded-For header. Each trusted proxy appends the address of its peer, so the
    client is the `proxies_count`-th from the end. Anything before it can be forged.
    """
    address = peer
    if proxies_count and forwarded:
        hops = [hop.strip() for hop in forwarded.split(",")]
        if len(hops) >= proxies_count:
            address = hops[-proxies_count]
    return _network(address) or _network(peer) or peer


@lru_cache(maxsize=ADDRESSES_CACHED)
def _network(text: str) -> str | None:
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address):
        if address.ipv4_mapped is not None:
            return str(address.ipv4_mapped)
        return str(ipaddress.IPv6Network((address, 64), strict=False))
    return str(address)
