"""Reads clicks from the stream in Redis and writes them to the shards, each exactly once.

Theory. The stream keeps every entry that may not be counted yet. Each slot has a cursor next to its counts: the
last entry that they include. Counts and cursor are written in one transaction and move together. So a shard skips
an entry that is delivered again, whichever shard that is. This module only has to keep the order:

- Within a slot, entries are delivered in ascending order, all that have been read at once. Rows that a shard
  refused (it is down, or the slot is in hand-off) stay in front of the later rows of that slot. Other slots go
  on.
- An entry is trimmed from the stream only when all rows up to and including it have been applied.

A consumer that dies loses what it has read; the next one reads the stream from its beginning. Two consumers at once
do the work twice and count it once. The lease in Redis only avoids that waste, so it may depend on a clock.

A Redis that has lost its data gives the stream a new name, and the new stream has its own cursors. Rows that were
already read from the old stream are delivered under the old name (one `_Stream` each).
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
from snapurl.store.cluster.dsn import plain_text_warning
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
)
from snapurl.telemetry.metrics_port import serving
from snapurl.telemetry.process import ProcessMetrics

log = logging.getLogger("snapurl.clicks")

ENTRIES_PER_READ = 500
ROWS_PER_APPLY = 5_000
BACKLOG_ROWS_MAX = 200_000  # then reading stops until shards apply some
IDLE_S = 0.05
CLICKS_MANY = (
    500  # per delivery; from here on the consumer waits GATHER_S, so that a link's clicks become one sum
)
GATHER_S = 2.0
RETRY_S = 0.25  # for slots whose shard refused them, and after a failure of Redis
LEASE_MS = 3_000
LEASE_RENEW_S = 1.0
ALIVE_MS = 15_000  # expiry of the heartbeat; longer than one iteration with silent shards takes
SHIPMENTS_NAMED = 5  # per log line
MEASURE_S = 1.0  # between updates of the lag metrics
STALL_LOG_S = 5.0  # rows may wait this long for their shards, as in a hand-off, before a line is logged

_RENEW = (files("snapurl.clicks") / "lua" / "lease.lua").read_text(encoding="utf-8")


@dataclass(slots=True)
class _Stream:
    """One stream: how far it has been read, and the rows not applied yet, by slot and in order."""

    name: str
    read_to: int = -1
    waiting: dict[int, list[ClickRow]] = field(default_factory=dict)
    shipments: dict[int, str] = field(default_factory=dict)  # entry -> its id in the log of its worker
    rows: int = 0

    def add(self, rows: list[ClickRow]) -> None:
        for row in rows:
            self.waiting.setdefault(row.slot, []).append(row)
        self.rows += len(rows)

    def next_batch(self, slots_held: set[int]) -> dict[int, list[ClickRow]]:
        """Returns the next rows to deliver, by slot: all pending rows of each, ascending. Leaves out
        `slots_held`."""
        found: dict[int, list[ClickRow]] = {}
        count = 0
        for slot, rows in self.waiting.items():
            if slot not in slots_held:
                found[slot] = rows
                count += len(rows)
                if count >= ROWS_PER_APPLY:
                    break
        return found

    def drop(self, slots: set[int]) -> int:
        """Drops the rows of `slots`, which have been applied. Returns how many clicks they held."""
        clicks = 0
        for slot in slots:
            rows = self.waiting.pop(slot)
            self.rows -= len(rows)
            clicks += sum(row.clicks for row in rows)
        return clicks

    def forget_applied(self) -> None:
        """Drops the shipment ids of entries that are fully applied."""
        done = self.applied_to
        while self.shipments and (first := next(iter(self.shipments))) <= done:
            del self.shipments[first]

    @property
    def applied_to(self) -> int:
        """The last entry up to which everything has been applied."""
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
        self._streams: list[_Stream] = []
        self._held: set[int] = set()
        self._held_until = 0.0
        self._is_failing = False
        self._measured_at = float("-inf")
        self._beaten_at = clock()
        self._stalled_since: float | None = None
        self._stall_logged = False

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. Finishes the current delivery and starts no further one."""
        while not stop.is_set():
            try:
                works = await self._has_lease()
                CLICK_CONSUMER_WORKING.set(works)
                pause_s = await self._work() if works else IDLE_S
                await self._measure()
                REDIS_UP.labels("clicks").set(1)
                self._log_failure("")
            except (RedisError, OSError, TimeoutError) as error:
                REDIS_FAILURES.labels("consume").inc()
                REDIS_UP.labels("clicks").set(0)
                self._log_failure(f"Redis {redis_fault(error)} ({type(error).__name__})")
                pause_s = RETRY_S
            if pause_s:
                await _wait(stop, pause_s)
        await self._give_up_lease()

    def fault(self) -> str | None:
        """Returns why this consumer does not work; None if it does, also on standby."""
        late = self._clock() - self._beaten_at > ALIVE_MS / 1000
        return "its last heartbeat was not taken by Redis, or is overdue" if late else None

    def _log_failure(self, what: str) -> None:
        if bool(what) != self._is_failing:
            log.warning("%s", what or "Redis answers again")
        self._is_failing = bool(what)

    async def _work(self) -> float:
        """Reads, delivers and trims once. Returns how many seconds to wait before the next time."""
        stream = await self._current_stream()
        read = await self._read(stream) if stream is not None and stream.rows < BACKLOG_ROWS_MAX else 0
        if self._clock() >= self._held_until:
            self._held.clear()
        applied = 0
        for each in list(self._streams):
            applied += await self._deliver(each)
            await self._trim(each)
            if each is not stream and not each.rows:
                self._streams.remove(each)
        self._log_stall()
        if read == ENTRIES_PER_READ or any(each.next_batch(self._held) for each in self._streams):
            return 0.0
        if applied >= CLICKS_MANY:
            return GATHER_S
        return 0.0 if read or applied else IDLE_S

    def _log_stall(self) -> None:
        """Logs once when rows wait for their shards, with a shipment to search for, and once when they no longer
        do."""
        if not self._held:
            if self._stall_logged:
                log.warning("the shards accept all clicks again")
            self._stalled_since, self._stall_logged = None, False
            return
        if self._stalled_since is None:
            self._stalled_since = self._clock()
        if not self._stall_logged and self._clock() - self._stalled_since > STALL_LOG_S:
            self._stall_logged = True
            first = next((name for stream in self._streams for name in stream.shipments.values()), "")
            waiting = "clicks of %d slots wait for their shards"
            log.warning(waiting, len(self._held), extra={"shipment": first})

    async def _current_stream(self) -> _Stream | None:
        stored = await self._redis.get(self._name_key)
        if stored is None:
            return None
        name = stored.decode() if isinstance(stored, bytes) else stored
        if not self._streams or self._streams[-1].name != name:
            self._streams.append(_Stream(name))
        return self._streams[-1]

    async def _read(self, stream: _Stream) -> int:
        start = f"({entry_id_of(stream.read_to)}" if stream.read_to >= 0 else "-"
        entries: Any = await self._redis.xrange(stream.name, start, "+", ENTRIES_PER_READ)
        for entry_id, fields in entries:
            shipment = fields.get(SHIPMENT_FIELD, b"").decode(errors="replace")
            named = {"shipment": shipment}
            try:
                stream.add(decode_entry(entry_id, fields))
            except (ValueError, KeyError, TypeError, AttributeError):
                CLICK_ENTRIES_MALFORMED.inc()
                unread = "entry %s of the click stream cannot be read; it is skipped"
                log.error(unread, entry_id.decode(), extra=named)
            stream.read_to = entry_place(entry_id)
            stream.shipments[stream.read_to] = shipment
            log.debug("read entry %s", entry_id.decode(), extra=named)
        return len(entries)

    async def _deliver(self, stream: _Stream) -> int:
        rows = stream.next_batch(self._held)
        if not rows:
            return 0
        with traces.span("clicks", attributes={"snapurl.rows": sum(map(len, rows.values()))}):
            slots = await self._clicks.apply(stream.name, rows)
        if refused := rows.keys() - slots:
            self._held |= refused
            self._held_until = self._clock() + RETRY_S
            late = {row.entry for slot in refused for row in rows[slot]}
            names = ",".join(stream.shipments.get(entry, "") for entry in sorted(late)[:SHIPMENTS_NAMED])
            log.debug("%d slots refused their clicks", len(refused), extra={"shipment": names})
        clicks = stream.drop(slots)
        CLICKS_APPLIED.inc(clicks)
        return clicks

    async def _trim(self, stream: _Stream) -> None:
        stream.forget_applied()
        if stream.applied_to >= 0:
            await self._redis.xtrim(stream.name, minid=entry_id_of(stream.applied_to + 1), approximate=False)

    async def _measure(self) -> None:
        """Updates the lag metrics every MEASURE_S, also on standby: the active consumer may be stuck."""
        if self._clock() - self._measured_at < MEASURE_S:
            return
        self._measured_at = self._clock()
        await self._beat()
        self._beaten_at = self._clock()
        CLICK_BACKLOG_ROWS.set(sum(each.rows for each in self._streams))
        name: Any = await self._redis.get(self._name_key)
        if name is None:
            return
        first: Any = await self._redis.xrange(name, "-", "+", 1)
        CLICK_STREAM_ENTRIES.set(await self._redis.xlen(name))
        seconds, _ = await self._redis.time()
        CLICK_LAG_SECONDS.set(
            max(0.0, seconds - int(first[0][0].partition(b"-")[0]) / 1000) if first else 0.0
        )

    async def _beat(self) -> None:
        """Renews the heartbeat that `snapurl health --clicks` reads."""
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
            held = True  # Redis is full: nobody can acquire the lease, and only a consumer can free memory
        if held:
            self._renewed_at = self._clock()
            return True
        self._streams.clear()  # another consumer trims the stream now, so what was read may be stale
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


async def run(settings: Settings, metrics_port: int, metrics_host: str) -> None:
    """Runs one consumer process until SIGTERM or SIGINT. Raises ConfigError."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()
    for signum in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(signum, stop.set)
    shards = await Shards.connect(settings)
    router = Router(shards, settings.busy_wait_ms)
    redis = redis_client(settings)
    process_metrics = logs.endless_task(
        ProcessMetrics([partial(shards.measure, "clicks")]).run, "process metrics"
    )
    try:
        consumer = Consumer(shards.topology.cluster_id, redis, ClickStore(shards, router), loop.time)
        async with serving(metrics_host, metrics_port, consumer.fault):
            await consumer.run(stop)
    finally:
        await cancel_and_wait(process_metrics)
        await redis.aclose()
        await shards.close()


def main(metrics_port: int = 0, metrics_host: str = "127.0.0.1") -> int:
    """Runs `python -m snapurl.clicks` and returns the exit code. With port 0 it serves no metrics."""
    try:
        settings = load_settings()
        logs.configure(settings.log_level, settings.log_format)
        if warning := plain_text_warning(settings):
            log.warning(warning)
        traces.configure("clicks")
        uvloop.run(run(settings, metrics_port, metrics_host))
    except ConfigError as error:
        print(f"snapurl: {error.detail}", file=sys.stderr, flush=True)
        return 2
    finally:
        traces.shut_down()
    return 0
