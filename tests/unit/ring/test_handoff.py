"""The hand-off's table and rules are complete and consistent, and agree with the generated tables."""

from __future__ import annotations

from itertools import product

import pytest

from ring.errors import HandOffError, RingError
from ring.handoff import (
    ABORT,
    RULES,
    TABLE,
    Desired,
    Epoch,
    Move,
    Program,
    SourceState,
    Step,
    TargetState,
    Token,
    found_on_source,
    found_on_target,
    move_of,
    next_steps,
    state_changes,
)
from ring.ownership import SlotRow, SlotState

OWNED, LEAVING, FROZEN, CLOSED, RELEASED, IMPORTING = SlotState
MOVE = Move(42, "db0", 7, "db4")
UNLISTED = {
    (SourceState.OWNED, TargetState.OWNER),
    (SourceState.LEAVING, TargetState.OWNER),
    (SourceState.LEAVING, TargetState.BEHIND),
    (SourceState.FROZEN, TargetState.BEHIND),
    (SourceState.CLOSED, TargetState.BEHIND),
    (SourceState.RELEASED, TargetState.ABSENT),
    (SourceState.RELEASED, TargetState.IMPORTING),
    (SourceState.RELEASED, TargetState.BEHIND),
}
PROGRAMS = [program for line in TABLE.values() for program in (line.move, line.stay)]


def row(state: SlotState, epoch: int, peer: str | None = None) -> SlotRow:
    return SlotRow(42, state, epoch, peer)


def test_a_move_has_one_spelling() -> None:
    """A move is spelled as its source, the source's epoch and its target."""
    assert str(MOVE) == "db0@7 -> db4"


@pytest.mark.parametrize(("source", "target"), list(product(SourceState, TargetState)))
def test_every_pair_has_steps_or_is_an_error(source: SourceState, target: TargetState) -> None:
    """Each pair of states is in the table for both goals, or is one of the known impossible ones."""
    for goal in Desired:
        if (source, target) in UNLISTED:
            with pytest.raises(HandOffError, match=rf"source {source}, target {target}: no hand-off"):
                next_steps(goal, source, target)
        else:
            assert isinstance(next_steps(goal, source, target), tuple)


def test_the_errors_are_of_the_one_tree() -> None:
    """An impossible pair can be caught as RingError."""
    assert issubclass(HandOffError, RingError)


@pytest.mark.parametrize(
    ("goal", "source", "target", "steps"),
    [
        (Desired.STAY, SourceState.OWNED, TargetState.ABSENT, ()),
        (Desired.MOVE, SourceState.LEAVING, TargetState.UNREACHABLE, (Step.WAIT,)),
        (Desired.STAY, SourceState.LEAVING, TargetState.UNREACHABLE, (Step.CLAIM, Step.RESTORE)),
        (Desired.MOVE, SourceState.FROZEN, TargetState.ABSENT, (Step.CLAIM, Step.RETRACT, Step.RESTORE)),
        (Desired.MOVE, SourceState.CLOSED, TargetState.OWNER, (Step.CLAIM, Step.RELEASE)),
        (Desired.STAY, SourceState.CLOSED, TargetState.OWNER, (Step.CLAIM, Step.RELEASE)),
        (Desired.STAY, SourceState.CLOSED, TargetState.UNREACHABLE, (Step.WAIT,)),
        (Desired.MOVE, SourceState.RELEASED, TargetState.OWNER, (Step.CLEAN,)),
    ],
)
def test_known_answers(goal: Desired, source: SourceState, target: TargetState, steps: Program) -> None:
    """Pairs that an operator looks up in the crash table give the documented steps."""
    assert next_steps(goal, source, target) == steps


def test_a_whole_move_in_order() -> None:
    """A move from scratch is these steps in this order."""
    steps = " ".join(next_steps(Desired.MOVE, SourceState.OWNED, TargetState.ABSENT))
    assert steps == ("leave import purge copy catch-up check freeze catch-up verify close commit release")


# -- order within the programs, on which the argument in handoff.py rests --


def before(program: Program, first: Step, then: Step) -> bool:
    """Whether `then` is absent, or `first` comes somewhere before it."""
    return then not in program or first in program[: program.index(then)]


@pytest.mark.parametrize("program", PROGRAMS, ids=" ".join)
def test_order_of_the_steps(program: Program) -> None:
    """Every program first puts a fresh token on the source, and verifies before it closes and decides."""
    touched = [step for step in program if (guard := RULES[step].source) and guard.token is Token.MINE]
    if touched:
        assert program[0] in (Step.LEAVE, Step.CLAIM)
    for step in (Step.PURGE, Step.COPY, Step.CATCH_UP):
        assert before(program, Step.IMPORT, step)
    for first, then in [
        (Step.PURGE, Step.COPY),
        (Step.VERIFY, Step.CLOSE),
        (Step.CLOSE, Step.COMMIT),
    ]:
        assert before(program, first, then) or Step.COMMIT not in program
    if Step.COMMIT in program:
        assert Step.IMPORT in program or Step.ADOPT in program
        assert program[-1] is Step.RELEASE


def test_the_source_is_restored_after_the_retract() -> None:
    """RESTORE without a RETRACT before it only follows from a source that was claimed while leaving."""
    assert ABORT == (Step.RETRACT, Step.RESTORE)
    for (source, target), line in TABLE.items():
        for program in (line.move, line.stay):
            if not before(program, Step.RETRACT, Step.RESTORE):
                assert (source, target) == (SourceState.LEAVING, TargetState.UNREACHABLE)


def test_after_the_decision_there_is_no_way_back() -> None:
    """Once the target owns the slot, nothing is restored or retracted, whatever the goal."""
    for (_, target), line in TABLE.items():
        if target is TargetState.OWNER:
            assert line.move == line.stay
            assert not {Step.RESTORE, Step.RETRACT} & set(line.move)


def test_an_unreachable_target_decides_nothing() -> None:
    """While the target is unreachable, nothing is begun, released or deleted."""
    for (_, target), line in TABLE.items():
        if target is TargetState.UNREACHABLE:
            for program in (line.move, line.stay):
                assert program in ((), (Step.WAIT,), (Step.CLAIM, Step.RESTORE))


# -- observed states --


@pytest.mark.parametrize(
    ("found", "source"),
    [
        (None, SourceState.ELSEWHERE),
        (row(OWNED, 7), SourceState.OWNED),
        (row(OWNED, 9), SourceState.ELSEWHERE),
        (row(LEAVING, 7, "db4"), SourceState.LEAVING),
        (row(LEAVING, 7, "db5"), SourceState.ELSEWHERE),
        (row(FROZEN, 7, "db4"), SourceState.FROZEN),
        (row(CLOSED, 7, "db4"), SourceState.CLOSED),
        (row(CLOSED, 9, "db4"), SourceState.ELSEWHERE),
        (row(RELEASED, 8, "db4"), SourceState.RELEASED),
        (row(RELEASED, 8, "db5"), SourceState.ELSEWHERE),
        (row(RELEASED, 7, "db4"), SourceState.ELSEWHERE),
        (row(IMPORTING, 9, "db4"), SourceState.ELSEWHERE),
    ],
)
def test_what_is_found_on_the_source(found: SlotRow | None, source: SourceState) -> None:
    """A row counts for a move only at the move's epoch and towards its target."""
    assert found_on_source(MOVE, found) is source


@pytest.mark.parametrize(
    ("found", "target"),
    [
        (None, TargetState.ABSENT),
        (row(RELEASED, 7, "db0"), TargetState.ABSENT),
        (row(RELEASED, 3, "db2"), TargetState.ABSENT),
        (row(IMPORTING, 7, "db0"), TargetState.IMPORTING),
        (row(IMPORTING, 6, "db2"), TargetState.ABSENT),
        (row(OWNED, 8), TargetState.OWNER),
        (row(LEAVING, 8, "db1"), TargetState.OWNER),
        (row(RELEASED, 9, "db1"), TargetState.OWNER),
        (row(IMPORTING, 9, "db1"), TargetState.OWNER),
        (row(CLOSED, 6, "db0"), TargetState.BEHIND),
        (row(FROZEN, 6, "db0"), TargetState.BEHIND),
    ],
)
def test_what_is_found_on_the_target(found: SlotRow | None, target: TargetState) -> None:
    """A target beyond the move's epoch shows that the move was decided, whatever happened to the target since."""
    assert found_on_target(MOVE, found) is target


@pytest.mark.parametrize(
    "found", [row(OWNED, 7), row(OWNED, 6), row(LEAVING, 6, "db0"), row(CLOSED, 7, "db1")]
)
def test_a_target_that_serves_too_is_an_error(found: SlotRow) -> None:
    """If the target holds the slot although the source does, the error names the target, the move and the state."""
    with pytest.raises(
        HandOffError, match=rf"slot 42, db0@7 -> db4: the target is {found.state}@{found.epoch}"
    ):
        found_on_target(MOVE, found)


@pytest.mark.parametrize(
    ("shard", "found", "move"),
    [
        ("db0", row(OWNED, 7), None),
        ("db0", row(LEAVING, 7, "db4"), MOVE),
        ("db0", row(FROZEN, 7, "db4"), MOVE),
        ("db0", row(CLOSED, 7, "db4"), MOVE),
        ("db0", row(RELEASED, 8, "db4"), MOVE),
        ("db4", row(IMPORTING, 7, "db0"), MOVE),
    ],
)
def test_a_row_names_its_move(shard: str, found: SlotRow, move: Move | None) -> None:
    """A row on either side identifies its move."""
    assert move_of(shard, found) == move


def test_a_retracted_target_is_cleaned_like_a_source() -> None:
    """After an abort the target looks like a shard that gave the slot to the source, and is cleaned like one."""
    retracted = move_of("db4", row(RELEASED, 7, "db0"))
    assert retracted == Move(42, "db4", 6, "db0")
    source = found_on_source(retracted, row(RELEASED, 7, "db0"))
    target = found_on_target(retracted, row(OWNED, 7))
    assert next_steps(Desired.STAY, source, target) == (Step.CLEAN,)


# -- the rules --


def test_every_step_has_a_rule() -> None:
    """Each step except WAIT is guarded on at least one side."""
    assert set(RULES) == set(Step)
    assert [step for step, rule in RULES.items() if not (rule.source or rule.target)] == [Step.WAIT]


def test_every_step_is_used() -> None:
    """Each step is in a program of the table."""
    assert set().union(*PROGRAMS) == set(Step)


def test_legal_transitions_of_a_row() -> None:
    """The steps make exactly the legal changes of a row, with their effects on the epoch."""
    kept, plus_one, moves = {Epoch.KEPT}, {Epoch.NEXT}, {Epoch.MOVES}
    epochs: dict[tuple[SlotState | None, SlotState], set[Epoch]] = {}
    for change in state_changes():
        epochs.setdefault((change.before, change.after), set()).add(change.epoch)
    assert epochs == {
        (None, OWNED): plus_one,
        (None, IMPORTING): moves,
        (RELEASED, IMPORTING): moves,
        (IMPORTING, IMPORTING): moves | kept,
        (IMPORTING, OWNED): plus_one,
        (IMPORTING, RELEASED): kept,
        (OWNED, LEAVING): kept,
        (LEAVING, LEAVING): kept,
        (LEAVING, FROZEN): kept,
        (LEAVING, OWNED): kept,
        (FROZEN, FROZEN): kept,
        (FROZEN, CLOSED): kept,
        (FROZEN, OWNED): kept,
        (CLOSED, CLOSED): kept,
        (CLOSED, RELEASED): plus_one,
        (CLOSED, OWNED): kept,
    }


def test_only_commit_and_the_first_start_make_an_owner_at_a_new_epoch() -> None:
    """A slot gets an owner only by the decision, by an abort, or on the first start."""
    owners = {(change.step, change.epoch) for change in state_changes() if change.after is OWNED}
    assert owners == {(None, Epoch.NEXT), (Step.COMMIT, Epoch.NEXT), (Step.RESTORE, Epoch.KEPT)}
