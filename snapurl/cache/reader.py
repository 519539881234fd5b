"""Links through the caches: L1 in this worker, L2 in Redis, then the shard that owns the slot.

The way of a redirect that misses L1, in order:

1. `lookup` joins the load of the code that is in flight, or begins one. There is one load per code at a time.
   A client that goes away takes nothing from the others.
2. The batcher queries Redis for all codes that were requested since the query before (`_load_from_redis`).
   Under load a query lingers for LINGER_S: without it, links that only the shards have cost 1.28 times the CPU
   time, since the batches of the shards are those of Redis.
3. What Redis has is the answer. Every other link is read at its shard, batched again (`_load_from_shard`,
   `store/batching/reads.py`), and also every link that Redis has not returned within PATIENCE_S: while its disk
   is slow it answers nobody, and shards read from memory. If the shard fails, the late answer of Redis counts.
4. `_finish` puts the link into L1 and answers everybody who waits for the load.
5. `_write_later` adds what a shard has returned to the next write to L2. Nobody waits for it. A link with options
   is not written: only L1 and its shard have it.

Theory: why an old value cannot come back. Each link has a version that grows with every change and travels with
it, and everything here goes by versions, never by order of arrival.

- L2 takes a value only if its version is higher than the one it has. A change leaves its new value (for a
  delete: a tombstone) there for longer than any reader can take that began before it, so a slow reader's write
  fails.
- L1 is notified of a change by code and version and drops what is older. If the link is being loaded, the
  version is noted on the load: an older result is loaded again, and is never kept.
- A worker that has lost its subscription to the notifications keeps nothing in L1. What it was loading when it
  lost the subscription, or before it had a new one, is not kept either (`generation`).
- An invalidation that Redis did not take (it is down) stays pending and is sent as soon as Redis is back. If
  too many are pending, L2 is cleared instead. Only if the worker itself dies in between can L2 hold an old
  value, and then no longer than `l2_max_age_s`, and L1 a copy of that for `l1_max_age_s`: that sum is the
  stated cache age. Nothing else depends on these ages, so they may be long: a load that an expired age causes
  is wasted.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from redis.asyncio import Redis

from snapurl.batcher import Batcher, Pending
from snapurl.cache.invalidations import InvalidationFeed
from snapurl.cache.local import Entry, LocalCache
from snapurl.cache.shared import SharedCache
from snapurl.config import Settings
from snapurl.model import CachedLink, Link
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import detached_task
from snapurl.telemetry.metrics import (
    CACHE_ANSWERS,
    CACHE_INVALIDATIONS_PENDING,
    L1_BYTES,
    L1_LINKS,
    REDIS_FAILURES,
    REDIS_UP,
)

log = logging.getLogger("snapurl.cache")

LINKS_MAX = 500  # in one call of Redis
CREATED_MAX = 250  # new links in one call of Redis, which does nothing else meanwhile
LINGER_S = 0.001  # of a query under load; the event loop makes it up to twice as long
PATIENCE_S = 0.05  # for the answer of Redis; then the shards are queried
RELOADS_MAX = 3  # of a link that changes while it is being loaded
WRITES_MAX = 5_000  # links that wait to be written to L2; beyond it the next one is not written
WRITE_DELAY_S = 0.01  # in which more links join a write to L2
PENDING_MAX = 10_000  # invalidations that wait for Redis; beyond it L2 is cleared when Redis is back
PENDING_RETRY_S = 0.25

FROM_L1 = CACHE_ANSWERS.labels("l1")
_FROM_L2 = CACHE_ANSWERS.labels("l2")
_FROM_SHARD = CACHE_ANSWERS.labels("shard")
_NOWHERE = CACHE_ANSWERS.labels("none")
_FAILED = CACHE_ANSWERS.labels("failed")


@dataclass(slots=True)
class _Late:
    """What Redis answers of a load too late, and the error of the shard that was read instead."""

    has_come: bool = False
    link: CachedLink | None = None
    error: Exception | None = None


class _Load(Pending[CachedLink]):
    """A load in flight. `newest` is the highest version announced since it began, `generation` that of L1 then,
    `read` the task that reads the shard. Redis was in time while `late` is None."""

    __slots__ = ("code", "generation", "late", "newest", "read")

    def __init__(self, code: str, generation: int) -> None:
        super().__init__()
        self.code = code
        self.generation = generation
        self.newest = 0
        self.late: _Late | None = None
        self.read: asyncio.Task[None] | None = None


class LinkCache:
    """The links that this worker redirects. `find` reads a link at its owner, and returns MISSING without one."""

    def __init__(
        self,
        settings: Settings,
        namespace: str,
        find: Callable[[str], Awaitable[CachedLink]],
        redis: Redis,
        clock: Callable[[], float],
    ) -> None:
        self._find = find
        self._local = LocalCache(
            settings.l1_links, settings.l1_bytes, settings.l1_max_age_s, settings.miss_max_age_s, clock
        )
        self._shared = SharedCache(
            redis,
            namespace,
            settings.l2_max_age_s,
            settings.miss_max_age_s,
            settings.l2_bytes,
            clock,
        )
        self._feed = InvalidationFeed(
            redis,
            self._shared.channel,
            changed=self._invalidate,
            gained=self._local.enable,
            lost=self._local.disable,
        )
        self._loads: dict[str, _Load] = {}
        self._queries = Batcher[str, _Load](
            "query to Redis",
            self._load_from_redis,
            items_max=LINKS_MAX,
            patience_s=PATIENCE_S,
            linger_s=LINGER_S,
            unanswered=self._loads.__len__,
        )
        self._writes: dict[str, CachedLink] = {}
        self._writer: asyncio.Task[None] | None = None
        self._pending: dict[str, int] = {}
        self._pending_overflow = False
        self._notifier: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Subscribes to invalidations. L1 is in use once the subscription stands."""
        await self._feed.start()

    async def stop(self) -> None:
        await self._feed.stop()
        await self._queries.stop()
        reads = [load.read for load in self._loads.values()]
        await cancel_and_wait(self._notifier, self._writer, *reads)
        for load in self._loads.values():
            load.done.cancel()

    @property
    def is_subscribed(self) -> bool:
        """Whether this worker receives invalidations, and so may use L1."""
        return self._feed.is_alive

    def peek(self, code: str) -> CachedLink | None:
        """Returns the link if L1 has it, whatever Redis and the shards have."""
        found = self._local.get(code)
        return None if found is None or found.is_missing else found

    def entry(self, code: str) -> Entry | None:
        """Returns what L1 has of the code, also that there is no such link."""
        return self._local.entry(code)

    async def resolve(self, code: str) -> CachedLink | None:
        """Returns the link, also when it is expired or deleted; None if there is none.

        Raises Unavailable if no cache has it and its shard does not answer.
        """
        found = self._local.get(code)
        if found is None:
            found = await asyncio.shield(self.lookup(code))
        else:
            FROM_L1.inc()
        return None if found.is_missing else found

    def lookup(self, code: str) -> asyncio.Future[CachedLink]:
        """Returns the load of a code that L1 does not have. Others wait for it too, so it must not be cancelled."""
        return (self._loads.get(code) or self._begin(code)).done

    def forget(self, code: str, version: int) -> None:
        """Removes a link from L1 of which the shard has a newer version than `version`."""
        self._invalidate(code, version + 1)

    async def changed(self, link: Link) -> None:
        """Invalidates a link after a commit: at once in this L1, then in L2 and the L1 of all other workers."""
        cached = CachedLink.from_link(link)
        self._invalidate(link.code, cached.version)
        self._local.put(link.code, cached, self._local.generation)
        if link.code in self._pending or not await self._shared.changed(link.code, link.version, cached):
            self._notify_later(link.code, link.version)

    async def created(self, codes: Sequence[str]) -> None:
        """Invalidates that there were no links with these keys. None of them is put into a cache."""
        for first in range(0, len(codes), CREATED_MAX):
            some = codes[first : first + CREATED_MAX]
            for code in some:
                self._invalidate(code, 1)
            if not await self._shared.created(some):
                for code in some:
                    self._notify_later(code, 1)

    @property
    def l1_size(self) -> tuple[int, int]:
        """How many links L1 has, and their bytes."""
        return len(self._local), self._local.bytes

    def measure(self) -> None:
        """Sets the gauges."""
        L1_LINKS.set(len(self._local))
        L1_BYTES.set(self._local.bytes)
        REDIS_UP.labels("worker").set(self.is_subscribed)

    # -- loads -----------------------------------------------------------------------------------------------

    def _begin(self, code: str) -> _Load:
        load = _Load(code, self._local.generation)
        self._loads[code] = load
        self._queries.submit("Redis", load)
        return load

    async def _load_from_redis(self, _: str, loads: Sequence[_Load]) -> None:
        late = asyncio.get_running_loop().call_later(PATIENCE_S, self._redis_is_late, loads)
        try:
            found = await self._shared.get_many([load.code for load in loads])
        except Exception:  # a bug; the shards have the links
            log.exception("Redis was not queried")
            found = (None,) * len(loads)
        finally:
            late.cancel()
        for load, link in zip(loads, found, strict=True):
            if load.late is not None:
                load.late.has_come, load.late.link = True, link
                self._try_late(load)
            elif link is not None and link.version >= load.newest:
                _FROM_L2.inc()
                self._finish(load, link)
            else:
                self._read(load)

    def _redis_is_late(self, loads: Sequence[_Load]) -> None:
        REDIS_FAILURES.labels("patience").inc()
        for load in loads:
            load.late = _Late()
            self._read(load)

    def _try_late(self, load: _Load) -> None:
        """Finishes a load whose shard has failed once Redis has answered, too."""
        late = load.late
        if late is None or not late.has_come or late.error is None:
            return
        if late.link is not None and late.link.version >= load.newest:
            _FROM_L2.inc()
            self._finish(load, late.link)
        else:
            self._fail(load, late.error)

    def _read(self, load: _Load) -> None:
        load.read = asyncio.create_task(self._load_from_shard(load), name="load from a shard")

    async def _load_from_shard(self, load: _Load) -> None:
        try:
            for _ in range(RELOADS_MAX):
                link = await self._find(load.code)
                if link.version >= load.newest:
                    break
        except Exception as error:
            if load.late is None:
                self._fail(load, error)
            else:
                load.late.error = error
                self._try_late(load)
            return
        (_NOWHERE if link.is_missing else _FROM_SHARD).inc()
        self._finish(load, link)
        self._write_later(load.code, link)

    def _fail(self, load: _Load, error: Exception) -> None:
        _FAILED.inc()
        del self._loads[load.code]
        load.fail(error)

    def _finish(self, load: _Load, link: CachedLink) -> None:
        del self._loads[load.code]
        if link.version >= load.newest:
            self._local.put(load.code, link, load.generation)
        load.answer(link)

    def _write_later(self, code: str, link: CachedLink) -> None:
        """Adds a link that a shard has returned to the next write to L2, unless it has options."""
        if link.options is not None:
            return
        if len(self._writes) < WRITES_MAX:
            self._writes[code] = link
        if self._writer is None or self._writer.done():
            self._writer = detached_task(self._write(), "writes to L2")

    async def _write(self) -> None:
        while self._writes:
            await asyncio.sleep(WRITE_DELAY_S)
            codes = list(itertools.islice(self._writes, LINKS_MAX))
            await self._shared.put_many({code: self._writes.pop(code) for code in codes})

    def _invalidate(self, code: str, version: int) -> None:
        self._local.drop(code, version)
        load = self._loads.get(code)
        if load is not None:
            load.newest = max(load.newest, version)

    # -- invalidations that Redis did not take ---------------------------------------------------------------

    def _notify_later(self, code: str, version: int) -> None:
        self._pending[code] = max(version, self._pending.get(code, 0))
        if len(self._pending) > PENDING_MAX:
            self._pending.clear()
            self._pending_overflow = True
        CACHE_INVALIDATIONS_PENDING.set(len(self._pending))
        if self._notifier is None or self._notifier.done():
            self._notifier = detached_task(self._notify_pending(), "pending invalidations")

    async def _notify_pending(self) -> None:
        while self._pending or self._pending_overflow:
            await asyncio.sleep(PENDING_RETRY_S)
            if self._pending_overflow and not await self._shared.clear():
                continue
            self._pending_overflow = False
            for code, version in list(self._pending.items()):
                if not await self._shared.changed(code, version):
                    break
                if self._pending.get(code) == version:
                    del self._pending[code]
            CACHE_INVALIDATIONS_PENDING.set(len(self._pending))
