"""What is to be done next: from one look at the cluster to tasks, each with its steps. Pure.

Nothing is remembered between looks. The moves to consider are those that some shard's row speaks of, and those
that the ring asks for; `ring/handoff.py` says what follows from what is found on both sides.
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
    """Slots of one source and target for which the same steps follow; as many as there are."""

    batch: Batch
    program: Program

    def cut(self, slots: int) -> tuple[Task, Task | None]:
        """The task for its first `slots`, and the one for the rest."""
        first, rest = self.batch.cut(slots)
        return Task(first, self.program), Task(rest, self.program) if rest.slots else None

    @property
    def begins(self) -> bool:
        """Whether it is a move that has not begun, as opposed to one that must be brought to an end."""
        return self.program[0] is Step.LEAVE


@dataclass(slots=True)
class Schedule:
    """`urgent`: hand-offs that were found half-way. `moves`: those that begin now. `clean`: released slots.

    `waiting` names, per shard that does not answer, how many hand-offs wait for it; `wrong` has one line per
    slot in which no hand-off could have ended: `doctor` is for these.
    """

    urgent: list[Task] = field(default_factory=list)
    moves: list[Task] = field(default_factory=list)
    clean: list[Task] = field(default_factory=list)
    waiting: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)
    slots_left: int = 0


def schedule(seen: Snapshot, *, busy: Collection[int] = frozenset()) -> Schedule:
    """The agenda from `seen`, without the slots in `busy`, which are being worked on."""
    found = Schedule()
    placement = seen.placement
    left = plan(seen.ownership, placement)
    rows = seen.by_slot
    groups: defaultdict[tuple[str, str, Program], list[Move]] = defaultdict(list)
    for move in _moves(seen, left):
        if move.slot in busy:
            continue
        goal = Desired.MOVE if placement[move.slot] == move.target else Desired.STAY
        try:
            program = _steps(goal, move, rows)
        except HandOffError as error:
            found.wrong.append(str(error))
            continue
        if program == (Step.WAIT,):
            found.waiting[move.target] = found.waiting.get(move.target, 0) + 1
        elif program:
            groups[move.source, move.target, program].append(move)
    for (source, target, program), moves in sorted(groups.items(), key=lambda item: item[0][:2]):
        _file(found, source, target, program, moves)
    found.slots_left = left.slots
    return found


def _moves(seen: Snapshot, left: Plan) -> list[Move]:
    """Each move that some row speaks of, and each that the ring asks for of a slot that is plainly owned."""
    known = {
        move
        for shard, rows in seen.rows.items()
        for row in rows
        if (move := move_of(shard, row)) is not None and move.source in seen.rows
    }
    spoken_of = {(move.slot, move.source, move.epoch) for move in known}
    for route in left.routes:
        for slot in route.slots if route.source in seen.rows else ():
            epoch = seen.by_slot[route.source][slot].epoch
            if (slot, route.source, epoch) not in spoken_of:
                known.add(Move(slot, route.source, epoch, route.target))
    return sorted(known, key=lambda move: (move.slot, move.epoch))


def _steps(goal: Desired, move: Move, rows: Mapping[str, Mapping[int, SlotRow]]) -> Program:
    source = found_on_source(move, rows[move.source].get(move.slot))
    if move.target in rows:
        return next_steps(goal, source, found_on_target(move, rows[move.target].get(move.slot)))
    # What was given away long ago waits for nobody: the shard that took it may be gone for good.
    over = source in (SourceState.RELEASED, SourceState.ELSEWHERE)
    return () if over else next_steps(goal, source, TargetState.UNREACHABLE)


def _file(found: Schedule, source: str, target: str, program: Program, moves: list[Move]) -> None:
    batch = Batch(source, target, tuple(move.slot for move in moves), tuple(move.epoch for move in moves))
    task = Task(batch, program)
    if program[0] is Step.CLEAN:
        found.clean.append(task)
    elif task.begins:
        found.moves.append(task)
    else:
        found.urgent.append(task)
