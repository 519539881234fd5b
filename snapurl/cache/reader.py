"""Links through the caches: L1 in this worker, L2 in Redis, then the shard that owns the slot.

Theory: why an old value cannot come back. Each link has a version that grows with every change and travels with
it, and everything here goes by versions, never by order of arrival.

- L2 takes a value only if its version is higher than the one it has. A change leaves its new value (for a delete:
  a tombstone) there for longer than any reader can take that began before it, so a slow reader's put fails.
- L1 hears of a change by its code and version and drops what is older. If the link is just being loaded, the
  version is noted on the load: an older result is loaded again, and is never kept.
- A worker that does not hear the news keeps nothing in L1. What it was loading when it lost them, or before they
  came back, is not kept either (`generation`).
- A change that Redis did not take (it is down) is remembered, and told as soon as it is back; if too many are
  waiting, L2 is emptied instead. Only if the worker itself dies in between can L2 hold an old value, and then no
  longer than `l2_max_age_s`, and L1 a copy of that for `l1_max_age_s`: that sum is the stated cache age. Nothing
  else rests on these ages, so they may be long: what is loaded again at its age is loaded for nothing.

One load per code goes on at a time, and whoever asks meanwhile waits for it; a client that goes away takes nothing
from the others. Redis is asked one question at a time, for all the links that have come to be wanted since the one
before: under load, many redirects share the cost of a round trip, and of those to the shards, which are asked for
what Redis does not have at once (`store/reads.py`). So in company a question waits for others, for GATHER_S; a link
that is wanted alone is asked for at once. Nobody waits for Redis to keep what a shard has said, nor for longer than
PATIENCE_S for its answer: while its disk is slow it answers nobody, and shards read from memory.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from redis.asyncio import Redis

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
    L1_LINKS,
    REDIS_FAILURES,
    REDIS_UP,
)

log = logging.getLogger("snapurl.cache")

RELOADS_MAX = 3  # of a link that changes while it is being loaded
QUESTION_LINKS_MAX = 500  # that Redis is asked for at once, or told; the others are in the next question
GATHER_S = 0.001  # for which a question waits in company; the loop makes up to twice as much of it
COMPANY = 4  # links being loaded, from which on questions wait for others
COMPANY_S = 0.02  # for which they do after that
ENOUGH = 16  # links, for which a question need not wait
KEPT_MAX = 5_000  # links that wait for Redis to keep them; beyond it the next one is not kept
KEEP_S = 0.01  # for which links that are to be kept wait for others
PATIENCE_S = 0.05  # then the shard is asked
PENDING_MAX = 10_000  # changes that wait for Redis; beyond it L2 is emptied when Redis is back
PENDING_RETRY_S = 0.25

FROM_L1 = CACHE_ANSWERS.labels("l1")
_FROM_L2 = CACHE_ANSWERS.labels("l2")
_FROM_SHARD = CACHE_ANSWERS.labels("shard")
_NOWHERE = CACHE_ANSWERS.labels("none")
_FAILED = CACHE_ANSWERS.labels("failed")


@dataclass(slots=True)
class _Load:
    """A load under way: what those who asked wait for, the newest version announced meanwhile, the L1 generation
    in which it began, and how often the shard was asked."""

    done: asyncio.Future[CachedLink]
    generation: int
    newest: int = 0
    reads: int = 0


class LinkCache:
    """The links that this worker redirects. `find` reads a link strictly at its owner, or finds MISSING."""

    def __init__(
        self,
        settings: Settings,
        namespace: str,
        find: Callable[[str], asyncio.Future[CachedLink]],
        redis: Redis,
        clock: Callable[[], float],
    ) -> None:
        self._find = find
        self._local = LocalCache(settings.l1_links, settings.l1_max_age_s, settings.miss_max_age_s, clock)
        self._shared = SharedCache(redis, namespace, settings.l2_max_age_s, settings.miss_max_age_s, clock)
        self._feed = InvalidationFeed(
            redis,
            self._shared.channel,
            changed=self._heard,
            gained=self._local.enable,
            lost=self._local.disable,
        )
        self._loads: dict[str, _Load] = {}
        self._wanted: deque[str] = deque()
        self._asking: asyncio.Task[None] | None = None
        self._to_keep: dict[str, CachedLink] = {}
        self._keeping: asyncio.Task[None] | None = None
        self._reads: set[asyncio.Task[Any]] = set()
        self._clock = clock
        self._company_until = 0.0
        self._untold: dict[str, CachedLink] = {}
        self._too_many_untold = False
        self._teller: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Begins to listen for changes; L1 works from when the subscription stands."""
        await self._feed.start()

    async def stop(self) -> None:
        await self._feed.stop()
        await cancel_and_wait(self._teller, self._asking, self._keeping, *self._reads)
        for load in self._loads.values():
            load.done.cancel()

    @property
    def is_subscribed(self) -> bool:
        """Whether this worker is told of changes, and so may use L1."""
        return self._feed.is_alive

    def peek(self, code: str) -> CachedLink | None:
        """The link if this worker has it; says nothing about what Redis or the shards have."""
        found = self._local.get(code)
        return None if found is None or found.is_missing else found

    def entry(self, code: str) -> Entry | None:
        """As `peek`, with what was made of the link, and also if it is known that there is none."""
        return self._local.entry(code)

    async def resolve(self, code: str) -> CachedLink | None:
        """The link, also when it is expired or deleted; None if there is none.

        Raises Unavailable when no cache has it and its shard does not answer.
        """
        found = self._local.get(code)
        if found is None:
            found = await asyncio.shield(self.look_up(code))
        else:
            FROM_L1.inc()
        return None if found.is_missing else found

    def look_up(self, code: str) -> asyncio.Future[CachedLink]:
        """What `resolve` waits for if L1 has nothing; others wait for it too, so it must not be cancelled."""
        return (self._loads.get(code) or self._begin(code)).done

    async def changed(self, link: Link) -> None:
        """To be called after a commit: from here on no worker answers with what was before it."""
        cached = CachedLink.from_link(link)
        self._heard(link.code, cached.version)
        self._local.put(link.code, cached, self._local.generation)
        if link.code in self._untold or not await self._shared.changed(link.code, cached):
            self._tell_later(link.code, cached)

    def measure(self) -> None:
        """Sets the gauges."""
        L1_LINKS.set(len(self._local))
        REDIS_UP.labels("worker").set(self.is_subscribed)

    # -- loads -----------------------------------------------------------------------------------------------

    def _begin(self, code: str) -> _Load:
        load = _Load(asyncio.get_running_loop().create_future(), self._local.generation)
        load.done.add_done_callback(_seen)
        self._loads[code] = load
        self._wanted.append(code)
        if self._asking is None or self._asking.done():
            self._asking = detached_task(self._ask(), "questions to L2")
        return load

    async def _ask(self) -> None:
        while self._wanted:
            if len(self._wanted) < ENOUGH and self._is_in_company():
                await asyncio.sleep(GATHER_S)
            codes = [self._wanted.popleft() for _ in range(min(len(self._wanted), QUESTION_LINKS_MAX))]
            for code, found in zip(codes, await self._answers(codes), strict=True):
                self._answered(code, found)

    def _is_in_company(self) -> bool:
        """Whether many links are wanted, or were a moment ago: who is answered together comes back together."""
        now = self._clock()
        if len(self._loads) >= COMPANY:
            self._company_until = now + COMPANY_S
        return now < self._company_until

    async def _answers(self, codes: list[str]) -> Sequence[CachedLink | None]:
        question = asyncio.create_task(self._shared.get_many(codes), name="question to L2")
        self._reads.add(question)  # it ends by itself, in the time that any call of Redis has
        question.add_done_callback(self._reads.discard)
        try:
            async with asyncio.timeout(PATIENCE_S):
                return await asyncio.shield(question)
        except TimeoutError:
            REDIS_FAILURES.labels("patience").inc()
        except Exception:  # a bug; those who wait get their links from the shards
            log.exception("Redis was not asked")
        return (None,) * len(codes)

    def _answered(self, code: str, found: CachedLink | None) -> None:
        load = self._loads[code]
        if found is not None and found.version >= load.newest:
            _FROM_L2.inc()
            self._finish(code, load, found)
            return
        self._read(code, load)

    def _read(self, code: str, load: _Load) -> None:
        load.reads += 1
        self._find(code).add_done_callback(partial(self._was_read, code, load))

    def _was_read(self, code: str, load: _Load, answer: asyncio.Future[CachedLink]) -> None:
        if answer.cancelled() or load.done.done():  # it is the end: nobody waits
            return
        if (error := answer.exception()) is not None:
            _FAILED.inc()
            del self._loads[code]
            load.done.set_exception(error)
            return
        found = answer.result()
        if found.version < load.newest and load.reads < RELOADS_MAX:
            self._read(code, load)
            return
        (_NOWHERE if found.is_missing else _FROM_SHARD).inc()
        self._finish(code, load, found)
        self._keep(code, found)

    def _keep(self, code: str, found: CachedLink) -> None:
        """Has Redis keep a link, in a moment and with others."""
        if len(self._to_keep) < KEPT_MAX:
            self._to_keep[code] = found
        if self._keeping is None or self._keeping.done():
            self._keeping = detached_task(self._keep_all(), "links for L2")

    async def _keep_all(self) -> None:
        while self._to_keep:
            await asyncio.sleep(KEEP_S)
            codes = list(itertools.islice(self._to_keep, QUESTION_LINKS_MAX))
            await self._shared.put_many({code: self._to_keep.pop(code) for code in codes})

    def _finish(self, code: str, load: _Load, found: CachedLink) -> None:
        del self._loads[code]
        if found.version >= load.newest:
            self._local.put(code, found, load.generation)
        load.done.set_result(found)

    def _heard(self, code: str, version: int) -> None:
        self._local.drop(code, version)
        load = self._loads.get(code)
        if load is not None:
            load.newest = max(load.newest, version)

    # -- changes that Redis did not take ---------------------------------------------------------------------

    def _tell_later(self, code: str, link: CachedLink) -> None:
        known = self._untold.get(code)
        if known is None or known.version < link.version:
            self._untold[code] = link
        if len(self._untold) > PENDING_MAX:
            self._untold.clear()
            self._too_many_untold = True
        CACHE_INVALIDATIONS_PENDING.set(len(self._untold))
        if self._teller is None or self._teller.done():
            self._teller = detached_task(self._tell(), "untold changes")

    async def _tell(self) -> None:
        while self._untold or self._too_many_untold:
            await asyncio.sleep(PENDING_RETRY_S)
            if self._too_many_untold and not await self._shared.clear():
                continue
            self._too_many_untold = False
            for code, link in list(self._untold.items()):
                if not await self._shared.changed(code, link):
                    break
                if self._untold.get(code) is link:
                    del self._untold[code]
            CACHE_INVALIDATIONS_PENDING.set(len(self._untold))


def _seen(done: asyncio.Future[CachedLink]) -> None:
    """An error is everybody's who waits; if all of them have gone away, nobody's."""
    if not done.cancelled():
        done.exception()
