"""The migrator: makes ownership converge on the ring, and keeps at it.

Theory. It is a reconciler. Each round looks at all shards, reads the agenda from what it sees, and carries out
some of it; hand-offs that were found half-way come first. Nothing is remembered from round to round, so to
resume after a crash is to run, to cancel is to publish the topology from before, and running a second migrator
does no harm: every step is guarded by tokens on the shards. The lease that makes only one of several work is
for the sake of speed, and rests on a clock for that reason only.

One batch moves at a time, in turn from all sources: whatever is copied beside a batch that is frozen makes its
pause longer, on the disks of the shards and in this process, and how much can be copied in a second is bounded by
one process anyway. A round ends after ROUND_S so that a new goal is seen soon. Pairs of shards between which a
batch has failed come last in the next round, so that they keep nobody waiting.
"""

from __future__ import annotations

import asyncio
import logging
import time
import uuid
from collections import Counter, deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import asyncpg

from ring.handoff import Step
from ring.ownership import SlotState
from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.metrics import (
    PAUSE_SECONDS,
    RESHARD_MOVES,
    RESHARD_ORPHANS,
    RESHARD_ROWS,
    RESHARD_SLOTS_IN_STATE,
    RESHARD_SLOTS_LEFT,
)
from snapurl.probe import Address, http_status
from snapurl.store.pool import ShardFailed
from snapurl.tasks import end
from tools.agenda import Agenda, Task, agenda
from tools.attempt import Attempt, Batch, Ends, Refused
from tools.cleanup import dead_slots
from tools.fleet import LOST, Fleet, Seen
from tools.manifest import SQL, Table, sharded_tables
from tools.progress import MoveStatus, PauseLog, Status
from tools.publish import publish, spread
from tools.returned import mend_all
from tools.throttle import Look, Throttle

log = logging.getLogger("snapurl.migrator")

ROUND_S = 2.0
IDLE_S = 0.5
LEASE_MS = 3_000
HEARTBEAT_S = 0.5
PROBE_S = 0.1
IDLE_PROBE_S = 1.0


@dataclass(slots=True)
class Options:
    """How a migrator works; `grace_s` is the age at which released rows may be deleted, `service` where the HTTP
    service can be asked how it fares."""

    grace_s: float = 30.0
    throttle: Throttle = field(default_factory=Throttle)
    service: Address | None = None


class Bench:
    """The connections for steps: one per shard, opened when first needed, dropped when anything goes wrong."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._connections: dict[str, Any] = {}
        self._tables: dict[str, tuple[Table, ...]] = {}

    async def ends(self, batch: Batch) -> Ends:
        """Both ends of a batch. Raises ShardFailed, and Refused when the shards have different tables."""
        source, target = await self.connection(batch.source), await self.connection(batch.target)
        tables = self._tables[batch.source]
        if tables != self._tables[batch.target]:
            raise Refused(f"{batch}: the two have different tables; run `snapurl migrate`")
        return Ends(source, target, tables)

    async def connection(self, name: str) -> Any:
        found = self._connections.get(name)
        if found is None or found.is_closed():
            found = await self._fleet.open(name)
            self._tables[name] = await sharded_tables(found)
            self._connections[name] = found
        return found

    def drop(self) -> None:
        for connection in self._connections.values():
            connection.terminate()
        self._connections.clear()


async def attempt_at(
    task: Task,
    seen: Seen,
    bench: Bench,
    copied: Callable[[int], None] = lambda rows: None,
    clock: Callable[[], float] = time.monotonic,
) -> Attempt:
    """An attempt at a task, with the states and tokens that were seen. Raises as `Bench.ends` does."""
    batch = task.batch
    if task.program == (Step.RETRACT,):
        ends = Ends(None, await bench.connection(batch.target), ())
    else:
        ends = await bench.ends(batch)
    rows = seen.by_slot[batch.source]
    tokens = [
        (rows[slot].state, seen.tokens.get((batch.source, slot))) for slot in batch.slots if slot in rows
    ]
    found = [(str(state), token) for state, token in tokens if token is not None]
    return Attempt(batch, ends, found, copied, clock)


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
        self._attempt: tuple[Attempt, float] | None = None
        self._failed: set[tuple[str, str]] = set()
        self._pauses = PauseLog()
        self._copied: deque[tuple[float, int]] = deque(maxlen=4_096)
        self.status = Status()

    # -- the loop --------------------------------------------------------------------------------------------

    async def run(self, stop: asyncio.Event, *, until_settled: bool = False) -> None:
        """Works until `stop` is set and the batches in hand are done; if `until_settled`, until nothing is left.

        Raises ConfigError when it cannot begin; once it has begun it goes on trying whatever happens.
        """
        self._stop = stop
        fleet = await Fleet.connect(self._settings, f"snapurl-migrator {self._holder.hex[:12]}")
        helpers = [asyncio.create_task(self._heartbeat()), asyncio.create_task(self._probe())]
        bench = Bench(fleet)
        try:
            while not stop.is_set():
                settled = await self._guarded_round(fleet, bench)
                if settled and until_settled:
                    return
                if settled is not None:
                    await _wait(stop, IDLE_S)
        finally:
            await end(*helpers)
            bench.drop()
            await fleet.close()

    async def _guarded_round(self, fleet: Fleet, bench: Bench) -> bool | None:
        """One round. True: nothing is left; False: wait a moment; None: go on at once."""
        if not self._working.is_set():
            self.status = replace(self.status, state="standby")
            return False
        try:
            return await self._round(fleet, bench)
        except (*LOST, asyncpg.PostgresError, ConfigError) as error:
            self._note_error(str(error))
            await fleet.close()
            return False

    async def _round(self, fleet: Fleet, bench: Bench) -> bool | None:
        waiting_for = await mend_all(fleet)
        seen = await fleet.observe()
        await spread(fleet, seen)
        found = agenda(seen, slots_per_batch=self._options.throttle.slots)
        self._describe(seen, found)
        if waiting_for:
            self._note_error(waiting_for[0])
        if found.urgent:
            return None if await self._carry_out(found.urgent, seen, bench) else False
        if seen.topology.paused:
            self.status = replace(self.status, state="paused")
            return False
        if found.moves:
            return None if await self._carry_out(_in_turns(found.moves), seen, bench) else False
        if found.waiting or found.wrong or seen.silent or waiting_for:
            self.status = replace(self.status, state="waiting")
            return False
        return await self._tidy(fleet, seen, bench)

    async def _carry_out(self, tasks: list[Task], seen: Seen, bench: Bench) -> bool:
        """Does the tasks one after another until the round is over; False if any failed."""
        until = self._clock() + ROUND_S
        failed: set[tuple[str, str]] = set()
        for task in sorted(tasks, key=lambda task: task.batch.pair in self._failed):
            if self._clock() >= until or not self._working.is_set() or self._stop.is_set():
                break
            if task.batch.pair in failed:
                continue
            try:
                await self._carry_out_one(bench, task, seen)
            except Refused as error:
                self._note_error(str(error))
            except (*LOST, asyncpg.PostgresError, ConfigError) as error:
                self._note_error(f"{task.batch}: {type(error).__name__}: {error}")
            else:
                continue
            bench.drop()
            failed.add(task.batch.pair)
        self._failed = failed
        return not failed

    async def _carry_out_one(self, bench: Bench, task: Task, seen: Seen) -> None:
        batch = task.batch
        attempt = await attempt_at(task, seen, bench, self._note_rows, self._clock)
        began = self._clock()
        self._attempt = attempt, began
        try:
            await attempt.run(task.program)
        finally:
            self._attempt = None
        RESHARD_MOVES.labels("finished").inc(len(batch.slots))
        if attempt.pause_ms is not None:
            self._pauses.add(attempt.pause_ms)
            PAUSE_SECONDS.observe(attempt.pause_ms / 1000)
            self._options.throttle.after_batch(attempt.rows, attempt.pause_ms)
        await _wait(self._stop, self._options.throttle.wait_s(attempt.rows, self._clock() - began))

    # -- when nothing moves ----------------------------------------------------------------------------------

    async def _tidy(self, fleet: Fleet, seen: Seen, bench: Bench) -> bool | None:
        """Deletes what released slots have left behind, then lets go of shards that are drained and empty."""
        left, waiting = await dead_slots(fleet, seen, self._options.grace_s)
        orphans = sum(len(batch.slots) for batch in left) + waiting
        RESHARD_ORPHANS.set(orphans)
        self.status = replace(self.status, state="cleaning" if left else "idle", orphans=orphans)
        if left:
            tasks = [Task(batch, (Step.CLEAN,)) for batch in left]
            return None if await self._carry_out(tasks, seen, bench) else False
        if waiting:
            return False
        for shard in seen.topology.shards:
            if shard.draining and not any(
                owner and owner.shard == shard.name for owner in seen.ownership.owners
            ):
                await publish(fleet, seen.topology.without(shard.name))
                log.info("shard %s holds nothing any more and may be switched off", shard.name)
                return None
        return True

    # -- what it says of itself ------------------------------------------------------------------------------

    def _describe(self, seen: Seen, found: Agenda) -> None:
        left = found.slots_left
        total = max(self.status.slots_total, left) if left else 0
        rate = self._rows_per_s()
        done = total - left
        rows_left = self.status.rows_copied / done * left if done else 0.0
        RESHARD_SLOTS_LEFT.set(left)
        states = Counter(row.state for rows in seen.rows.values() for row in rows)
        for state in SlotState:
            RESHARD_SLOTS_IN_STATE.labels(str(state)).set(states[state])
        problem = [*found.wrong[:1], *(f"shard {name} {why}" for name, why in seen.silent.items())]
        self.status = replace(
            self.status,
            state="moving" if left or found.urgent else "idle",
            topology_version=seen.topology.version,
            slots_total=total,
            slots_left=left,
            rows_copied=self.status.rows_copied if total else 0,
            rows_per_s=rate,
            eta_s=rows_left / rate if rate and done and left else None,
            last_error=problem[0] if problem else self.status.last_error,
        )

    def snapshot(self) -> Status:
        """The status with the moves under way as they are now."""
        moves: tuple[MoveStatus, ...] = ()
        if self._attempt is not None:
            attempt, began = self._attempt
            moves = (MoveStatus(str(attempt.batch), attempt.step.value, self._clock() - began),)
        return replace(
            self.status,
            moves=moves,
            pauses=self._pauses.summary(),
            rows_per_s=self._rows_per_s(),
            throttle=self._options.throttle.state,
        )

    def _note_rows(self, rows: int) -> None:
        self._copied.append((self._clock(), rows))
        self.status = replace(self.status, rows_copied=self.status.rows_copied + rows)
        RESHARD_ROWS.inc(rows)

    def _rows_per_s(self) -> float:
        """Rows copied per second over the last five seconds."""
        now = self._clock()
        recent = [rows for at, rows in self._copied if at > now - 5]
        return sum(recent) / 5

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
                self._options.throttle.look(Look(ms, lag_s, service_ms))
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
        await http_status(self._options.service, "/health/live")
        return (self._clock() - began) * 1000


def _in_turns(tasks: list[Task]) -> list[Task]:
    """The tasks with their sources taking turns, so that no shard gives away everything at once."""
    by_source: dict[str, deque[Task]] = {}
    for task in tasks:
        by_source.setdefault(task.batch.source, deque()).append(task)
    ordered: list[Task] = []
    while any(by_source.values()):
        ordered += [queue.popleft() for queue in by_source.values() if queue]
    return ordered


async def _wait(stop: asyncio.Event, timeout_s: float) -> None:
    try:
        await asyncio.wait_for(stop.wait(), timeout_s)
    except TimeoutError:
        return
