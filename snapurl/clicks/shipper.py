"""Sends a worker's clicks to the stream in Redis, in the background and each exactly once.

Every `click_flush_ms` the tally is sealed under the current UTC day and sent as numbered stream entries. The worker
repeats an entry until Redis confirms it; a script in Redis adds each number only once. A `kill -9` loses the clicks
since the last confirmed flush: normally those of `click_flush_ms`, and all held ones while Redis is down.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from datetime import date, datetime
from importlib.resources import files
from itertools import islice

from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.clicks.stream import (
    encode_entry,
    encode_sources,
    encoded_bytes_max,
    name_key,
    stream_name,
    worker_key,
)
from snapurl.clicks.tally import Sources, Tally
from snapurl.config import Settings
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import endless_task
from snapurl.telemetry.metrics import (
    CLICK_SOURCES_DROPPED,
    CLICKS_DROPPED,
    CLICKS_HELD,
    CLICKS_SHIPPED,
    REDIS_FAILURES,
    REDIS_SECONDS,
    timed,
    timing,
)
from snapurl.telemetry.traces import REDIS, span

log = logging.getLogger("snapurl.clicks")

CODES_PER_ENTRY = 2_000
ENTRY_BYTES_MAX = 262_144  # clicks and sources of an entry together; the codes beyond it go into the next one
STOP_S_MAX = 1.2  # part of the time that a worker has for its shutdown
RETRY_S = 0.1

_SHIP_SECONDS = timing(REDIS_SECONDS, "ship")
_SHIP = (files("snapurl.clicks") / "lua" / "ship.lua").read_text(encoding="utf-8")


class Shipper:
    """Ships the clicks of `tally`. `now` returns the time in UTC: a click belongs to the day of its flush."""

    def __init__(
        self, settings: Settings, namespace: str, tally: Tally, redis: Redis, now: Callable[[], datetime]
    ) -> None:
        self._tally = tally
        self._now = now
        self._flush_s = settings.click_flush_ms / 1000
        self._codes_max = settings.click_codes_max
        self._sources_max = settings.click_sources_max
        self._entries_max = settings.click_stream_entries_max
        self._worker = uuid.uuid4().hex
        self._keys = [name_key(namespace), worker_key(namespace, self._worker)]
        self._new_stream = stream_name(namespace, uuid.uuid4().hex)
        self._script = redis.register_script(_SHIP)
        self._sealed: deque[tuple[date, dict[str, int], dict[str, Sources]]] = deque()
        self._entry: tuple[str, str, int] | None = (
            None  # the one being sent: clicks, sources, and how many clicks
        )
        self._number = 0
        self._day = now().date()
        self._dropped_counted = 0
        self._sources_dropped_counted = 0
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False

    async def start(self) -> None:
        log.debug("click entries of this worker are named %s", self._worker)
        self._task = endless_task(self._run, "shipper")

    async def stop(self) -> None:
        """Ships what is left, for at most STOP_S_MAX."""
        await cancel_and_wait(self._task)
        try:
            async with asyncio.timeout(STOP_S_MAX):
                while not await self._flush():  # noqa: ASYNC110  # each iteration is an attempt, not a poll
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            if lost := self.held:
                clicks = "1 click is" if lost == 1 else f"{lost:,} clicks are"
                log.error("%s lost: Redis did not confirm them before the shutdown", clicks)

    @property
    def held(self) -> int:
        """How many clicks Redis has not confirmed yet, those in the tally included."""
        sealed = sum(sum(counts.values()) for _, counts, _ in self._sealed)
        return sealed + (self._entry[2] if self._entry else 0) + self._tally.clicks

    @property
    def shipment(self) -> str:
        """The id of the entry being sent; the stream entry carries it too."""
        return f"{self._worker}:{self._number}"

    async def _run(self) -> None:
        while True:
            await asyncio.sleep(self._flush_s)
            try:
                await self._flush()
            except Exception:  # the worker goes on counting, whatever fails here
                log.exception("shipping clicks failed")

    async def _flush(self) -> bool:
        """Seals the tally and ships it. Returns whether nothing is left. While Redis is down one tally grows, not
        a queue."""
        today = self._now().date()
        if not (self._tally or self._sealed or self._entry):
            self._day = today
            return True
        if not self._sealed or today != self._day:
            sources = self._tally.sources()
            if counts := self._tally.take():
                self._sealed.append((self._day, counts, sources))
            self._day = today
        done = await self._ship()
        held = sum(
            len(values) for _, _, sources in self._sealed for found in sources.values() for values in found
        )
        self._tally.sources_budget = max(0, self._sources_max - held)
        self._tally.codes_budget = max(0, self._codes_max - sum(len(counts) for _, counts, _ in self._sealed))
        CLICKS_HELD.set(self.held)
        CLICKS_DROPPED.inc(self._tally.dropped - self._dropped_counted)
        self._dropped_counted = self._tally.dropped
        CLICK_SOURCES_DROPPED.inc(self._tally.sources_dropped - self._sources_dropped_counted)
        self._sources_dropped_counted = self._tally.sources_dropped
        return done and not len(self._tally)

    async def _ship(self) -> bool:
        while self._entry is not None or self._next_entry():
            assert self._entry is not None
            payload, sources, clicks = self._entry
            try:
                with timed(_SHIP_SECONDS), span("redis ship", "client", REDIS):
                    answer = await self._script(
                        keys=self._keys,
                        args=[
                            self._new_stream,
                            self._number,
                            self._entries_max,
                            payload,
                            sources,
                            self.shipment,
                        ],
                    )
            except (RedisError, OSError, TimeoutError) as error:
                REDIS_FAILURES.labels("ship").inc()
                return self._log_failure(f"Redis does not accept clicks ({type(error).__name__})")
            if answer == b"full":
                return self._log_failure("the click stream is full")
            self._entry = None
            CLICKS_SHIPPED.inc(clicks)
        if self._is_failing:
            log.warning("Redis accepts clicks again")
        self._is_failing = False
        return True

    def _log_failure(self, what: str) -> bool:
        if not self._is_failing:
            held = "%s; they are held, up to %d codes"
            log.warning(held, what, self._codes_max, extra={"shipment": self.shipment})
        self._is_failing = True
        return False

    def _next_entry(self) -> bool:
        if not self._sealed:
            return False
        day, counts, sources = self._sealed[0]
        codes = codes_of_entry(counts, sources)
        part = {code: counts.pop(code) for code in codes}
        if not counts:
            self._sealed.popleft()
        self._number += 1
        of_part = {code: sources.pop(code) for code in codes if code in sources}
        self._entry = (encode_entry(day, part), encode_sources(day, of_part), sum(part.values()))
        return True


def codes_of_entry(counts: Mapping[str, int], sources: Mapping[str, Sources]) -> list[str]:
    """Returns the first codes of `counts` that fit into one entry, at least one.

    A code has at most VALUES_MAX values of a kind, so that a single one always fits.
    """
    found: list[str] = []
    size = 0
    for code in islice(counts, CODES_PER_ENTRY):
        size += encoded_bytes_max(code, sources.get(code))
        if found and size > ENTRY_BYTES_MAX:
            break
        found.append(code)
    return found
