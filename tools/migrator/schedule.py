"""Schedules what to do next: from a snapshot of the cluster to tasks, each with its steps. Pure.

No state is kept between snapshots. The moves to consider are those recorded in some shard's row, and those
that the ring asks for; `ring/handoff.py` has the steps that follow from the states found on both sides.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from ring.errors import HandOffError
from ring.handoff import (
    Desired,
    Move,
    Program,
    SourceState,
    Step,
    TargetState,
    found_on_source,
    found_on_target,
    move_of,
    next_steps,
)
from ring.ownership import SlotRow
from ring.plan import Plan, plan
from tools.cluster.snapshot import Snapshot
from tools.transfer.batch import Batch


@dataclass(frozen=True, slots=True)
class Task:
    """The steps that follow for all slots of `batch`; it has as many slots as there are."""

    batch: Batch
    program: Program

    def cut(self, slots: int) -> tuple[Task, Task | None]:
        """Splits it into a task for its first `slots` slots and one for the rest, None if there is no rest."""
        first, rest = self.batch.cut(slots)
        return Task(first, self.program), Task(rest, self.program) if rest.slots else None

    @property
    def begins(self) -> bool:
        """Whether the move has not begun yet, as opposed to one that must be finished."""
        return self.program[0] is Step.LEAVE


@dataclass(slots=True)
class Schedule:
    """`urgent`: hand-offs that have begun and must be finished. `moves`: those to begin now.

    `waiting` has the number of hand-offs that wait for each silent shard. `wrong` has one line per slot whose
    rows no hand-off leads to: `doctor` handles these. `slots_left` counts the slots that are not where the
    ring wants them.
    """

    urgent: list[Task] = field(default_factory=list)
    moves: list[Task] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slots_left: int = 0


def schedule(snapshot: Snapshot, *, excluded: Collection[int] = frozenset()) -> Schedule:
    """Returns the schedule for `snapshot`, without the slots in `excluded`."""
    found = Schedule()
    placement = snapshot.placement
    left = plan(snapshot.ownership, placement)
    rows = snapshot.by_slot
    groups: defaultdict[tuple[str, str, Program], list[Move]] = defaultdict(list)
    for move in _moves(snapshot, left):
        if move.slot in excluded:
            continue
        desired = Desired.MOVE if placement[move.slot] == move.target else Desired.STAY
        try:
            program = _steps(desired, move, rows)
        except HandOffError as error:
            found.wrong.append(str(error))
            continue
        if program == (Step.WAIT,):
            found.waiting[move.target] = found.waiting.get(move.target, 0) + 1
        elif program and program != (Step.CLEAN,):  # cleanup.py does these, after the grace period
            groups[move.source, move.target, program].append(move)
    for (source, target, program), moves in sorted(groups.items(), key=lambda item: item[0][:2]):
        batch = Batch(source, target, tuple(move.slot for move in moves), tuple(move.epoch for move in moves))
        task = Task(batch, program)
        (found.moves if task.begins else found.urgent).append(task)
    found.slots_left = left.slots
    return found


def _moves(snapshot: Snapshot, left: Plan) -> list[Move]:
    """Returns the moves recorded in the rows, then those that the ring asks for and no row records."""
    moves = {
        move
        for shard, rows in snapshot.rows.items()
        for row in rows
        if (move := move_of(shard, row)) is not None and move.source in snapshot.rows
    }
    recorded = {(move.slot, move.source, move.epoch) for move in moves}
    for transfer in left.transfers:
        for slot in transfer.slots if transfer.source in snapshot.rows else ():
            epoch = snapshot.by_slot[transfer.source][slot].epoch
            if (slot, transfer.source, epoch) not in recorded:
                moves.add(Move(slot, transfer.source, epoch, transfer.target))
    return sorted(moves, key=lambda move: (move.slot, move.epoch))


def _steps(desired: Desired, move: Move, rows: Mapping[str, Mapping[int, SlotRow]]) -> Program:
    source = found_on_source(move, rows[move.source].get(move.slot))
    if move.target in rows:
        return next_steps(desired, source, found_on_target(move, rows[move.target].get(move.slot)))
    # A finished move waits for no shard: the one that took the slot may be gone for good.
    over = source in (SourceState.RELEASED, SourceState.ELSEWHERE)
    return () if over else next_steps(desired, source, TargetState.UNREACHABLE)
