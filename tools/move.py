"""One move: a batch of slots of one source, handed to one target.

Each step is one idempotent call on one shard; `ring/handoff.py` says which step follows from what is found, and
the guards are in `migrations/0006_handoff.sql`. This module only carries steps out, in order, and measures
the pause: from the first attempt to freeze until the target's commit.
"""

from __future__ import annotations

import asyncio
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from uuid import UUID

import asyncpg

from tools.calls import call, smallints
from tools.copy import catch_up, copy_all, snapshot_of
from tools.manifest import Table
from tools.verify import differences

LOCK_MS = 30  # longest wait for the last writers of a batch, each time it is tried
FREEZE_ATTEMPTS = 100  # then the move is given up for now: a writer is stuck
FREEZE_RETRY_S = 0.05
CATCH_UP_ROUNDS_MAX = 8
CATCH_UP_ROWS_ENOUGH = 200  # so few rows are left that they go into the pause
PURGE_ROWS = 5_000


class MoveFailed(Exception):
    """The move was given up and taken back; the message says why and what to look at."""


@dataclass(frozen=True, slots=True)
class Move:
    """`slots` (ascending) owned by `source` at `epochs`, on their way to `target`."""

    slots: tuple[int, ...]
    epochs: tuple[int, ...]
    source: str
    target: str
    token: UUID = field(default_factory=uuid.uuid4)

    @property
    def new_epochs(self) -> tuple[int, ...]:
        return tuple(epoch + 1 for epoch in self.epochs)

    def __str__(self) -> str:
        first = f"{self.source}@{self.epochs[0]} -> {self.target}"
        return (
            f"slot {self.slots[0]}"
            + (f" and {len(self.slots) - 1} more" if len(self.slots) > 1 else "")
            + f", {first}"
        )


@dataclass(slots=True)
class Ends:
    """A connection to each side, for this move alone, and what moves."""

    source: Any
    target: Any
    tables: Sequence[Table]


@dataclass(slots=True)
class Outcome:
    """What a finished move took: rows copied (catch-ups included) and the pause of its slots in ms."""

    rows: int
    pause_ms: float
    copy_s: float


async def hand_off(
    ends: Ends, move: Move, *, copied: Callable[[int], None], clock: Callable[[], float] = time.monotonic
) -> Outcome:
    """Carries out all steps of a move that starts from `owned` (or `leaving`) on its source.

    Raises MoveFailed after taking the move back, and asyncpg's errors and OSError when a shard is lost: then
    nothing is decided here, and whoever looks next carries on or takes it back.
    """
    slots = list(move.slots)
    started = clock()
    await call(ends.target, "handoff_import_v1", slots, move.new_epochs, move.source, move.token)
    await purge(ends.target, ends.tables, slots, move.token)
    await call(ends.source, "handoff_leave_v1", slots, move.epochs, move.target, move.token, LOCK_MS * 10)
    async with snapshot_of(ends.source) as snapshot:
        rows = await copy_all(snapshot, ends.target, ends.tables, slots, move.token)
        since = snapshot.xmin
    copied(rows)
    copy_s = clock() - started
    for _ in range(CATCH_UP_ROUNDS_MAX):
        changed, since = await _catch_up(ends, move, since)
        rows += changed
        copied(changed)
        if changed <= CATCH_UP_ROWS_ENOUGH:
            break
    began = await _freeze(ends, move, clock)
    changed, _ = await _catch_up(ends, move, since)
    copied(changed)
    if found := await differences(ends.source, ends.target, ends.tables, slots):
        await take_back(ends, move)
        raise MoveFailed(f"{move}: the copy differs ({'; '.join(found)}); the source keeps the slots")
    await call(ends.source, "handoff_close_v1", slots, move.token)
    await call(ends.target, "handoff_own_v1", slots, move.token)
    pause_ms = (clock() - began) * 1000
    await call(ends.source, "handoff_release_v1", slots, move.token)
    return Outcome(rows + changed, pause_ms, copy_s)


async def _catch_up(ends: Ends, move: Move, since: str) -> tuple[int, str]:
    async with snapshot_of(ends.source) as snapshot:
        return await catch_up(
            snapshot, ends.target, ends.tables, move.slots, move.token, since
        ), snapshot.xmin


async def _freeze(ends: Ends, move: Move, clock: Callable[[], float]) -> float:
    """Freezes the slots; when the attempt that succeeded began, on `clock`."""
    for _ in range(FREEZE_ATTEMPTS):
        began = clock()
        try:
            await call(ends.source, "handoff_freeze_v1", list(move.slots), move.token, LOCK_MS)
        except asyncpg.LockNotAvailableError:
            await asyncio.sleep(FREEZE_RETRY_S * random.uniform(0.5, 1.5))
        else:
            return began
    await take_back(ends, move)
    raise MoveFailed(
        f"{move}: a transaction on {move.source} holds its slots for too long; "
        "look for it in pg_stat_activity and pg_prepared_xacts there"
    )


async def take_back(ends: Ends, move: Move) -> None:
    """Aborts before the decision: first the target withdraws, then the source keeps the slots."""
    await call(ends.target, "handoff_withdraw_v1", list(move.slots))
    await call(ends.source, "handoff_keep_v1", list(move.slots), move.token)


async def purge(target: Any, tables: Sequence[Table], slots: Sequence[int], token: UUID) -> int:
    """Deletes what rows the target has of slots that it is about to import; how many."""
    purged = 0
    for table in tables:
        if not await target.fetchval(
            f"SELECT EXISTS (SELECT 1 FROM {table.name} WHERE slot = ANY ({smallints(slots)}))"  # noqa: S608
        ):
            continue
        while True:
            async with target.transaction():
                await call(target, "handoff_hold_v1", list(slots), token)
                gone = await delete_some(target, table, slots)
            purged += gone
            if gone < PURGE_ROWS:
                break
    return purged


async def delete_some(connection: Any, table: Table, slots: Sequence[int]) -> int:
    """Deletes up to PURGE_ROWS rows of `slots`; the caller holds the right to do so in the same transaction."""
    tag = await connection.execute(
        f"DELETE FROM {table.name} WHERE ctid = ANY (ARRAY("  # noqa: S608
        f"SELECT ctid FROM {table.name} WHERE slot = ANY ({smallints(slots)}) LIMIT {PURGE_ROWS}))"
    )
    return int(tag.rpartition(" ")[2])
