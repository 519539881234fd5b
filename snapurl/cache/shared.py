"""L2: the links that all workers cache in Redis. A failure of Redis is a miss, never an error.

Links cannot fill the Redis that has the clicks: large ones are left out, and none is added while Redis uses more
than `bytes_max` or half of its maxmemory (`lua/put.lua`). What expires makes room. A change of a link that is left
out leaves its version in Redis, so no slow reader can put an older value back.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib.resources import files

from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.cache.codec import decode, encode, encode_invalidation, fits
from snapurl.model import CachedLink
from snapurl.telemetry.metrics import CACHE_LEFT_OUT, REDIS_FAILURES, REDIS_SECONDS, timed, timing
from snapurl.telemetry.traces import REDIS, span

# A changed link must outlive any read that began before the change (pool wait, two statements, a hand-off).
CHANGED_AGE_S_MIN = 30
# After a failure Redis is not called for this long, so that a dead one does not cost a time-out per request.
DOWN_S = 0.5
SCAN_COUNT = 1_000

_GET_SECONDS = timing(REDIS_SECONDS, "get")
_PUT_SECONDS = timing(REDIS_SECONDS, "put")
_CHANGED_SECONDS = timing(REDIS_SECONDS, "changed")
_LARGE = CACHE_LEFT_OUT.labels("large")
_FULL = CACHE_LEFT_OUT.labels("full")


def _script(name: str) -> str:
    lua = files("snapurl.cache") / "lua"
    return "".join((lua / f"{part}.lua").read_text(encoding="utf-8") for part in ("version", name))


_PUT, _CREATED = _script("put"), _script("created")


class SharedCache:
    """code -> link in Redis, with an invalidation on a channel for each change.

    `bytes_max` is the memory of the whole Redis up to which links are added.
    """

    def __init__(
        self,
        redis: Redis,
        namespace: str,
        max_age_s: int,
        miss_max_age_s: int,
        bytes_max: int,
        clock: Callable[[], float],
    ) -> None:
        self._redis = redis
        self._prefix = f"snapurl:{namespace}:link:"
        self.channel = f"snapurl:{namespace}:changed"
        self._max_age_s = max_age_s
        self._miss_max_age_s = miss_max_age_s
        self._bytes_max = bytes_max
        self._clock = clock
        self._down_until = 0.0
        self._put = redis.register_script(_PUT)
        self._created = redis.register_script(_CREATED)

    async def get_many(self, codes: Sequence[str]) -> Sequence[CachedLink | None]:
        """Returns per code the link, MISSING if it is cached that there is none, or None to ask the shard."""
        if self._clock() < self._down_until:
            return (None,) * len(codes)
        try:
            with timed(_GET_SECONDS), span("redis get", "client", REDIS):
                found = await self._redis.mget([self._prefix + code for code in codes])
        except (RedisError, OSError, TimeoutError):
            self._failed("get")
            return (None,) * len(codes)
        return [_decoded(text) for text in found]

    async def put_many(self, links: Mapping[str, CachedLink]) -> None:
        """Writes links that were read from shards, except where Redis has the same or a newer version."""
        if self._clock() < self._down_until:
            return
        values = {self._prefix + code: encode(link) for code, link in links.items() if fits(link)}
        _LARGE.inc(len(links) - len(values))
        if not values:
            return
        head = (self._max_age_s * 1000, self._miss_max_age_s * 1000, self._bytes_max, 0)
        try:
            with timed(_PUT_SECONDS), span("redis put", "client", REDIS):
                _FULL.inc(int(await self._put(list(values), (*head, *values.values()))))
        except (RedisError, OSError, TimeoutError):
            self._failed("put")

    async def changed(self, code: str, version: int, link: CachedLink | None = None) -> bool:
        """Publishes the invalidation of a changed link, and writes the link, or its version alone without `link`.

        Returns whether Redis took both.
        """
        value = encode(link) if link is not None and fits(link) else str(version)
        if self._clock() < self._down_until:
            return False
        try:
            with timed(_CHANGED_SECONDS), span("redis changed", "client", REDIS):
                async with self._redis.pipeline(transaction=False) as pipe:
                    # EVAL, not EVALSHA: for that a pipeline would first ask Redis whether the script is loaded.
                    age_ms = self._changed_age_ms
                    pipe.eval(_PUT, 1, self._prefix + code, age_ms, age_ms, self._bytes_max, 1, value)
                    pipe.publish(self.channel, encode_invalidation(version, [code]))
                    left_out, _ = await pipe.execute()
            _FULL.inc(int(left_out))
        except (RedisError, OSError, TimeoutError):
            self._failed("changed")
            return False
        return True

    async def created(self, codes: Sequence[str]) -> bool:
        """As `changed` without a link, for links that were just created, in one round trip."""
        if self._clock() < self._down_until:
            return False
        arguments = (self._prefix, self._changed_age_ms, self.channel, encode_invalidation(1, codes))
        try:
            with timed(_CHANGED_SECONDS), span("redis changed", "client", REDIS):
                await self._created(args=arguments)
        except (RedisError, OSError, TimeoutError):
            self._failed("changed")
            return False
        return True

    @property
    def _changed_age_ms(self) -> int:
        return max(self._max_age_s, CHANGED_AGE_S_MIN) * 1000

    async def clear(self) -> bool:
        """Deletes every link. Returns whether Redis did."""
        try:
            async for key in self._redis.scan_iter(match=self._prefix + "*", count=SCAN_COUNT):
                await self._redis.unlink(key)
        except (RedisError, OSError, TimeoutError):
            self._failed("clear")
            return False
        return True

    def _failed(self, what: str) -> None:
        self._down_until = self._clock() + DOWN_S
        REDIS_FAILURES.labels(what).inc()


def _decoded(found: str | bytes | None) -> CachedLink | None:
    try:
        return decode(found if isinstance(found, str) else found.decode()) if found else None
    except ValueError:
        REDIS_FAILURES.labels("decode").inc()
        return None
