"""Sends a worker's clicks to the stream in Redis, in the background and each exactly once.

Every `click_flush_ms` the clicks of the tally are classified and added to the counts of the current UTC hour,
which are sent as numbered stream entries. The worker repeats an entry until Redis confirms it; a script in Redis
adds each number only once. A `kill -9` loses the clicks since the last confirmed flush: normally those of
`click_flush_ms`, and all held ones while Redis is down.

What requests said is gone after the flush that classifies it, whether Redis is there or not. Classifying yields to
the event loop every SLICE_S.

The visitors of an entry go with it into a HyperLogLog per link and day, as digests with a random salt per day that
all workers share. They are an estimate, and give way first: an entry that Redis takes without them has been sent.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from importlib.resources import files
from itertools import islice
from time import monotonic

from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.clicks.classifier import VISITOR_BYTES, Classifier
from snapurl.clicks.counts import NOTHING, Counts, LeftOut
from snapurl.clicks.stream import (
    encode_counts,
    encode_sources,
    encoded_bytes_max,
    name_key,
    salt_key,
    stream_name,
    visitors_bytes_key,
    visitors_key,
    worker_key,
)
from snapurl.clicks.tally import Click, Tally
from snapurl.config import Settings
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import endless_task
from snapurl.telemetry.metrics import (
    CLICK_SOURCES_DROPPED,
    CLICK_VALUES_CAPPED,
    CLICK_VISITORS_BYTES,
    CLICK_VISITORS_BYTES_MAX,
    CLICK_VISITORS_LEFT_OUT,
    CLICKS_DROPPED,
    CLICKS_HELD,
    CLICKS_SHIPPED,
    CLICKS_UNREAD,
    CLICKS_UNSAID,
    REDIS_FAILURES,
    REDIS_SECONDS,
    timed,
    timing,
)
from snapurl.telemetry.traces import REDIS, span

log = logging.getLogger("snapurl.clicks")

CODES_PER_ENTRY = 2_000
ENTRY_BYTES_MAX = 262_144  # of an entry with its visitors; the codes beyond it go into the next one
STOP_S_MAX = 1.2  # part of the time that a worker has for its shutdown
RETRY_S = 0.1
SLICE_S = 0.002  # of classifying, before other work on the event loop has its turn
CLICKS_PER_CHECK = 16  # between two looks at the clock
VISITORS_HELD_MAX = 50_000  # until Redis confirms them: about 5 MB; further ones are left out
VISITORS_BYTES_MAX = 268_435_456  # of Redis, at most an eighth of its maxmemory; beyond it they are left out
VISITORS_DAYS = 4  # on which visitors of one day may be in Redis
VISITORS_S = 3 * 86_400  # how long Redis keeps the visitors of a day
SALT_S = 2 * 86_400
SALT_BYTES = 16

_SHIP_SECONDS = timing(REDIS_SECONDS, "ship")
_SHIP = (files("snapurl.clicks") / "lua" / "ship.lua").read_text(encoding="utf-8")


@dataclass(frozen=True, slots=True)
class StreamEntry:
    """A stream entry, the visitors that go with it (code -> digests, one after the other), how many clicks it
    has."""

    day: date
    fields: tuple[bytes, bytes, bytes]  # clicks, bots, sources
    visitors: Mapping[str, bytes]
    clicks: int


class Shipper:
    """Ships the clicks of `tally`. `now` returns the time in UTC: a click belongs to its hour, within one flush."""

    def __init__(
        self,
        settings: Settings,
        namespace: str,
        tally: Tally,
        classifier: Classifier,
        redis: Redis,
        now: Callable[[], datetime],
    ) -> None:
        self._tally = tally
        self._classifier = classifier
        self._now = now
        self._flush_s = settings.click_flush_ms / 1000
        self._codes_max = settings.click_codes_max
        self._values_max = settings.click_sources_max
        self._entries_max = settings.click_stream_entries_max
        self._namespace = namespace
        self._worker = uuid.uuid4().hex
        self._new_stream = stream_name(namespace, uuid.uuid4().hex)
        self._redis = redis
        self._script = redis.register_script(_SHIP)
        self._taken: dict[Click, int] = {}  # from the tally, not yet classified
        self._left_out = LeftOut()
        self._open = self._empty()
        self._sealed: deque[tuple[datetime, Counts]] = deque()
        self._entry: StreamEntry | None = None  # the one being sent
        self._number = 0
        self._hour = _hour_of(now())  # of the clicks that are not sealed
        self._filled = asyncio.Event()
        tally.on_first = self._begin
        self._salt = b""
        self._salt_day: date | None = None
        self._dropped_counted = 0
        self._unsaid_counted = 0
        self._unread_counted = {"user_agent": 0, "place": 0}
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
        counted = sum(
            sum(counts.clicks.values()) for counts in (self._open, *(held for _, held in self._sealed))
        )
        return (
            counted
            + (self._entry.clicks if self._entry else 0)
            + sum(self._taken.values())
            + self._tally.clicks
        )

    @property
    def _is_empty(self) -> bool:
        return not (self._tally or self._taken or self._open.clicks or self._sealed or self._entry)

    @property
    def shipment(self) -> str:
        """The id of the entry being sent; the stream entry carries it too."""
        return f"{self._worker}:{self._number}"

    def _begin(self) -> None:
        """Notes that the tally has its first click."""
        if not (self._taken or self._open.clicks):
            self._hour = _hour_of(self._now())
        self._filled.set()

    async def _run(self) -> None:
        while True:
            if self._is_empty:
                self._filled.clear()
                await self._filled.wait()
            await asyncio.sleep(self._flush_s)
            try:
                await self._flush()
            except Exception:  # the worker goes on counting, whatever fails here
                log.exception("shipping clicks failed")

    async def _flush(self) -> bool:
        """Classifies what the tally has and ships it. Returns whether nothing is left.

        While Redis is down the counts of an hour grow, not a queue.
        """
        if self._is_empty:
            return True
        hour = _hour_of(self._now())
        await self._classify()
        if not self._sealed or hour != self._hour:
            if self._open.clicks:
                self._sealed.append((self._hour, self._open))
                self._open = self._empty()
            self._hour = hour
        await self._ship()
        self._measure()
        return self._is_empty

    async def _classify(self) -> None:
        """Adds what the tally has to the counts of the hour. If it is cancelled, the next call goes on."""
        self._taken = self._taken or self._tally.take()
        salt = await self._salt_of(self._hour.date())
        self._classifier.renew()
        self._make_room()
        while True:
            until_s = monotonic() + SLICE_S
            self._classify_until(until_s, salt)
            if not self._taken:
                return
            await asyncio.sleep(0)

    def _classify_until(self, until_s: float, salt: bytes) -> None:
        while self._taken and monotonic() < until_s:
            for _ in range(min(CLICKS_PER_CHECK, len(self._taken))):
                click, count = self._taken.popitem()
                try:
                    classes = self._classifier.of(click, salt)
                except Exception:  # a click counts whatever becomes of its classes
                    log.exception("a click counts without its classes")
                    classes = NOTHING
                self._open.add(click[0], count, classes)

    def _empty(self) -> Counts:
        return Counts(self._codes_max, self._values_max, VISITORS_HELD_MAX, self._left_out)

    def _make_room(self) -> None:
        """Leaves the open counts what the sealed ones do not take."""
        sealed = [counts for _, counts in self._sealed]
        self._open.codes_room = self._codes_max - sum(len(counts.clicks) for counts in sealed)
        self._open.values_room = self._values_max - sum(counts.values_held for counts in sealed)
        self._open.visitors_room = VISITORS_HELD_MAX - sum(counts.visitors_held for counts in sealed)

    async def _salt_of(self, day: date) -> bytes:
        """Returns the salt of a day, which the first worker of the day makes; an empty one if Redis has none."""
        if self._salt_day == day:
            return self._salt
        if self._is_failing or not self._values_max:
            return b""
        key = salt_key(self._namespace, day)
        try:
            await self._redis.set(key, secrets.token_bytes(SALT_BYTES), nx=True, ex=SALT_S)
            salt = await self._redis.get(key)
        except (RedisError, OSError, TimeoutError):
            REDIS_FAILURES.labels("salt").inc()
            return b""
        if not isinstance(salt, bytes) or not salt:
            return b""
        self._salt, self._salt_day = salt, day
        return salt

    def _measure(self) -> None:
        """Counts what was left out since the last call."""
        CLICKS_HELD.set(self.held)
        out = self._left_out.take()
        dropped, self._dropped_counted = self._dropped_counted, self._tally.dropped
        CLICKS_DROPPED.inc(self._tally.dropped - dropped + out.clicks)
        CLICK_SOURCES_DROPPED.inc(out.values)
        CLICK_VISITORS_LEFT_OUT.inc(out.visitors)
        for kind, clicks in out.capped.items():
            CLICK_VALUES_CAPPED.labels(kind).inc(clicks)
        unsaid, self._unsaid_counted = self._unsaid_counted, self._tally.unsaid
        CLICKS_UNSAID.inc(self._tally.unsaid - unsaid)
        for what, count in self._classifier.unread.items():
            CLICKS_UNREAD.labels(what).inc(count - self._unread_counted[what])
            self._unread_counted[what] = count

    async def _ship(self) -> None:
        """Ships what is sealed, until Redis does not take it."""
        while self._entry is not None or self._next_entry():
            assert self._entry is not None
            try:
                with timed(_SHIP_SECONDS), span("redis ship", "client", REDIS):
                    answer, *visitors = await self._send(self._entry)
            except (RedisError, OSError, TimeoutError) as error:
                REDIS_FAILURES.labels("ship").inc()
                self._log_failure(f"Redis does not accept clicks ({type(error).__name__})")
                return
            if answer == b"full":
                self._log_failure("the click stream is full")
                return
            if self._entry.visitors and answer == b"added":
                used, limit, left_out = visitors
                CLICK_VISITORS_BYTES.set(used)
                CLICK_VISITORS_BYTES_MAX.set(limit)
                CLICK_VISITORS_LEFT_OUT.inc(left_out)
            CLICKS_SHIPPED.inc(self._entry.clicks)
            self._entry = None
        if self._is_failing:
            log.warning("Redis accepts clicks again")
        self._is_failing = False

    def _log_failure(self, what: str) -> None:
        if not self._is_failing:
            held = "%s; they are held, up to %d codes"
            log.warning(held, what, self._codes_max, extra={"shipment": self.shipment})
        self._is_failing = True

    async def _send(self, entry: StreamEntry) -> tuple[bytes, int, int, int]:
        """Returns what became of the entry, the bytes that visitors take in Redis and may take, how many found no
        room."""
        names = [name_key(self._namespace), worker_key(self._namespace, self._worker)]
        days = [entry.day - timedelta(days=days) for days in range(VISITORS_DAYS)]
        keys = [
            *names,
            *(visitors_bytes_key(self._namespace, day) for day in days),
            *(visitors_key(self._namespace, entry.day, code) for code in entry.visitors),
        ]
        head = (self._new_stream, self._number, self._entries_max, *entry.fields, self.shipment)
        bounds = (VISITORS_S, VISITORS_BYTES_MAX)
        answer, used, limit, left_out = await self._script(
            keys=keys, args=[*head, *bounds, *entry.visitors.values()]
        )
        return answer, int(used), int(limit), int(left_out)

    def _next_entry(self) -> bool:
        if not self._sealed:
            return False
        hour, counts = self._sealed[0]
        part = counts.pop(codes_of_entry(counts))
        if not counts.clicks:
            self._sealed.popleft()
        self._number += 1
        self._entry = StreamEntry(
            hour.date(),
            (
                encode_counts(hour, part.clicks),
                encode_counts(hour, part.bots),
                encode_sources(hour, part.sources),
            ),
            {code: b"".join(digests) for code, digests in part.visitors.items()},
            sum(part.clicks.values()),
        )
        return True


def _hour_of(time: datetime) -> datetime:
    return time.replace(minute=0, second=0, microsecond=0)


def codes_of_entry(counts: Counts) -> list[str]:
    """Returns the first codes of `counts` that fit into one entry, at least one.

    The values of a code are bounded (`model.VALUES_MAX`), so that a single one always fits.
    """
    found: list[str] = []
    size = 0
    for code in islice(counts.clicks, CODES_PER_ENTRY):
        size += encoded_bytes_max(code, counts.sources.get(code))
        size += VISITOR_BYTES * len(counts.visitors.get(code, ()))
        if found and size > ENTRY_BYTES_MAX:
            break
        found.append(code)
    return found
