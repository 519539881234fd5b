"""The migrator: a loop that makes ownership converge on the ring.

Theory. It is a reconciler. Each round takes a snapshot of all shards, schedules tasks from it, and executes
some of them; hand-offs that have begun come first. No state is kept from round to round, except that there is
nothing to do until a given time while no shard has a new topology or a changed slot. So to resume after a
crash is to run, and to cancel is to publish the previous topology. A second migrator does no harm, because
tokens on the shards guard every step. The lease that keeps all but one on standby only saves work, so it may
rest on a clock (`lease.py`).

A few batches move concurrently, taking turns between sources. A round ends after ROUND_S so that a new
topology is picked up soon. Pairs of shards between which a batch has failed come last in the next round, so
that they do not delay the others.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from math import inf
from typing import Any

import asyncpg

from ring.handoff import Step
from ring.ownership import SlotState
from ring.topology import Topology
from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.run.healthcheck import Address, http_status
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.pool import ShardFailed
from snapurl.store.cluster.tables import Table, sharded_tables
from snapurl.tasks import cancel_and_wait, with_background
from snapurl.telemetry.logs import MOVE
from snapurl.telemetry.metrics import (
    PAUSE_SECONDS,
    RESHARD_LAG_ROWS,
    RESHARD_MOVE_SECONDS,
    RESHARD_MOVES,
    RESHARD_ORPHANS,
    RESHARD_PAUSED,
    RESHARD_ROWS,
    RESHARD_SLOTS_IN_STATE,
    RESHARD_SLOTS_LEFT,
    RESHARD_WORKING,
    TOPOLOGY_VERSION,
)
from snapurl.telemetry.process import ProcessMetrics
from snapurl.telemetry.traces import span
from tools.cluster.fleet import ChangeStamps, Fleet
from tools.cluster.migrator_status import MigratorStatus, MoveStatus, PauseLog
from tools.cluster.publish import propagate, publish
from tools.cluster.rejoin import rejoin_all
from tools.cluster.snapshot import Snapshot
from tools.cluster.sql import SQL
from tools.migrator.cleanup import cleanup_tasks
from tools.migrator.lease import IDLE_LEASE_MS, LEASE_MS, Lease
from tools.migrator.progress import Progress
from tools.migrator.schedule import Schedule, Task, schedule
from tools.migrator.throttle import SPARING, Sample, Throttle
from tools.transfer.batch import Batch
from tools.transfer.executor import Executor, Refused, ShardPair

log = logging.getLogger("snapurl.migrator")

ROUND_S = 4.0
IDLE_S = 0.1
IDLE_POLL_S = 5.0  # with nothing to do and no notification: one may be lost
GRACE_POLL_S = 1.0  # between polls for slots whose grace period is over: each reads the whole cluster
HEARTBEAT_S = 0.5
IDLE_HEARTBEAT_S = 2.0
STANDBY_HEARTBEAT_S = 0.9
ALIVE_S = 15.0  # without a heartbeat that a shard took, then it counts as not working
PROBE_S = 0.2
IDLE_PROBE_S = 5.0  # with nothing to do, while the throttle backs off
PAUSE_WARN_MS = 500.0  # writers notice such a pause

BY_INDEX = "SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_custom_plan"
"""A batch is a small part of any table, but the statistics of a new shard say that its tables are empty. With
seqscan off, a scan that is needed all the same costs so much by estimate that JIT would compile it each time.
Generic plans would not know the slots."""


@dataclass(slots=True)
class Options:
    """`grace_s` is the age at which released rows may be deleted, `service` the service whose latency counts."""

    grace_s: float = 30.0
    throttle: Throttle = field(default_factory=Throttle)
    service: Address | None = None


@dataclass(frozen=True, slots=True)
class _Idle:
    """Nothing to do while the shards have these stamps, until that time; if `settled`, nothing is left either."""

    stamps: ChangeStamps
    until: float
    settled: bool

    @classmethod
    def of(cls, stamps: ChangeStamps | None, until: float, *, settled: bool) -> _Idle | None:
        """Returns None without stamps: a shard is silent."""
        return None if stamps is None else cls(stamps, until, settled)


class LaneConnections:
    """The connections of one lane: one per shard, opened when first needed, dropped after any failure."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._connections: dict[str, Any] = {}
        self._tables: dict[str, tuple[Table, ...]] = {}

    async def pair(self, batch: Batch) -> ShardPair:
        """Returns the connections to both sides. Raises ShardFailed, and Refused if their tables differ."""
        source, target = await self.connection(batch.source), await self.connection(batch.target)
        tables = self._tables[batch.source]
        if tables != self._tables[batch.target]:
            raise Refused(f"{batch}: the two shards have different tables; run `snapurl migrate`")
        return ShardPair(source, target, tables)

    async def connection(self, name: str) -> Any:
        found = self._connections.get(name)
        if found is None or found.is_closed():
            found = await self._fleet.open(name)
            await found.execute(BY_INDEX)
            self._tables[name] = await sharded_tables(found)
            self._connections[name] = found
        return found

    def drop(self) -> None:
        for connection in self._connections.values():
            connection.terminate()
        self._connections.clear()


async def executor_for(
    task: Task,
    snapshot: Snapshot,
    lane: LaneConnections,
    copied: Callable[[int], None] = lambda rows: None,
    clock: Callable[[], float] = time.monotonic,
) -> Executor:
    """Returns an executor for a task, with the states and tokens of the snapshot. Raises as `pair` does."""
    batch = task.batch
    if task.program == (Step.RETRACT,):
        pair = ShardPair(None, await lane.connection(batch.target), ())
    else:
        pair = await lane.pair(batch)
    rows = snapshot.by_slot[batch.source]
    tokens = [
        (rows[slot].state, snapshot.tokens.get((batch.source, slot))) for slot in batch.slots if slot in rows
    ]
    found = [(str(state), token) for state, token in tokens if token is not None]
    return Executor(batch, pair, found, copied, clock)


class Migrator:
    """Runs rounds until stopped."""

    def __init__(
        self, settings: Settings, options: Options, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._options = options
        self._clock = clock
        self._holder = uuid.uuid4()
        self._working = asyncio.Event()
        self._stop = asyncio.Event()
        self._executors: dict[Executor, float] = {}  # -> when it began
        self._failed: set[tuple[str, str]] = set()
        self._idle: _Idle | None = None
        self._changed = asyncio.Event()  # a notification, a lost connection, or a lease that came or went
        self._beat_soon = asyncio.Event()  # the state has changed
        self._probe_soon = asyncio.Event()  # there is work now, which the throttle may slow down
        self._pauses = PauseLog()
        self._probes = 0
        self._beaten_at = clock()
        self._progress = Progress(clock)
        self._silent: set[str] = set()
        self.status = MigratorStatus()

    # -- the loop --------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, *, until_settled: bool = False) -> None:
        """Runs until `stop` is set and the current batches are done; if `until_settled`, until nothing is
        left.

        Raises ConfigError if it cannot connect at first; after that it retries whatever fails. An error that
        nobody foresaw ends it, also one in the background.
        """
        self._stop = stop
        fleet = await Fleet.connect(self._settings, f"snapurl-migrator {self._holder.hex[:12]}")
        fleet.listen(self._changed.set)
        background = self._heartbeat(fleet.topology), self._probe(fleet), ProcessMetrics(()).run()
        await with_background(self._run_rounds(fleet, stop, until_settled=until_settled), *background)

    @property
    def works(self) -> bool:
        """Whether it holds the lease; otherwise it stands by."""
        return self._working.is_set()

    async def _run_rounds(self, fleet: Fleet, stop: asyncio.Event, *, until_settled: bool) -> None:
        lanes = [LaneConnections(fleet) for _ in range(self._options.throttle.lanes)]
        try:
            while not stop.is_set():
                self._changed.clear()
                settled = await self._guarded_round(fleet, lanes)
                if settled and until_settled:
                    return
                if settled is not None:
                    await self._rest()
        finally:
            for lane in lanes:
                lane.drop()
            await fleet.close()

    async def _rest(self) -> None:
        """Waits a moment, and with nothing to do until there is news, IDLE_POLL_S at most."""
        await _wait(self._stop, IDLE_S)
        if self._idle is None and self._working.is_set():
            return
        until = min(inf if self._idle is None else self._idle.until, self._clock() + IDLE_POLL_S)
        waits = [asyncio.ensure_future(event.wait()) for event in (self._stop, self._changed)]
        try:
            await asyncio.wait(waits, timeout=until - self._clock(), return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*waits)

    async def _guarded_round(self, fleet: Fleet, lanes: list[LaneConnections]) -> bool | None:
        """Runs one round. Returns True if nothing is left, False to wait a moment, None to go on at once."""
        if not self._working.is_set():
            self._enter("standby")
            self._idle = None
            _zero_gauges()
            return False
        try:
            return await self._round(fleet, lanes)
        except (*LOST, ShardFailed, asyncpg.PostgresError, ConfigError) as error:
            self._record_error(str(error))
            await fleet.close()
            return False

    async def _round(self, fleet: Fleet, lanes: list[LaneConnections]) -> bool | None:
        # Before all else: a shard that restarts later has other stamps in the next round.
        change_stamps = await fleet.change_stamps()
        idle, self._idle = self._idle, None
        if idle is not None and change_stamps == idle.stamps and self._clock() < idle.until:
            self._idle = idle
            return idle.settled
        not_rejoined = await rejoin_all(fleet)
        snapshot = await fleet.observe()
        await propagate(fleet, snapshot)
        found = schedule(snapshot)
        self._update_status(snapshot, found)
        if not_rejoined:
            self._record_error(not_rejoined[0])
        if found.urgent:
            return None if await self._run_tasks(found.urgent, snapshot, lanes) else False
        if snapshot.topology.paused:
            self._enter("paused")
            if not not_rejoined:
                self._idle = _Idle.of(change_stamps, inf, settled=False)
            return False
        if found.moves:
            return None if await self._run_tasks(found.moves, snapshot, lanes) else False
        if found.waiting or found.wrong or snapshot.silent or not_rejoined:
            self._enter("waiting")
            return False
        return await self._clean_up(fleet, snapshot, lanes, change_stamps)

    async def _run_tasks(self, tasks: list[Task], snapshot: Snapshot, lanes: list[LaneConnections]) -> bool:
        """Executes a batch of each task in turn until the round is over. Returns whether none failed."""
        left = deque(sorted(tasks, key=lambda task: task.batch.pair in self._failed))
        self._failed = set()
        until = self._clock() + ROUND_S
        async with asyncio.TaskGroup() as group:
            for lane in lanes:
                group.create_task(self._run_lane(left, until, snapshot, lane))
        return not self._failed

    async def _run_lane(
        self, left: deque[Task], until: float, snapshot: Snapshot, lane: LaneConnections
    ) -> None:
        """Executes batches of the tasks in `left` while there are any and the round lasts."""
        while left and self._clock() < until and self._working.is_set() and not self._stop.is_set():
            task, rest = left.popleft().cut(self._options.throttle.slots)
            if task.batch.pair in self._failed:
                continue
            if rest is not None:
                left.append(rest)
            try:
                await self._run_task(lane, task, snapshot)
            except Refused as error:
                self._record_error(str(error))
            except (*LOST, ShardFailed, asyncpg.PostgresError, ConfigError) as error:
                self._record_error(f"{task.batch}: {type(error).__name__}: {error}")
            else:
                continue
            lane.drop()
            self._failed.add(task.batch.pair)

    async def _run_task(self, lane: LaneConnections, task: Task, snapshot: Snapshot) -> None:
        batch = task.batch
        MOVE.set("")  # a lane is an asyncio task and has its own context
        executor = await executor_for(task, snapshot, lane, self._count_rows, self._clock)
        MOVE.set(str(executor.token))
        began = self._executors[executor] = self._clock()
        try:
            with span("move", attributes=executor.span_attributes):
                await executor.run(task.program)
        finally:
            del self._executors[executor]
        RESHARD_MOVES.labels("finished").inc(len(batch.slots))
        paused_ms = executor.pause_ms or 0.0
        level = logging.WARNING if paused_ms > PAUSE_WARN_MS else logging.DEBUG
        log.log(level, "%s: %d rows, writes paused for %.0f ms", batch, executor.rows, paused_ms)
        if Step.COMMIT in task.program:
            self._progress.add_slots(len(batch.slots))
            RESHARD_SLOTS_LEFT.set(self._progress.slots_left)
        if executor.pause_ms is not None:
            self._pauses.add(executor.pause_ms)
            PAUSE_SECONDS.observe(executor.pause_ms / 1000)
            self._options.throttle.after_batch(len(batch.slots), executor.rows, executor.pause_ms)
        await _wait(self._stop, self._options.throttle.wait_s(executor.rows, self._clock() - began))

    # -- when nothing moves ----------------------------------------------------------------------------------

    async def _clean_up(
        self,
        fleet: Fleet,
        snapshot: Snapshot,
        lanes: list[LaneConnections],
        change_stamps: ChangeStamps | None,
    ) -> bool | None:
        """Deletes the rows of released slots, then removes shards that are drained and empty from the topology."""
        tasks, waiting = await cleanup_tasks(fleet, snapshot, self._options.grace_s)
        orphans = sum(len(task.batch.slots) for task in tasks) + waiting
        RESHARD_ORPHANS.set(orphans)
        self.status = replace(self.status, orphans=orphans)
        self._enter("cleaning" if tasks else "idle")
        if tasks:
            return None if await self._run_tasks(tasks, snapshot, lanes) else False
        if waiting:
            self._idle = _Idle.of(change_stamps, self._clock() + GRACE_POLL_S, settled=False)
            return False
        for shard in snapshot.topology.shards:
            if shard.draining and not any(
                owner and owner.shard == shard.name for owner in snapshot.ownership.owners
            ):
                await publish(fleet, snapshot.topology.without(shard.name))
                for lane in lanes:
                    lane.drop()  # a server that is switched off may wait for connections
                log.info("shard %s holds nothing any more and may be switched off", shard.name)
                return None
        self._idle = _Idle.of(change_stamps, inf, settled=True)
        return True

    # -- status ----------------------------------------------------------------------------------------------

    def _enter(self, state: str) -> None:
        """Notes what this migrator does now. The heartbeat reports it at once."""
        if state != self.status.state:
            self.status = replace(self.status, state=state)
            self._beat_soon.set()
            if self._is_busy:
                self._probe_soon.set()

    @property
    def _is_busy(self) -> bool:
        return self.status.state in ("moving", "cleaning")

    @property
    def _beat_after_s(self) -> float:
        if not self.works:
            return STANDBY_HEARTBEAT_S
        return HEARTBEAT_S if self._is_busy else IDLE_HEARTBEAT_S

    @property
    def _probe_after_s(self) -> float | None:
        """None: not before there is work."""
        if self._is_busy:
            return PROBE_S
        return IDLE_PROBE_S if self._options.throttle.backs_off else None

    def _update_status(self, snapshot: Snapshot, found: Schedule) -> None:
        left = found.slots_left
        for line in self._progress.observe(snapshot.topology.version, snapshot.placement, left):
            log.info("%s", line)
        self._note_silent(snapshot)
        RESHARD_SLOTS_LEFT.set(left)
        RESHARD_PAUSED.set(snapshot.topology.paused)
        TOPOLOGY_VERSION.labels("migrator").set(snapshot.topology.version)
        states = Counter(row.state for rows in snapshot.rows.values() for row in rows)
        for state in SlotState:
            RESHARD_SLOTS_IN_STATE.labels(str(state)).set(states[state])
        problem = [*found.wrong[:1], *(f"shard {name} {why}" for name, why in snapshot.silent.items())]
        self.status = replace(
            self.status,
            topology_version=snapshot.topology.version,
            last_error=problem[0] if problem else self.status.last_error,
        )
        if left or found.urgent:
            self._enter("moving")

    def _note_silent(self, snapshot: Snapshot) -> None:
        for name in snapshot.silent.keys() - self._silent:
            log.warning("shard %s %s", name, snapshot.silent[name])
        for name in self._silent - snapshot.silent.keys():
            log.info("shard %s %s", name, "answers again" if name in snapshot.rows else "has left")
        self._silent = set(snapshot.silent)

    def current_status(self) -> MigratorStatus:
        """Returns the status with the current moves and rates."""
        now = self._clock()
        progress = self._progress
        moves = tuple(
            MoveStatus(str(executor.batch), executor.step.value, now - began)
            for executor, began in self._executors.items()
        )
        return replace(
            self.status,
            moves=moves,
            pauses=self._pauses.summary(),
            slots_total=progress.slots_total,
            slots_left=progress.slots_left,
            rows_copied=progress.rows_copied,
            rows_per_s=progress.rows_per_s,
            slots_per_s=progress.slots_per_s,
            is_sparing=self._options.throttle.pace is SPARING,
            eta_s=None if self.status.state == "paused" else progress.eta_s(),
            lag_rows=self._lag_rows(),
            throttle=self._options.throttle.state,
        )

    def _count_rows(self, rows: int) -> None:
        self._progress.add_rows(rows)
        RESHARD_ROWS.inc(rows)

    def _lag_rows(self) -> int:
        """Returns how many rows the last CATCH_UP of each current batch found changed."""
        return sum(executor.behind for executor in self._executors)

    def _record_error(self, text: str) -> None:
        if text != self.status.last_error:
            log.warning("%s", text)
        RESHARD_MOVES.labels("given up").inc()
        self.status = replace(self.status, last_error=text)

    # -- in the background -----------------------------------------------------------------------------------

    async def _heartbeat(self, topology: Topology) -> None:
        """Renews the lease. Without it, work stops after the current batches."""
        fleet = Fleet(self._settings, topology, f"snapurl-migrator {self._holder.hex[:12]} lease")
        lease = Lease(fleet, self._holder, self._clock)
        try:
            while True:
                lease_ms = LEASE_MS if self._is_busy else IDLE_LEASE_MS
                held = await lease.renew(self.current_status().to_json(), lease_ms)
                if lease.is_answered:
                    self._beaten_at = self._clock()
                RESHARD_WORKING.set(held)
                RESHARD_MOVE_SECONDS.set(
                    self._clock() - min(self._executors.values()) if self._executors else 0.0
                )
                RESHARD_LAG_ROWS.set(self._lag_rows())
                if held != self._working.is_set():
                    self._changed.set()
                    log.info("this migrator is %s", "active" if held else "on standby")
                (self._working.set if held else self._working.clear)()
                await _wait_and_clear(self._beat_soon, self._beat_after_s)
        finally:
            await fleet.close()

    def fault(self) -> str | None:
        """Returns why this migrator does not work; None if it does, also on standby."""
        late = self._clock() - self._beaten_at > ALIVE_S
        return "no shard has taken its heartbeat for some time" if late else None

    async def _probe(self, working: Fleet) -> None:
        """Samples the latency of shards and service, and the lag of standbys, for the throttle.

        It does so while something moves, and until the throttle no longer backs off. The shards are those
        of the topology that `working` knows; the connections are its own.
        """
        fleet = Fleet(self._settings, working.topology)
        try:
            while True:
                await _wait_and_clear(self._probe_soon, self._probe_after_s)
                fleet.adopt(working.topology)
                shards = [await self._probe_shard(fleet, shard.name) for shard in fleet.topology.shards]
                service_ms = await self._probe_service()
                ms, lag_s = (max(values) for values in zip(*shards, strict=True))
                self._options.throttle.observe(Sample(ms, lag_s, service_ms))
        finally:
            await fleet.close()

    async def _probe_shard(self, fleet: Fleet, name: str) -> tuple[float, float]:
        """Returns the ms of a statement on a shard and the lag of its standbys in s.

        Zeros for a silent shard: it gets no rows anyway.
        """
        began = self._clock()
        try:
            rows = await fleet.fetch(name, SQL["standby_lag"])
        except (ShardFailed, ConfigError, asyncpg.PostgresError):
            return 0.0, 0.0
        return (self._clock() - began) * 1000, float(rows[0]["lag_s"])

    async def _probe_service(self) -> float | None:
        """Returns the ms of a request that needs neither shard nor Redis, even if it timed out."""
        if self._options.service is None:
            return None
        began = self._clock()
        self._probes += 1
        name = f"reshard-{self._holder.hex[:12]}-{self._probes}"
        await http_status(self._options.service, "/health/live", name)
        return (self._clock() - began) * 1000


def _zero_gauges() -> None:
    """Zeroes the reshard gauges: while this migrator is on standby, the active one reports them."""
    for gauge in (
        RESHARD_SLOTS_LEFT,
        RESHARD_ORPHANS,
        RESHARD_PAUSED,
        RESHARD_MOVE_SECONDS,
        RESHARD_LAG_ROWS,
    ):
        gauge.set(0)
    for state in SlotState:
        RESHARD_SLOTS_IN_STATE.labels(str(state)).set(0)


async def _wait(stop: asyncio.Event, timeout_s: float | None) -> None:
    try:
        await asyncio.wait_for(stop.wait(), timeout_s)
    except TimeoutError:
        return


async def _wait_and_clear(event: asyncio.Event, timeout_s: float | None) -> None:
    """Waits until the event is set, `timeout_s` at most (None: without end), and clears it."""
    await _wait(event, timeout_s)
    event.clear()
