"""The migrators' next events: they observe, consult the real table, and run its steps, or they are stopped.

A step with its check is one event, like one transaction. COPY, CATCH_UP and CHECK also read the source and write
the target in one event. This is sound: between the read and the write, under the same token, nothing else can
observe the difference, and the last CATCH_UP reads a frozen source. A lost request is a migrator killed before its
step, a lost reply one killed after it.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from typing import Final, NamedTuple

from ring.errors import HandOffError
from ring.handoff import (
    ABORT,
    RULES,
    Desired,
    Program,
    Step,
    TargetState,
    found_on_source,
    found_on_target,
    next_steps,
)
from ring.ownership import SlotState
from tests.model.crashes import flushed
from tests.model.mutation import Mutation
from tests.model.shard import Refused, Shards
from tests.model.world import (
    IDLE,
    Busy,
    Idle,
    Migrator,
    Row,
    Scope,
    Slots,
    Snapshot,
    World,
    Writing,
    as_move,
    put,
    slot_row,
)

_SNAPSHOTS: Final = frozenset({Step.COPY, Step.CATCH_UP, Step.CHECK})


class Violation(Exception):
    """An invariant does not hold."""


class Event(NamedTuple):
    """An event: its name, whether it is a fault or the operator's choice, and the world after it."""

    name: str
    fault: bool
    world: World


class Migrators:
    """Events of the migrators, under a mutation."""

    def __init__(self, mutation: Mutation, scope: Scope) -> None:
        self._mutation = mutation
        self._scope = scope
        self._shards = Shards(mutation)

    def events(self, world: World) -> Iterator[Event]:
        """Yields all possible next events. Raises Violation if an event itself breaks an invariant."""
        if isinstance(world.migrators[0], Idle):
            yield from _looks(world)
        else:
            yield from self._stop(world)
        for place, me in enumerate(world.migrators):
            if isinstance(me, Snapshot):
                yield from self._decide(world, place, me)
            elif isinstance(me, Busy):
                yield from self._step(world, place, me)

    def _stop(self, world: World) -> Iterator[Event]:
        """The active migrator is killed, or is stopped and replaced; a stopped one may wake at any later time."""
        working, stale = world.migrators
        yield Event("the migrator is killed", True, world._replace(migrators=(IDLE, stale)))
        if self._scope.stale:
            yield Event("the migrator is stopped", True, world._replace(migrators=(IDLE, working)))

    def _decide(self, world: World, place: int, me: Snapshot) -> Iterator[Event]:
        for target in (look_at_target(world, me), TargetState.UNREACHABLE):
            then = self._ready(me, self._program(me, target))
            fault = target is TargetState.UNREACHABLE
            yield Event(f"{_who(place)} finds the target {target}", fault, _now(world, place, then))

    def _program(self, seen: Snapshot, target: TargetState | None) -> Program:
        """Returns the steps of the real table, or none if it lacks the pair: the migrator then observes again."""
        if target is None:
            return ()
        try:
            steps = next_steps(seen.goal, seen.found, target)
        except HandOffError:
            return ()
        return self._mutated(steps)

    def _mutated(self, steps: Program) -> Program:
        return tuple(step for step in steps if step not in self._mutation.without)

    def _ready(self, seen: Snapshot, steps: Program) -> Migrator:
        """Returns the busy migrator. Only CLAIM depends on whether the source is unchanged."""
        if steps in ((), (Step.WAIT,)):
            return IDLE
        unchanged = seen.unchanged and Step.CLAIM in steps
        nowhere = (False,) * self._scope.shards
        return Busy(
            steps,
            seen.source,
            seen.target,
            seen.epoch,
            unchanged,
            nowhere,
            whole=False,
            behind=False,
            equal=not self._mutation.own_check and Step.CHECK not in steps,
            cut=nowhere,
        )

    def _step(self, world: World, place: int, me: Busy) -> Iterator[Event]:
        step = me.steps[0]
        if any(me.cut[shard] for shard in _touched(step, me)):
            yield Event(f"{_who(place)} finds its connection cut", False, _now(world, place, IDLE))
            return
        if step is Step.FREEZE:
            yield Event(f"{_who(place)} gives up to freeze", True, _now(world, place, self._aborting(me)))
            if self._mutation.drain and Writing(me.source) in world.writers:
                return
        try:
            after = self._shards.apply(world, place, step, me)
        except Refused:
            yield Event(f"{_who(place)}: {step}, refused", False, _now(world, place, IDLE))
            return
        after = self._done(after, place, step)
        after = flushed(world, after, relaxed=step in self._mutation.relaxed)
        yield Event(f"{_who(place)}: {step}", False, after)

    def _done(self, world: World, place: int, step: Step) -> World:
        """Returns the world after the step, including its migrator's next state."""
        me = world.migrators[place]
        assert isinstance(me, Busy)
        copies = step is Step.COPY or (step in _SNAPSHOTS and me.behind)
        if copies and world.rows[me.source]:
            world = world._replace(rows=put(world.rows, me.target, world.rows[me.source]))
        elif step in (Step.PURGE, Step.CLEAN):
            emptied = me.source if step is Step.CLEAN else me.target
            world = world._replace(rows=put(world.rows, emptied, 0))
        if self._notices_a_difference(world, step, me):
            if me.whole and self._scope.undisturbed:
                raise Violation("an attempt that nobody disturbed does not verify")
            return _now(world, place, self._aborting(me))
        return _now(world, place, _next(me, step))

    def _notices_a_difference(self, world: World, step: Step, me: Busy) -> bool:
        """Whether the step detects a difference. CHECK compares all rows; VERIFY their number, and the rows unless
        they are known to be equal."""
        left, right = world.rows[me.source], world.rows[me.target]
        if step is Step.CHECK:
            return left != right
        return step is Step.VERIFY and (bool(left) != bool(right) if me.equal else left != right)

    def _aborting(self, me: Busy) -> Migrator:
        steps = self._mutated(ABORT)
        return me._replace(steps=steps, whole=False, behind=False, equal=False) if steps else IDLE


def _touched(step: Step, me: Busy) -> Iterator[int]:
    """Yields the shards that the step accesses."""
    if RULES[step].source is not None or step in _SNAPSHOTS:
        yield me.source
    if RULES[step].target is not None:
        yield me.target


def _who(place: int) -> str:
    return "the woken migrator" if place else "the migrator"


def _now(world: World, place: int, migrator: Migrator) -> World:
    migrators = (migrator, world.migrators[1]) if place == 0 else (world.migrators[0], migrator)
    return world._replace(migrators=migrators)


def _next(me: Busy, step: Step) -> Migrator:
    rest = me.steps[1:]
    if not rest:
        return IDLE
    behind = me.behind and step not in _SNAPSHOTS
    whole = me.whole or step is Step.IMPORT
    equal = (me.equal or step is Step.CHECK) and step is not Step.VERIFY
    return me._replace(steps=rest, whole=whole, behind=behind, equal=equal)


def fall_behind(world: World, shard: int, mutation: Mutation) -> World:
    """Returns the world in which a commit in `shard` invalidates the migrators' snapshots and comparisons of it."""
    first, second = (
        me._replace(behind=me.behind or _has_snapshot(me), equal=me.equal and not mutation.looks_again)
        if isinstance(me, Busy) and me.source == shard
        else me
        for me in world.migrators
    )
    return world._replace(migrators=(first, second))


def _has_snapshot(me: Busy) -> bool:
    return Step.COPY not in me.steps and not _SNAPSHOTS.isdisjoint(me.steps)


def _looks(world: World) -> Iterator[Event]:
    """Yields what the migrator may observe: hand-offs in progress, releases with rows left, the move to make."""
    for shard in range(len(world.slots)):
        seen = concerns(world, shard)
        if seen is not None:
            name = f"the migrator finds the source of {_as_move(seen)} {seen.found}"
            yield Event(name, False, _now(world, 0, seen))


def concerns(world: World, shard: int) -> Snapshot | None:
    """Returns the move that the row of `shard` belongs to, with the state of its source, or None."""
    return _concerns(world.wanted, world.slots, shard, bool(world.rows[shard]))


@cache  # a search calls it with the same few arguments in each of its 100,000 worlds
def _concerns(wanted: int, slots: Slots, shard: int, has_row: bool) -> Snapshot | None:
    match slots[shard]:
        case None:
            return None
        case Row(state=SlotState.OWNED, epoch=epoch):
            return None if wanted == shard else _look(wanted, slots, shard, wanted, epoch)
        case Row(SlotState.IMPORTING, epoch, int(peer)):
            return _look(wanted, slots, peer, shard, epoch)
        case Row(SlotState.RELEASED, epoch, int(peer)):
            return _look(wanted, slots, shard, peer, epoch - 1) if has_row else None
        case Row(_, epoch, int(peer)):
            return _look(wanted, slots, shard, peer, epoch)
    return None


def _look(wanted: int, slots: Slots, source: int, target: int, epoch: int) -> Snapshot:
    goal = Desired.MOVE if wanted == target else Desired.STAY
    found = found_on_source(as_move(source, epoch, target), slot_row(slots[source]))
    return Snapshot(goal, source, target, epoch, found, unchanged=True)


def _as_move(seen: Snapshot) -> str:
    return str(as_move(seen.source, seen.epoch, seen.target))


def look_at_target(world: World, seen: Snapshot) -> TargetState | None:
    """Returns the state of the target, or None if it contradicts the move."""
    try:
        return _found_on_target(seen, world.slots[seen.target])
    except HandOffError:
        return None


def found_wrong(world: World, seen: Snapshot) -> str | None:
    """Returns the table's error for the current pair of states, or None if it is listed."""
    return refused_pair(seen, world.slots[seen.target])


@cache
def refused_pair(seen: Snapshot, on_target: Row | None) -> str | None:
    """Returns the table's error for a move and the row on its target, or None if it is listed."""
    try:
        next_steps(seen.goal, seen.found, _found_on_target(seen, on_target))
    except HandOffError as error:
        return str(error)
    return None


def _found_on_target(seen: Snapshot, row: Row | None) -> TargetState:
    return found_on_target(as_move(seen.source, seen.epoch, seen.target), slot_row(row))
