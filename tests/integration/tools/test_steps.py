"""Each step's SQL accepts exactly what its row in RULES says, whatever the state of the slot."""

from __future__ import annotations

import itertools
import re
import uuid
from typing import Any

import asyncpg
import pytest

from ring.handoff import RULES, Epoch, Guard, Step, Token
from ring.ownership import SlotState
from snapurl.config import Settings
from tools.cluster import calls
from tools.cluster.calls import Argument, call

SLOT = 7
EPOCH = 5
OTHER = "db9"  # the shard at the other end of the move
MINE, THEIRS, FRESH = uuid.uuid4(), uuid.uuid4(), uuid.uuid4()

# step -> its function, its side, and its arguments after the slots and epochs
STEPS: dict[Step, tuple[str, str, tuple[Argument, ...]]] = {
    Step.LEAVE: ("handoff_leave_v1", "source", (OTHER, MINE, 100)),
    Step.CLAIM: ("handoff_claim_v1", "source", (OTHER, (MINE,), FRESH)),
    Step.FREEZE: ("handoff_freeze_v1", "source", (OTHER, MINE, 100)),
    Step.CLOSE: ("handoff_close_v1", "source", (OTHER, MINE)),
    Step.RELEASE: ("handoff_release_v1", "source", (OTHER, MINE)),
    Step.RESTORE: ("handoff_restore_v1", "source", (OTHER, MINE)),
    Step.CLEAN: ("handoff_clean_v1", "source", ()),
    Step.IMPORT: ("handoff_import_v1", "target", (OTHER, MINE)),
    Step.ADOPT: ("handoff_adopt_v1", "target", (OTHER, MINE)),
    Step.PURGE: ("handoff_hold_v1", "target", (OTHER, MINE)),
    Step.COPY: ("handoff_hold_v1", "target", (OTHER, MINE)),
    Step.CATCH_UP: ("handoff_hold_v1", "target", (OTHER, MINE)),
    Step.COMMIT: ("handoff_commit_v1", "target", (OTHER, MINE)),
    Step.RETRACT: ("handoff_retract_v1", "target", (OTHER,)),
}
CHECKED_BY_OTHERS = {
    Step.CHECK,
    Step.VERIFY,
    Step.WAIT,
}  # they only read; FREEZE, CLOSE and COMMIT check the same

Row = tuple[SlotState | None, uuid.UUID | None, int, str | None]
ROWS: list[Row] = [
    (None, None, 0, None),
    *(
        (state, token, epoch, None if state is SlotState.OWNED else peer)
        for state, token, epoch, peer in itertools.product(
            SlotState, (None, MINE, THEIRS), (EPOCH - 1, EPOCH, EPOCH + 1), (OTHER, "db8")
        )
    ),
]


def accepts(step: Step, guard: Guard, row: Row) -> bool:
    """Whether RULES and its theory allow the step on a row."""
    state, token, epoch, peer = row
    in_move = state is SlotState.OWNED or peer == OTHER
    if step is Step.RETRACT:
        return epoch <= EPOCH  # accepts any epoch that is not later than the move's
    if state not in guard.finds:
        return False
    if guard.epoch is Epoch.MOVES:
        return state is None or epoch <= EPOCH
    if step is Step.CLEAN:
        return epoch == EPOCH  # any target will do: the epoch identifies the ended ownership
    return epoch == EPOCH and in_move and (guard.token is Token.ANY or token == MINE)


def after(step: Step, guard: Guard, row: Row) -> Row:
    """Returns the row after an accepted step."""
    state, token, epoch, peer = row
    if step is Step.RETRACT and not (state is SlotState.IMPORTING and epoch == EPOCH and peer == OTHER):
        return row
    left = guard.leaves or state
    if guard.epoch is Epoch.NEXT:
        epoch += 1
    elif guard.epoch is Epoch.MOVES:
        epoch = EPOCH
    if guard.fresh:
        token, peer = (FRESH if step is Step.CLAIM else MINE), OTHER
    elif left in (SlotState.OWNED, SlotState.RELEASED) and guard.leaves:
        token = None
    return left, token, epoch, None if left is SlotState.OWNED else peer


async def put(connection: Any, row: Row) -> None:
    await connection.execute("DELETE FROM slots WHERE slot = $1", SLOT)
    state, token, epoch, peer = row
    if state is not None:
        await connection.execute(
            "INSERT INTO slots (slot, state, move_token, epoch, peer) VALUES ($1, $2, $3, $4, $5)",
            SLOT, state.value, token, epoch, peer,
        )  # fmt: skip


async def now(connection: Any) -> Row:
    found = await connection.fetchrow(
        "SELECT state, move_token, epoch, peer FROM slots WHERE slot = $1", SLOT
    )
    if found is None:
        return None, None, 0, None
    token = found["move_token"]
    return SlotState(found["state"]), token and uuid.UUID(str(token)), found["epoch"], found["peer"]


def test_every_step_has_its_function() -> None:
    """These tests cover every step of RULES."""
    assert STEPS.keys() | CHECKED_BY_OTHERS == RULES.keys()


@pytest.mark.parametrize("step", STEPS)
async def test_a_step_is_accepted_exactly_when_the_rules_say_so(direct: dict[str, Any], step: Step) -> None:
    """For every state, token, epoch and peer a step follows RULES, or fails with SN001 and changes nothing."""
    connection = direct["db0"]
    function, side, arguments = STEPS[step]
    guard: Guard = getattr(RULES[step], side)
    for row in ROWS:
        await put(connection, row)
        if step is Step.CLAIM:
            arguments = (OTHER, (str(row[0] or SlotState.LEAVING),), (MINE,), FRESH)
        try:
            await call(connection, function, (SLOT,), (EPOCH,), *arguments)
            expected = after(step, guard, row)
            accepted = True
        except asyncpg.PostgresError as error:
            assert getattr(error, "sqlstate", "") == "SN001", (row, error)
            expected, accepted = row, False
        assert accepted == accepts(step, guard, row), row
        assert await now(connection) == expected, row


async def test_a_slot_that_was_closed_meanwhile_cannot_be_claimed(direct: dict[str, Any]) -> None:
    """A migrator that found a slot leaving cannot claim it once it is frozen or closed, even with its token."""
    connection = direct["db0"]
    for state in (SlotState.FROZEN, SlotState.CLOSED):
        await put(connection, (state, MINE, EPOCH, OTHER))
        with pytest.raises(asyncpg.PostgresError) as refusal:
            args = ((SLOT,), (EPOCH,), OTHER, (str(SlotState.LEAVING),), (MINE,), FRESH)
            await call(connection, "handoff_claim_v1", *args)
        assert getattr(refusal.value, "sqlstate", "") == "SN001"


@pytest.mark.parametrize("step", STEPS)
async def test_a_batch_is_all_or_nothing(direct: dict[str, Any], step: Step) -> None:
    """A step on two slots changes neither if one of them is not in the expected state."""
    connection = direct["db0"]
    function, side, arguments = STEPS[step]
    guard: Guard = getattr(RULES[step], side)
    good = next(row for row in ROWS if row[0] and row[1] == MINE and accepts(step, guard, row))
    await put(connection, good)
    await connection.execute("DELETE FROM slots WHERE slot = 9")
    await connection.execute("INSERT INTO slots (slot, state, epoch) VALUES (9, 'owned', $1)", EPOCH + 9)
    if step is Step.CLAIM:
        arguments = (OTHER, (str(good[0]), str(good[0])), (MINE, MINE), FRESH)
    with pytest.raises(asyncpg.PostgresError) as refusal:
        await call(connection, function, (SLOT, 9), (EPOCH, EPOCH), *arguments)
    assert getattr(refusal.value, "sqlstate", "") == "SN001"
    assert await now(connection) == good


async def test_the_check_of_the_table_names_the_states_of_the_enum(direct: dict[str, Any]) -> None:
    """The CHECK constraint on slots.state allows exactly the values of SlotState."""
    definitions = await direct["db0"].fetch(
        "SELECT pg_get_constraintdef(oid) AS text FROM pg_constraint"
        " WHERE conrelid = 'slots'::regclass AND contype = 'c'"
    )
    check = next(row["text"] for row in definitions if "'importing'" in row["text"])
    assert set(re.findall(r"'(\w+)'", check)) == set(SlotState)


async def test_a_step_that_gets_no_answer_is_given_up(
    direct: dict[str, Any], ready: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When a shard hangs, an attempt fails within the bound of a call, so its slots do not stay frozen."""
    monkeypatch.setattr(calls, "CALL_S_MAX", 0.2)
    connection = direct["db0"]
    await put(connection, (SlotState.FROZEN, MINE, EPOCH, OTHER))
    dsn = next(item.dsn for item in ready.shard_dsns if item.name == "db0")
    other = await asyncpg.connect(dsn)
    async with connection.transaction():
        await connection.execute("SELECT 1 FROM slots WHERE slot = $1 FOR UPDATE", SLOT)
        with pytest.raises(TimeoutError):
            await call(other, "handoff_close_v1", (SLOT,), (EPOCH,), OTHER, MINE)
    other.terminate()
