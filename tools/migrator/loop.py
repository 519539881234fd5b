"""The migrator: makes ownership converge on the ring, and keeps at it.

Theory. It is a reconciler. Each round looks at all shards, reads the agenda from what it sees, and carries out
some of it; hand-offs that were found half-way come first. Nothing is remembered from round to round but until when
there is nothing to do, and that only while no shard has a new topology or a changed slot: so to resume after a
crash is to run, to cancel is to publish the topology from before, and running a second migrator does no harm:
every step is guarded by tokens on the shards. The lease that makes only one of several work is for the sake of
speed, and rests on a clock for that reason only.

A few batches move at a time, in turn from all sources. A round ends after
ROUND_S so that a new goal is seen soon. Pairs of shards between which a batch has failed come last in the next
round, so that they keep nobody waiting.
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
from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.run.healthcheck import Address, http_status
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.pool import ShardFailed
from snapurl.tasks import cancel_and_wait
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
from tools.cluster.migrator_status import MigratorStatus, MoveStatus, PauseLog, Rate
from tools.cluster.publish import propagate, publish
from tools.cluster.rejoin import rejoin_all
from tools.cluster.snapshot import Snapshot
from tools.cluster.tables import SQL, Table, sharded_tables
from tools.migrator.cleanup import dead_slots
from tools.migrator.schedule import Schedule, Task, schedule
from tools.migrator.throttle import Sample, Throttle
from tools.transfer.batch import Batch
from tools.transfer.executor import Executor, Refused, ShardPair

log = logging.getLogger("snapurl.migrator")

ROUND_S = 4.0
IDLE_S = 0.1
GRACE_LOOK_S = 1.0  # between looks for slots whose grace period is over: each is at the whole cluster
LEASE_MS = 3_000
HEARTBEAT_S = 0.5
PROBE_S = 0.2
IDLE_PROBE_S = 1.0
PAUSE_TOLD_MS = 500.0  # a pause that writers will have noticed

BY_INDEX = "SET enable_seqscan = off; SET jit = off; SET plan_cache_mode = force_custom_plan"
"""A batch is a small part of any table, and the statistics of a new shard are those of empty ones. What has to be
scanned all the same then looks so dear to the planner that it would compile it each time. Nor may it plan for slots
that it does not know."""


@dataclass(slots=True)
class Options:
    """How a migrator works; `grace_s` is the age at which released rows may be deleted, `service` where the HTTP
    service can be asked how it fares."""

    grace_s: float = 30.0
    throttle: Throttle = field(default_factory=Throttle)
    service: Address | None = None


class LaneConnections:
    """The connections for steps: one per shard, opened when first needed, dropped when anything goes wrong."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._connections: dict[str, Any] = {}
        self._tables: dict[str, tuple[Table, ...]] = {}

    async def ends(self, batch: Batch) -> ShardPair:
        """Both ends of a batch. Raises ShardFailed, and Refused when the shards have different tables."""
        source, target = await self.connection(batch.source), await self.connection(batch.target)
        tables = self._tables[batch.source]
        if tables != self._tables[batch.target]:
            raise Refused(f"{batch}: the two have different tables; run `snapurl migrate`")
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
    seen: Snapshot,
    lane: LaneConnections,
    copied: Callable[[int], None] = lambda rows: None,
    clock: Callable[[], float] = time.monotonic,
) -> Executor:
    """An attempt at a task, with the states and tokens that were seen. Raises as `Bench.ends` does."""
    batch = task.batch
    if task.program == (Step.RETRACT,):
        ends = ShardPair(None, await lane.connection(batch.target), ())
    else:
        ends = await lane.ends(batch)
    rows = seen.by_slot[batch.source]
    tokens = [
        (rows[slot].state, seen.tokens.get((batch.source, slot))) for slot in batch.slots if slot in rows
    ]
    found = [(str(state), token) for state, token in tokens if token is not None]
    return Executor(batch, ends, found, copied, clock)


class Migrator:
    """Runs rounds until stopped. `status` is what it is doing now."""

    def __init__(
        self, settings: Settings, options: Options, *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._settings = settings
        self._options = options
        self._clock = clock
        self._holder = uuid.uuid4()
        self._working = asyncio.Event()
        self._stop = asyncio.Event()
        self._attempts: dict[Executor, float] = {}  # since when
        self._failed: set[tuple[str, str]] = set()
        # There is nothing to do while the shards say this, and until then.
        self._quiet: tuple[ChangeStamps | None, float] = None, 0.0
        self._pauses = PauseLog()
        self._probes = 0
        self._rows = Rate(clock)
        self._slots = Rate(clock)
        self.status = MigratorStatus()

    # -- the loop --------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, *, until_settled: bool = False) -> None:
        """Works until `stop` is set and the batches in hand are done; if `until_settled`, until nothing is left.

        Raises ConfigError when it cannot begin; once it has begun it goes on trying whatever happens.
        """
        self._stop = stop
        fleet = await Fleet.connect(self._settings, f"snapurl-migrator {self._holder.hex[:12]}")
        beside = (self._heartbeat(), self._probe(), ProcessMetrics(()).run())
        helpers = [asyncio.create_task(each) for each in beside]
        lane_connections = [LaneConnections(fleet) for _ in range(self._options.throttle.lanes)]
        try:
            while not stop.is_set():
                settled = await self._guarded_round(fleet, lane_connections)
                if settled and until_settled:
                    return
                if settled is not None:
                    await _wait(stop, IDLE_S)
        finally:
            await cancel_and_wait(*helpers)
            for lane in lane_connections:
                lane.drop()
            await fleet.close()

    async def _guarded_round(self, fleet: Fleet, lane_connections: list[LaneConnections]) -> bool | None:
        """One round. True: nothing is left; False: wait a moment; None: go on at once."""
        if not self._working.is_set():
            self.status = replace(self.status, state="standby")
            self._quiet = None, 0.0
            _say_nothing()
            return False
        try:
            return await self._round(fleet, lane_connections)
        except (*LOST, ShardFailed, asyncpg.PostgresError, ConfigError) as error:
            self._note_error(str(error))
            await fleet.close()
            return False

    async def _round(self, fleet: Fleet, lane_connections: list[LaneConnections]) -> bool | None:
        waiting_for = await rejoin_all(fleet)
        change_stamps = await fleet.change_stamps()
        quiet, until = self._quiet
        if change_stamps is not None and change_stamps == quiet and self._clock() < until:
            return until == inf
        self._quiet = None, 0.0
        seen = await fleet.observe()
        await propagate(fleet, seen)
        found = schedule(seen)
        self._describe(seen, found)
        if waiting_for:
            self._note_error(waiting_for[0])
        if found.urgent:
            return None if await self._carry_out(found.urgent, seen, lane_connections) else False
        if seen.topology.paused:
            self.status = replace(self.status, state="paused")
            return False
        if found.moves:
            return None if await self._carry_out(found.moves, seen, lane_connections) else False
        if found.waiting or found.wrong or seen.silent or waiting_for:
            self.status = replace(self.status, state="waiting")
            return False
        return await self._tidy(fleet, seen, lane_connections, change_stamps)

    async def _carry_out(
        self, tasks: list[Task], seen: Snapshot, lane_connections: list[LaneConnections]
    ) -> bool:
        """Does a batch of each task in turn until the round is over; False if any failed."""
        left = deque(sorted(tasks, key=lambda task: task.batch.pair in self._failed))
        self._failed = set()
        until = self._clock() + ROUND_S
        async with asyncio.TaskGroup() as lanes:
            for lane in lane_connections:
                lanes.create_task(self._carry_out_some(left, until, seen, lane))
        return not self._failed

    async def _carry_out_some(
        self, left: deque[Task], until: float, seen: Snapshot, lane: LaneConnections
    ) -> None:
        """One lane: takes batches of what is `left` as long as there are any."""
        while left and self._clock() < until and self._working.is_set() and not self._stop.is_set():
            task, rest = left.popleft().cut(self._options.throttle.slots)
            if task.batch.pair in self._failed:
                continue
            if rest is not None:
                left.append(rest)
            try:
                await self._carry_out_one(lane, task, seen)
            except Refused as error:
                self._note_error(str(error))
            except (*LOST, ShardFailed, asyncpg.PostgresError, ConfigError) as error:
                self._note_error(f"{task.batch}: {type(error).__name__}: {error}")
            else:
                continue
            lane.drop()
            self._failed.add(task.batch.pair)

    async def _carry_out_one(self, lane: LaneConnections, task: Task, seen: Snapshot) -> None:
        batch = task.batch
        MOVE.set("")  # each lane is a task, with a context of its own
        attempt = await executor_for(task, seen, lane, self._note_rows, self._clock)
        MOVE.set(str(attempt.token))
        began = self._attempts[attempt] = self._clock()
        try:
            with span("move", attributes=attempt.names):
                await attempt.run(task.program)
        finally:
            del self._attempts[attempt]
        RESHARD_MOVES.labels("finished").inc(len(batch.slots))
        paused_ms = attempt.pause_ms or 0.0
        level = logging.WARNING if paused_ms > PAUSE_TOLD_MS else logging.DEBUG
        log.log(level, "%s: %d rows, writes paused for %.0f ms", batch, attempt.rows, paused_ms)
        if Step.COMMIT in task.program:
            self._slots.add(len(batch.slots))
            self.status = replace(self.status, slots_left=max(0, self.status.slots_left - len(batch.slots)))
            RESHARD_SLOTS_LEFT.set(self.status.slots_left)
        if attempt.pause_ms is not None:
            self._pauses.add(attempt.pause_ms)
            PAUSE_SECONDS.observe(attempt.pause_ms / 1000)
            self._options.throttle.after_batch(len(batch.slots), attempt.rows, attempt.pause_ms)
        await _wait(self._stop, self._options.throttle.wait_s(attempt.rows, self._clock() - began))

    # -- when nothing moves ----------------------------------------------------------------------------------

    async def _tidy(
        self,
        fleet: Fleet,
        seen: Snapshot,
        lane_connections: list[LaneConnections],
        change_stamps: ChangeStamps | None,
    ) -> bool | None:
        """Deletes what released slots have left behind, then disconnects shards that are drained and empty."""
        left, waiting = await dead_slots(fleet, seen, self._options.grace_s)
        orphans = sum(len(batch.slots) for batch in left) + waiting
        RESHARD_ORPHANS.set(orphans)
        self.status = replace(self.status, state="cleaning" if left else "idle", orphans=orphans)
        if left:
            tasks = [Task(batch, (Step.CLEAN,)) for batch in left]
            return None if await self._carry_out(tasks, seen, lane_connections) else False
        if waiting:
            self._quiet = change_stamps, self._clock() + GRACE_LOOK_S
            return False
        for shard in seen.topology.shards:
            if shard.draining and not any(
                owner and owner.shard == shard.name for owner in seen.ownership.owners
            ):
                await publish(fleet, seen.topology.without(shard.name))
                log.info("shard %s holds nothing any more and may be switched off", shard.name)
                return None
        self._quiet = change_stamps, inf
        return True

    # -- what it says of itself ------------------------------------------------------------------------------

    def _describe(self, seen: Snapshot, found: Schedule) -> None:
        left = found.slots_left
        total = max(self.status.slots_total, left) if left else 0
        if left and not self.status.slots_total:
            self._rows.start()
            self._slots.start()
        RESHARD_SLOTS_LEFT.set(left)
        RESHARD_PAUSED.set(seen.topology.paused)
        TOPOLOGY_VERSION.labels("migrator").set(seen.topology.version)
        states = Counter(row.state for rows in seen.rows.values() for row in rows)
        for state in SlotState:
            RESHARD_SLOTS_IN_STATE.labels(str(state)).set(states[state])
        problem = [*found.wrong[:1], *(f"shard {name} {why}" for name, why in seen.silent.items())]
        self.status = replace(
            self.status,
            state="moving" if left or found.urgent else self.status.state,
            topology_version=seen.topology.version,
            slots_total=total,
            slots_left=left,
            rows_copied=self.status.rows_copied if total else 0,
            last_error=problem[0] if problem else self.status.last_error,
        )

    def snapshot(self) -> MigratorStatus:
        """The status with the moves under way as they are now."""
        now = self._clock()
        slots_per_s = self._slots.per_s()
        moves = tuple(
            MoveStatus(str(attempt.batch), attempt.step.value, now - began)
            for attempt, began in self._attempts.items()
        )
        return replace(
            self.status,
            moves=moves,
            pauses=self._pauses.summary(),
            rows_per_s=self._rows.per_s(),
            eta_s=self.status.slots_left / slots_per_s if slots_per_s and self.status.slots_left else None,
            lag_rows=self._lag_rows(),
            throttle=self._options.throttle.state,
        )

    def _note_rows(self, rows: int) -> None:
        self._rows.add(rows)
        self.status = replace(self.status, rows_copied=self.status.rows_copied + rows)
        RESHARD_ROWS.inc(rows)

    def _lag_rows(self) -> int:
        """Rows that changed at the source while the batches under way were copied, at the last look at each."""
        return sum(attempt.behind for attempt in self._attempts)

    def _note_error(self, text: str) -> None:
        if text != self.status.last_error:
            log.warning("%s", text)
        RESHARD_MOVES.labels("given up").inc()
        self.status = replace(self.status, last_error=text)

    # -- beside the work -------------------------------------------------------------------------------------

    async def _heartbeat(self) -> None:
        """Keeps the lease on the first shard that answers; without it the work stops after the batch in hand."""
        fleet = await Fleet.connect(self._settings)
        try:
            while True:
                held = await self._renew(fleet)
                RESHARD_WORKING.set(held)
                RESHARD_MOVE_SECONDS.set(
                    self._clock() - min(self._attempts.values()) if self._attempts else 0.0
                )
                RESHARD_LAG_ROWS.set(self._lag_rows())
                if held != self._working.is_set():
                    log.info("this migrator %s", "works" if held else "stands by")
                (self._working.set if held else self._working.clear)()
                await asyncio.sleep(HEARTBEAT_S)
        finally:
            await fleet.close()

    async def _renew(self, fleet: Fleet) -> bool:
        for shard in fleet.topology.shards:
            try:
                rows = await fleet.fetch(
                    shard.name, SQL["lease"], self._holder, LEASE_MS, self.snapshot().to_json()
                )
            except (ShardFailed, ConfigError, asyncpg.PostgresError):
                continue
            return bool(rows[0]["held"])
        return False

    async def _probe(self) -> None:
        """Measures how shards and service fare while slots move."""
        fleet = await Fleet.connect(self._settings)
        try:
            while True:
                await asyncio.sleep(PROBE_S if self.status.state in ("moving", "cleaning") else IDLE_PROBE_S)
                shards = [await self._probe_shard(fleet, shard.name) for shard in fleet.topology.shards]
                service_ms = await self._probe_service()
                ms, lag_s = (max(values) for values in zip(*shards, strict=True))
                self._options.throttle.look(Sample(ms, lag_s, service_ms))
        finally:
            await fleet.close()

    async def _probe_shard(self, fleet: Fleet, name: str) -> tuple[float, float]:
        """The ms of a statement on a shard, and the lag of its standbys in s; zeros of one that is silent, which
        gets no rows anyway."""
        began = self._clock()
        try:
            rows = await fleet.fetch(name, SQL["standby_lag"])
        except (ShardFailed, ConfigError, asyncpg.PostgresError):
            return 0.0, 0.0
        return (self._clock() - began) * 1000, float(rows[0]["lag_s"])

    async def _probe_service(self) -> float | None:
        """The ms of a request that needs neither shard nor Redis, whether it was answered or given up."""
        if self._options.service is None:
            return None
        began = self._clock()
        self._probes += 1
        name = f"reshard-{self._holder.hex[:12]}-{self._probes}"
        await http_status(self._options.service, "/health/live", name)
        return (self._clock() - began) * 1000


def _say_nothing() -> None:
    """What a migrator that stands by has measured while it worked is another's to say now."""
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


async def _wait(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), timeout_s)
    except TimeoutError:
        return
