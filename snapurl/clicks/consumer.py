"""Reads clicks from the stream in Redis and writes them to the shards, each exactly once.

Theory. The stream keeps every entry that may not be counted yet. Each slot has a cursor next to its counts: the
last entry that they include. Counts and cursor are written in one transaction and move together. So a shard skips
an entry that is delivered again, whichever shard that is. This module only has to keep the order:

- Within a slot, entries are delivered in ascending order. Rows that a shard refused (it is down, or the slot is in
  hand-off) stay in front of the later rows of that slot. Other slots go on, and other shards do: each has a lane of
  its own (`lane.py`).
- An entry is trimmed from the stream only when all rows up to and including it have been applied.

A consumer that dies loses what it has read; the next one reads the stream from its beginning. Two consumers at once
do the work twice and count it once. The lease in Redis only avoids that waste, so it may depend on a clock.

A Redis that has lost its data gives the stream a new name, and the new stream has its own cursors. Rows that were
already read from the old stream are delivered under the old name (one `Backlog` each).

Nothing is polled while nothing happens: a blocking XREAD ends when there is an entry. Only the lease, the stream's
name and the heartbeat are looked after once a second.
"""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
import socket
import sys
import uuid
from collections.abc import Callable
from functools import partial
from importlib.resources import files
from typing import Any

import uvloop
from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.clicks.backlog import Backlog
from snapurl.clicks.folder import Folder, utc_today
from snapurl.clicks.lag import LUA, lag_of
from snapurl.clicks.lane import RETRY_S, Call, Lane
from snapurl.clicks.stream import (
    SHIPMENT_FIELD,
    alive_key,
    decode_entry,
    entry_id_of,
    entry_place,
    lease_key,
    name_key,
    stream_name,
)
from snapurl.clicks.visitors import VisitorReader
from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.model import Lag
from snapurl.redis_client import redis_client, redis_fault
from snapurl.store.clicks import ClickStore
from snapurl.store.cluster.dsn import plain_text_warning
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.folds import FoldStore
from snapurl.store.webhooks import WebhookStore
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry import logs, traces
from snapurl.telemetry.metrics import (
    CLICK_BACKLOG_ROWS,
    CLICK_CONSUMER_WORKING,
    CLICK_ENTRIES_MALFORMED,
    CLICK_LAG_SECONDS,
    CLICK_SOURCES_DROPPED,
    CLICK_STREAM_ENTRIES,
    REDIS_FAILURES,
    REDIS_UP,
)
from snapurl.telemetry.metrics_port import serving
from snapurl.telemetry.process import ProcessMetrics
from snapurl.webhooks.sender import make_sender

log = logging.getLogger("snapurl.clicks")

ENTRIES_PER_READ = 500
READ_BYTES_MAX = 4_194_304
BACKLOG_ROWS_MAX = 200_000  # then reading stops until shards apply some
BLOCK_S = 5.0  # of a read that waits for the next entry; then it is repeated
CLICKS_MANY = (
    500  # per read; from here on the consumer waits GATHER_S, so that a link's clicks become one sum
)
GATHER_S = 2.0
STANDBY_S = 0.25  # between two attempts to acquire the lease
LEASE_MS = 3_000
LEASE_RENEW_S = 1.0
ALIVE_MS = 15_000  # expiry of the heartbeat; longer than Redis may be slow
STALL_LOG_S = 5.0  # rows may wait this long for their shards, as in a hand-off, before a line is logged
# Python examines young objects for reference cycles when it has this many more; by default 700. Rows of clicks are
# many, live until they are counted, and are in no cycles.
YOUNG_OBJECTS = 200_000

_SCRIPTS = files("snapurl.clicks") / "lua"
_TEND = LUA + (_SCRIPTS / "tend.lua").read_text(encoding="utf-8")
_READ = (_SCRIPTS / "read.lua").read_text(encoding="utf-8")


class Consumer:
    """Runs until stopped. `blocking` is a client for one call that waits for BLOCK_S; `clock` is monotonic."""

    def __init__(
        self,
        namespace: str,
        redis: Redis,
        blocking: Redis,
        clicks: ClickStore,
        clock: Callable[[], float],
    ) -> None:
        self._namespace = namespace
        self._redis = redis
        self._blocking = blocking
        self._clicks = clicks
        self._clock = clock
        self._keys = [lease_key(namespace), name_key(namespace), alive_key(namespace, socket.gethostname())]
        self._holder = uuid.uuid4().hex
        self._tend_script = redis.register_script(_TEND)
        self._read_script = redis.register_script(_READ)
        self._visitors = VisitorReader(namespace, redis)
        self._renewed_at = float("-inf")
        self._backlogs: list[Backlog] = []  # the last one is of the current stream
        self._lanes: dict[str, Lane] = {}
        self._calls: dict[asyncio.Task[None], Call] = {}
        self._arrival: asyncio.Task[bool] | None = None  # ends when there is an entry to read
        self._has_more = True
        self._read_after = 0.0
        self._is_failing = False
        self._beaten_at = clock()
        self._stalled_since: float | None = None
        self._stall_logged = False

    async def run(self, stop: asyncio.Event) -> None:
        """Works until `stop` is set. Finishes the deliveries under way and starts no further one."""
        stopped = asyncio.create_task(stop.wait())
        try:
            while not stop.is_set():
                pause_s = await self._step_or_fail()
                events = [stopped, *self._calls, *filter(None, [self._arrival])]
                await asyncio.wait(events, timeout=pause_s, return_when=asyncio.FIRST_COMPLETED)
            await asyncio.gather(*self._calls)
        finally:
            await cancel_and_wait(stopped, self._arrival, *self._calls)
        await self._give_up_lease()

    def fault(self) -> str | None:
        """Returns why this consumer does not work; None if it does, also on standby."""
        late = self._clock() - self._beaten_at > ALIVE_MS / 1000
        return "its last heartbeat was not taken by Redis, or is overdue" if late else None

    @property
    def works(self) -> bool:
        """Whether it holds the lease; otherwise it stands by."""
        return self._clock() - self._renewed_at < LEASE_MS / 1000

    async def _step_or_fail(self) -> float:
        """Returns how many seconds to wait before the next step, unless something happens."""
        try:
            pause_s = await self._step()
            REDIS_UP.labels("clicks").set(1)
            self._log_failure("")
        except (RedisError, OSError, TimeoutError) as error:
            REDIS_FAILURES.labels("consume").inc()
            REDIS_UP.labels("clicks").set(0)
            self._log_failure(f"Redis {redis_fault(error)} ({type(error).__name__})")
            await asyncio.sleep(RETRY_S)
            return 0.0
        return pause_s

    def _log_failure(self, what: str) -> None:
        if bool(what) != self._is_failing:
            log.warning("%s", what or "Redis answers again")
        self._is_failing = bool(what)

    async def _step(self) -> float:
        self._finish_calls()
        works = await self._tend()
        CLICK_CONSUMER_WORKING.set(works)
        if not works:
            return STANDBY_S
        if self._backlogs:
            await self._read(self._backlogs[-1])
        self._start_calls()
        for backlog in self._backlogs:
            await self._trim(backlog)
        self._backlogs = [each for each in self._backlogs if each.rows or each is self._backlogs[-1]]
        self._log_stall()
        return self._pause_s()

    def _pause_s(self) -> float:
        """Returns how long nothing is to be done, unless a call ends or an entry arrives."""
        now = self._clock()
        pause_s = max(0.0, self._renewed_at + LEASE_RENEW_S - now)
        if self._has_more and self._backlogs and self._may_read(self._backlogs[-1]):
            pause_s = min(pause_s, max(0.0, self._read_after - now))
        is_stalled = not self._calls or any(lane.is_stalled for lane in self._lanes.values())
        if is_stalled and any(backlog.rows for backlog in self._backlogs):
            pause_s = min(pause_s, RETRY_S)
        return pause_s

    # -- reading ---------------------------------------------------------------------------------------------

    def _may_read(self, backlog: Backlog) -> bool:
        return backlog.rows < BACKLOG_ROWS_MAX

    async def _read(self, backlog: Backlog) -> None:
        """Reads entries if there are some and it is time for that, or begins to wait for the next one."""
        if self._arrival is not None and self._arrival.done():
            arrival, self._arrival = self._arrival, None
            self._has_more = arrival.result()
        if self._clock() < self._read_after or not self._may_read(backlog):
            return
        if self._has_more:
            clicks, self._has_more = await self._read_entries(backlog)
            if clicks >= CLICKS_MANY and not self._has_more:
                self._has_more = True
                self._read_after = self._clock() + GATHER_S
        if not self._has_more and self._arrival is None:
            self._arrival = asyncio.create_task(self._next_arrival(backlog), name="next click")

    async def _next_arrival(self, backlog: Backlog) -> bool:
        last = entry_id_of(max(0, backlog.read_to))
        found = await self._blocking.xread({backlog.name: last}, count=1, block=int(BLOCK_S * 1000))
        return bool(found)

    async def _read_entries(self, backlog: Backlog) -> tuple[int, bool]:
        """Reads the next entries. Returns the clicks in them, and whether there are more."""
        start = f"({entry_id_of(backlog.read_to)}" if backlog.read_to >= 0 else "-"
        answer: Any = await self._read_script(
            keys=[backlog.name], args=[start, ENTRIES_PER_READ, READ_BYTES_MAX]
        )
        entries, is_cut = answer
        clicks = 0
        for entry_id, parts in entries:
            fields = dict(zip(parts[::2], parts[1::2], strict=True))
            shipment = fields.get(SHIPMENT_FIELD, b"").decode(errors="replace")
            named = {"shipment": shipment}
            try:
                rows = decode_entry(entry_id, fields)
                clicks += sum(row.clicks for row in rows)
                CLICK_SOURCES_DROPPED.inc(backlog.add(rows))
            except (ValueError, KeyError, TypeError, AttributeError):
                CLICK_ENTRIES_MALFORMED.inc()
                unread = "entry %s of the click stream cannot be read; it is skipped"
                log.error(unread, entry_id.decode(), extra=named)
            backlog.read_to = entry_place(entry_id)
            backlog.shipments[backlog.read_to] = shipment
            log.debug("read entry %s", entry_id.decode(), extra=named)
        return clicks, bool(is_cut)

    async def _trim(self, backlog: Backlog) -> None:
        applied_to = backlog.applied_to
        if applied_to > backlog.trimmed_to:
            backlog.forget_shipments(applied_to)
            await self._redis.xtrim(backlog.name, minid=entry_id_of(applied_to + 1), approximate=False)
            backlog.trimmed_to = applied_to

    # -- delivering ------------------------------------------------------------------------------------------

    def _start_calls(self) -> None:
        """Starts a call for each shard that has none and for which clicks wait."""
        calling = {call.lane for call in self._calls.values()}
        for backlog in self._backlogs:
            for name, slots in self._waiting_at(backlog).items():
                lane = self._lanes.setdefault(name, Lane(name, self._clicks, self._visitors, self._clock))
                if lane not in calling and (call := lane.next_call(backlog, slots)) is not None:
                    calling.add(lane)
                    self._calls[asyncio.create_task(self._deliver(call), name=f"clicks to {name}")] = call

    def _waiting_at(self, backlog: Backlog) -> dict[str, list[int]]:
        """Returns the slots with rows by believed owner, in their order, without those of a call under way."""
        under_way = {slot for call in self._calls.values() if call.backlog is backlog for slot in call.rows}
        found: dict[str, list[int]] = {}
        for slot in backlog.waiting:
            if slot not in under_way:
                found.setdefault(self._clicks.owner(slot), []).append(slot)
        return found

    async def _deliver(self, call: Call) -> None:
        with traces.span("clicks", attributes={"snapurl.rows": sum(map(len, call.rows.values()))}):
            await call.lane.deliver(call)

    def _finish_calls(self) -> None:
        for task in [task for task in self._calls if task.done()]:
            del self._calls[task]
            task.result()

    def _log_stall(self) -> None:
        """Logs once when rows wait for their shards, with a shipment to search for, and once when they no longer
        do."""
        if not any(lane.is_stalled for lane in self._lanes.values()):
            if self._stall_logged:
                log.warning("the shards accept all clicks again")
            self._stalled_since, self._stall_logged = None, False
            return
        if self._stalled_since is None:
            self._stalled_since = self._clock()
        if not self._stall_logged and self._clock() - self._stalled_since > STALL_LOG_S:
            self._stall_logged = True
            first = next((name for each in self._backlogs for name in each.shipments.values()), "")
            slots = sum(len(each.waiting) for each in self._backlogs)
            log.warning("clicks of %d slots wait for their shards", slots, extra={"shipment": first})

    # -- once a second ---------------------------------------------------------------------------------------

    async def _tend(self) -> bool:
        """Renews lease and heartbeat, finds the stream, and measures the lag, also on standby: the active consumer
        may be stuck. Returns whether this consumer has the lease."""
        if self._clock() - self._renewed_at < LEASE_RENEW_S:
            return True
        held, stored, lag = await self._call_tend(LEASE_MS)
        self._beaten_at = self._clock()
        self._measure(lag_of(lag))
        if not held:
            await self._stop_waiting()
            self._backlogs.clear()  # another consumer trims the stream now, so what was read may be stale
            return False
        self._renewed_at = self._clock()
        if stored is not None:
            await self._adopt_stream(stored.decode())
        return True

    async def _call_tend(self, lease_ms: int) -> Any:
        unused = stream_name(self._namespace, uuid.uuid4().hex)
        return await self._tend_script(keys=self._keys, args=[self._holder, lease_ms, ALIVE_MS, unused])

    def _measure(self, lag: Lag) -> None:
        CLICK_BACKLOG_ROWS.set(sum(each.rows for each in self._backlogs))
        CLICK_STREAM_ENTRIES.set(lag.entries)
        CLICK_LAG_SECONDS.set(lag.seconds)

    async def _adopt_stream(self, name: str) -> None:
        if not self._backlogs or self._backlogs[-1].name != name:
            await self._stop_waiting()
            self._backlogs.append(Backlog(name))

    async def _stop_waiting(self) -> None:
        arrival, self._arrival = self._arrival, None
        await cancel_and_wait(arrival)
        self._has_more, self._read_after = True, 0.0

    async def _give_up_lease(self) -> None:
        try:
            await self._call_tend(1)
        except (RedisError, OSError, TimeoutError):
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
    blocking = redis_client(settings, BLOCK_S + settings.redis_timeout_ms / 1000)
    process_metrics = logs.endless_task(
        ProcessMetrics([partial(shards.measure, "clicks")]).run, "process metrics"
    )
    consumer = Consumer(shards.topology.cluster_id, redis, blocking, ClickStore(shards, router), loop.time)
    folder = Folder(
        FoldStore(shards, router), settings.click_days_kept, lambda: consumer.works, utc_today, loop.time
    )
    fold = logs.endless_task(folder.run, "folding of days")
    sender = make_sender(settings, WebhookStore(shards, router), lambda: consumer.works, loop.time)
    send = logs.endless_task(sender.run, "sending of webhooks")
    try:
        async with serving(metrics_host, metrics_port, consumer.fault):
            await consumer.run(stop)
    finally:
        await cancel_and_wait(process_metrics, fold, send)
        await blocking.aclose()
        await redis.aclose()
        await shards.close()


def main(metrics_port: int = 0, metrics_host: str = "127.0.0.1") -> int:
    """Runs `python -m snapurl.clicks` and returns the exit code. With port 0 it serves no metrics."""
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])
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
