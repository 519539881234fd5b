"""Released slots are cleaned if the hand-off's table says CLEAN."""

from __future__ import annotations

import pytest

from ring.handoff import SourceState, Step, TableRow, TargetState
from ring.ownership import Owner, SlotRow, SlotState
from tools.migrator.cleanup import steps_after_release

RELEASED = SlotRow(7, SlotState.RELEASED, 3, "db1")  # db0@2 -> db1


@pytest.mark.parametrize(
    ("owner", "expected"),
    [
        (Owner("db1", 3, SlotState.OWNED), Step.CLEAN),
        (Owner("db2", 5, SlotState.OWNED), Step.CLEAN),  # db1 has handed it on, and may be removed
        (Owner("db1", 3, None), Step.WAIT),  # only db0's row says so: db1 does not answer
        (Owner("db2", 2, SlotState.OWNED), Step.WAIT),
        (None, Step.WAIT),
    ],
)
def test_released_rows_are_cleaned_while_a_later_owner_answers(owner: Owner | None, expected: Step) -> None:
    """Rows of a released slot are deleted only while some shard that answers holds it at a later epoch."""
    assert steps_after_release("db0", RELEASED, owner) == (expected,)


def test_an_import_that_was_taken_back_is_cleaned_too() -> None:
    """A retracted target is cleaned, since its source still owns the slot at the epoch of the row."""
    owner = Owner("db0", 1, SlotState.OWNED)
    assert steps_after_release("db1", SlotRow(7, SlotState.RELEASED, 1, "db0"), owner) == (Step.CLEAN,)


def test_cleanup_follows_the_table(monkeypatch: pytest.MonkeyPatch) -> None:
    """If the table does not say CLEAN, nothing is deleted."""
    nothing = {(SourceState.RELEASED, TargetState.OWNER): TableRow((), ())}
    monkeypatch.setattr("ring.handoff.TABLE", nothing)
    assert steps_after_release("db0", RELEASED, Owner("db1", 3, SlotState.OWNED)) == ()
