"""Takes clicks from the stream in Redis to the shards, each of them exactly once.

Theory. The stream keeps every entry that may not be counted yet. Each slot has a cursor beside its counts, which
says up to which entry they include the stream; counts and cursor are written in one transaction and move
together. So an entry that is delivered again is skipped by whichever shard it reaches, and all that this module
has to see to is order:

- within a slot, entries are delivered in ascending order, all that are here at once. Rows that a shard did not take
  (it is down, or the slot is in hand-off) stay in front of the later rows of that slot; other slots go on.
- an entry is trimmed from the stream only when all rows up to and including it have been taken.

A consumer that dies forgets all it had read, and the next one reads the stream from its beginning. Two at once do
the same work twice and count it once. The lease in Redis only avoids that waste, so it may rest on a clock.

A Redis that has lost its data gives the stream a new name, and the new one has cursors of its own; rows of the old
one that are here already go on under the old name (a `_Lane` each).
"""

from __future__ import annotations

import asyncio
import logging
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from importlib.resources import files
from typing import Any

import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError, ResponseError

from snapurl.clicks.stream import (
    SHIPMENT_FIELD,
    alive_key,
    decode_entry,
    entry_id_of,
    entry_place,
    lease_key,
    name_key,
)
from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.model import ClickRow
from snapurl.redis_client import is_full, redis_client, redis_fault
from snapurl.store.clicks import ClickStore
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry import logs, traces
from snapurl.telemetry.metrics import (
    CLICK_BACKLOG_ROWS,
    CLICK_CONSUMER_WORKING,
    CLICK_ENTRIES_MALFORMED,
    CLICK_LAG_SECONDS,
    CLICK_STREAM_ENTRIES,
    CLICKS_APPLIED,
    REDIS_FAILURES,
    REDIS_UP,
    serve_metrics,
)
from snapurl.telemetry.process import ProcessMetrics

log = logging.getLogger("snapurl.clicks")

ENTRIES_PER_READ = 500
ROWS_PER_APPLY = 5_000
BACKLOG_ROWS_MAX = 200_000  # then reading stops until shards take some
IDLE_S = 0.05
CLICKS_MANY = (
    500  # at a time; then it pays to wait, since the clicks of a link within GATHER_S are written as one
)
GATHER_S = 2.0
RETRY_S = 0.25  # for slots that were not taken, and after a failure of Redis
LEASE_MS = 3_000
LEASE_RENEW_S = 1.0
ALIVE_MS = 15_000  # for which it counts as alive; longer than a round with silent shards takes
SHIPMENTS_NAMED = 5  # in one line
MEASURE_S = 1.0  # between looks at how late it is
WAIT_TOLD_S = 5.0  # for which rows may wait for their shards, as in a hand-off, before that is said

_RENEW = (files("snapurl.clicks") / "lua" / "lease.lua").read_text(encoding="utf-8")


@dataclass(slots=True)
class _Lane:
    """One stream: how far it has been read, and the rows that no shard has taken yet, by slot in order."""

    stream: str
    read_to: int = -1
    waiting: dict[int, list[ClickRow]] = field(default_factory=dict)
    shipments: dict[int, str] = field(default_factory=dict)  # entry -> what its worker calls it in its log
    rows: int = 0

    def add(self, rows: list[ClickRow]) -> None:
        for row in rows:
            self.waiting.setdefault(row.slot, []).append(row)
        self.rows += len(rows)

    def some(self, slots_held: set[int]) -> dict[int, list[ClickRow]]:
        """Rows to deliver next, by slot, all that wait for it and ascending; none of `slots_held`."""
        found: dict[int, list[ClickRow]] = {}
        count = 0
        for slot, rows in self.waiting.items():
            if slot not in slots_held:
                found[slot] = rows
                count += len(rows)
                if count >= ROWS_PER_APPLY:
                    break
        return found

    def taken(self, slots: set[int]) -> int:
        """Forgets all rows of `slots`, which have been delivered; how many clicks they were."""
        clicks = 0
        for slot in slots:
            rows = self.waiting.pop(slot)
            self.rows -= len(rows)
            clicks += sum(row.clicks for row in rows)
        return clicks

    def forget_done(self) -> None:
        """Lets go of the names of entries of which nothing is waiting."""
        done = self.done_to
        while self.shipments and (first := next(iter(self.shipments))) <= done:
            del self.shipments[first]

    @property
    def done_to(self) -> int:
        """The last entry of which, and of all before it, nothing is waiting."""
        return min((rows[0].entry - 1 for rows in self.waiting.values()), default=self.read_to)


class Consumer:
    """Runs until stopped. `clock` is monotonic."""

    def __init__(self, namespace: str, redis: Redis, clicks: ClickStore, clock: Callable[[], float]) -> None:
        self._redis = redis
        self._clicks = clicks
        self._clock = clock
        self._name_key = name_key(namespace)
        self._lease_key = lease_key(namespace)
        self._alive_key = alive_key(namespace, socket.gethostname())
        self._holder = uuid.uuid4().hex
        self._renew = redis.register_script(_RENEW)
        self._renewed_at = float("-inf")
        self._lanes: list[_Lane] = []
        self._held: set[int] = set()
        self._held_until = 0.0
        self._in_trouble = False
        self._measured_at = float("-inf")
        self._waits_since: float | None = None
        self._wait_told = False

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set: the batch in hand is finished, nothing else is begun."""
        while not stop.is_set():
            try:
                works = await self._has_lease()
                CLICK_CONSUMER_WORKING.set(works)
                pause_s = await self._work() if works else IDLE_S
                await self._measure()
                REDIS_UP.labels("clicks").set(1)
                self._trouble("")
            except (RedisError, OSError, TimeoutError) as error:
                REDIS_FAILURES.labels("consume").inc()
                REDIS_UP.labels("clicks").set(0)
                self._trouble(f"Redis {redis_fault(error)} ({type(error).__name__})")
                pause_s = RETRY_S
            if pause_s:
                await _wait(stop, pause_s)
        await self._give_up_lease()

    def _trouble(self, what: str) -> None:
        if bool(what) != self._in_trouble:
            log.warning("%s", what or "Redis answers again")
        self._in_trouble = bool(what)

    async def _work(self) -> float:
        """Reads, delivers and trims once; for how many seconds more clicks may gather before the next time."""
        lane = await self._current_lane()
        read = await self._read(lane) if lane is not None and lane.rows < BACKLOG_ROWS_MAX else 0
        if self._clock() >= self._held_until:
            self._held.clear()
        taken = 0
        for each in list(self._lanes):
            taken += await self._deliver(each)
            await self._trim(each)
            if each is not lane and not each.rows:
                self._lanes.remove(each)
        self._tell_of_waits()
        if read == ENTRIES_PER_READ or any(each.some(self._held) for each in self._lanes):
            return 0.0
        if taken >= CLICKS_MANY:
            return GATHER_S
        return 0.0 if read or taken else IDLE_S

    def _tell_of_waits(self) -> None:
        """Says once that rows wait for their shards, with the shipment to look for, and once that they do not."""
        if not self._held:
            if self._wait_told:
                log.warning("the shards take all clicks again")
            self._waits_since, self._wait_told = None, False
            return
        if self._waits_since is None:
            self._waits_since = self._clock()
        if not self._wait_told and self._clock() - self._waits_since > WAIT_TOLD_S:
            self._wait_told = True
            first = next((name for lane in self._lanes for name in lane.shipments.values()), "")
            told = "clicks of %d slots wait for their shards"
            log.warning(told, len(self._held), extra={"shipment": first})

    async def _current_lane(self) -> _Lane | None:
        name = await self._redis.get(self._name_key)
        if name is None:
            return None
        stream = name.decode() if isinstance(name, bytes) else name
        if not self._lanes or self._lanes[-1].stream != stream:
            self._lanes.append(_Lane(stream))
        return self._lanes[-1]

    async def _read(self, lane: _Lane) -> int:
        start = f"({entry_id_of(lane.read_to)}" if lane.read_to >= 0 else "-"
        entries: Any = await self._redis.xrange(lane.stream, start, "+", ENTRIES_PER_READ)
        for entry_id, fields in entries:
            shipment = fields.get(SHIPMENT_FIELD, b"").decode(errors="replace")
            named = {"shipment": shipment}
            try:
                lane.add(decode_entry(entry_id, fields))
            except (ValueError, KeyError, TypeError, AttributeError):
                CLICK_ENTRIES_MALFORMED.inc()
                unread = "entry %s of the click stream cannot be read; it is skipped"
                log.error(unread, entry_id.decode(), extra=named)
            lane.read_to = entry_place(entry_id)
            lane.shipments[lane.read_to] = shipment
            log.debug("read entry %s", entry_id.decode(), extra=named)
        return len(entries)

    async def _deliver(self, lane: _Lane) -> int:
        rows = lane.some(self._held)
        if not rows:
            return 0
        with traces.span("clicks", attributes={"snapurl.rows": sum(map(len, rows.values()))}):
            slots = await self._clicks.apply(lane.stream, rows)
        if refused := rows.keys() - slots:
            self._held |= refused
            self._held_until = self._clock() + RETRY_S
            late = {row.entry for slot in refused for row in rows[slot]}
            names = ",".join(lane.shipments.get(entry, "") for entry in sorted(late)[:SHIPMENTS_NAMED])
            log.debug("%d slots did not take their clicks", len(refused), extra={"shipment": names})
        clicks = lane.taken(slots)
        CLICKS_APPLIED.inc(clicks)
        return clicks

    async def _trim(self, lane: _Lane) -> None:
        lane.forget_done()
        if lane.done_to >= 0:
            await self._redis.xtrim(lane.stream, minid=entry_id_of(lane.done_to + 1), approximate=False)

    async def _measure(self) -> None:
        """How late it is, now and then; also while another consumer works, who may be stuck."""
        if self._clock() - self._measured_at < MEASURE_S:
            return
        self._measured_at = self._clock()
        await self._say_alive()
        CLICK_BACKLOG_ROWS.set(sum(each.rows for each in self._lanes))
        name: Any = await self._redis.get(self._name_key)
        if name is None:
            return
        first: Any = await self._redis.xrange(name, "-", "+", 1)
        CLICK_STREAM_ENTRIES.set(await self._redis.xlen(name))
        seconds, _ = await self._redis.time()
        CLICK_LAG_SECONDS.set(
            max(0.0, seconds - int(first[0][0].partition(b"-")[0]) / 1000) if first else 0.0
        )

    async def _say_alive(self) -> None:
        """For `snapurl health --clicks`."""
        if await self._redis.pexpire(self._alive_key, ALIVE_MS):
            return
        try:
            await self._redis.set(self._alive_key, "", px=ALIVE_MS)
        except ResponseError as error:
            if not is_full(error):
                raise

    # -- the lease -------------------------------------------------------------------------------------------

    async def _has_lease(self) -> bool:
        if self._clock() - self._renewed_at < LEASE_RENEW_S:
            return True
        try:
            held = await self._renew(keys=[self._lease_key], args=[self._holder, LEASE_MS])
        except ResponseError as error:
            if not is_full(error):
                raise
            held = True  # nobody can take one, and it stays full unless somebody empties the stream
        if held:
            self._renewed_at = self._clock()
            return True
        self._lanes.clear()  # another consumer trims the stream now: what is here may be old
        return False

    async def _give_up_lease(self) -> None:
        try:
            await self._renew(keys=[self._lease_key], args=[self._holder, 1])
        except (RedisError, OSError, TimeoutError):
            return


async def _wait(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), timeout_s)
    except TimeoutError:
        return


async def run(settings: Settings) -> None:
    """One consumer process, until SIGTERM or SIGINT. Raises ConfigError."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    shards = await Shards.connect(settings)
    router = Router(shards, settings.busy_wait_ms)
    redis = redis_client(settings)
    pulse = logs.detached_task(ProcessMetrics([partial(shards.measure, "clicks")]).run(), "pulse")
    try:
        consumer = Consumer(shards.topology.cluster_id, redis, ClickStore(shards, router), loop.time)
        await consumer.run(stop)
    finally:
        await cancel_and_wait(pulse)
        await redis.aclose()
        await shards.close()


def main(metrics_port: int = 0, metrics_host: str = "127.0.0.1") -> int:
    """`python -m snapurl.clicks`; returns the exit code. Port 0: its metrics are not served."""
    try:
        settings = load_settings()
        logs.configure(settings.log_level, settings.log_format)
        traces.configure("clicks")
        serve_metrics(metrics_port, metrics_host)
        uvloop.run(run(settings))
    except ConfigError as error:
        print(f"snapurl: {error.detail}", file=sys.stderr, flush=True)
        return 2
    finally:
        traces.shut_down()
    return 0
