"""One attempt at a hand-off: carries out the steps that `ring/handoff.py` asks for, for a batch of slots.

There are no decisions here. Each step is one call on one shard whose guard is in `migrations/0007_handoff.sql`;
PURGE, COPY and CATCH_UP hold the target's rows while they write. When a step is refused (SN001) or a shard is
lost, the attempt ends where it is: whoever looks next, under a fresh token, sees what was done.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, assert_never
from uuid import UUID

import asyncpg

from ring.handoff import ABORT, RELAXED, Program, Step
from snapurl.telemetry.traces import span
from tools.cluster.calls import Argument, call, smallints
from tools.cluster.tables import Table
from tools.transfer.batch import Batch
from tools.transfer.compare import differences, differences_since
from tools.transfer.copy import Changes, changes, copy_all, look, replace, snapshot_of

log = logging.getLogger("snapurl.migrator")

LOCK_MS_FIRST = (
    2  # wait for the last writers of a batch: others queue behind it, so it counts into the pause;
)
LOCK_MS_MAX = 30  # where somebody always writes, it doubles with each try up to this
LOCK_ATTEMPTS = 60  # then the attempt is given up: a writer is stuck
LOCK_RETRY_S_FIRST = 0.005  # between two tries; doubles too
LOCK_RETRY_S_MAX = 0.05
CATCH_UPS_MAX = 8
CATCH_UP_ROWS_ENOUGH = 200  # so few changed rows that they go into the pause
PURGE_ROWS = 5_000


class Refused(Exception):
    """The attempt was given up and, before the decision, taken back. The message says why."""


@dataclass(slots=True)
class ShardPair:
    """A connection to each side, for one attempt at a time, and what moves."""

    source: Any
    target: Any
    tables: Sequence[Table]


@dataclass(slots=True, eq=False)
class Executor:
    """The steps of one batch under one token, and what they measure.

    `found` are state and token of each slot on the source when it was looked at, if it had begun to leave.
    `step` is the one under way; `behind` is how many rows had changed at the source, when it was last looked, since
    the look before; `pause_ms` is set once the slots have been frozen and served again.
    """

    batch: Batch
    ends: ShardPair
    found: Sequence[tuple[str, UUID]] = ()
    copied: Callable[[int], None] = lambda rows: None
    clock: Callable[[], float] = time.monotonic
    token: UUID = field(default_factory=uuid.uuid4)
    step: Step = Step.WAIT
    rows: int = 0
    behind: int = 0
    pause_ms: float | None = None
    _since: str = ""
    _checked: str = ""
    _frozen_at: float | None = None

    @property
    def names(self) -> dict[str, Any]:
        """What its span is found by."""
        batch = self.batch
        named = {
            "move": str(self.token),
            "source": batch.source,
            "target": batch.target,
            "slots": len(batch.slots),
        }
        return {f"snapurl.{name}": value for name, value in named.items()}

    async def run(self, program: Program) -> None:
        """Carries the steps out in order.

        Raises Refused after a step was refused, and asyncpg's errors and OSError when a shard is lost.
        """
        try:
            for step in program:
                self.step = step
                log.debug("%s: %s", self.batch, step)
                with span(f"step {step}"):
                    await self._do(step)
        except asyncpg.PostgresError as error:
            if getattr(error, "sqlstate", "") != "SN001":
                raise
            raise Refused(f"{self.batch}: {error}") from error

    async def _do(self, step: Step) -> None:  # noqa: PLR0912  # one case per step, and nothing but a call in it
        source, target = self.ends.source, self.ends.target
        slots, epochs = self.batch.slots, self.batch.epochs
        on_source = (slots, epochs, self.batch.target, self.token)
        on_target = (slots, epochs, self.batch.source, self.token)
        match step:
            case Step.LEAVE:
                await self._locked("handoff_leave_v1")
            case Step.CLAIM:
                states = [state for state, _ in self.found]
                tokens = [token for _, token in self.found]
                args = (slots, epochs, self.batch.target, states, tokens, self.token)
                await self._call(source, "handoff_claim_v1", *args)
            case Step.IMPORT:
                await self._call(target, "handoff_import_v1", *on_target)
            case Step.ADOPT:
                await self._call(target, "handoff_adopt_v1", *on_target)
            case Step.PURGE:
                await self._purge()
            case Step.COPY:
                await self._copy()
            case Step.CATCH_UP:
                await self._catch_up()
            case Step.CHECK:
                await self._check()
            case Step.FREEZE:
                await self._locked("handoff_freeze_v1")
            case Step.VERIFY:
                await self._verify()
            case Step.CLOSE:
                await self._call(source, "handoff_close_v1", *on_source)
            case Step.COMMIT:
                await self._call(target, "handoff_commit_v1", *on_target)
                self._pause_ends()
            case Step.RELEASE:
                await self._call(source, "handoff_release_v1", *on_source)
            case Step.RETRACT:
                await self._call(target, "handoff_retract_v1", slots, epochs, self.batch.source)
            case Step.RESTORE:
                await self._call(source, "handoff_restore_v1", *on_source)
                self._pause_ends()
            case Step.CLEAN:
                await self._clean()
            case Step.WAIT:
                pass
            case _:
                assert_never(step)

    async def _call(self, connection: Any, function: str, *arguments: Argument) -> None:
        await call(connection, function, *arguments, relaxed=self.step in RELAXED)

    async def _give_up(self, why: str) -> None:
        await self.run(ABORT)
        raise Refused(f"{self.batch}: {why}")

    async def _locked(self, function: str) -> None:
        """A step that waits for the writers under way; each try is short, so that a stuck one makes no pause."""
        batch = self.batch
        found = (batch.slots, batch.epochs, batch.target, self.token)
        for tries in range(LOCK_ATTEMPTS):
            began = self.clock()
            lock_ms = min(LOCK_MS_MAX, LOCK_MS_FIRST << tries)
            try:
                await self._call(self.ends.source, function, *found, lock_ms)
            except asyncpg.LockNotAvailableError:
                retry_s = min(LOCK_RETRY_S_MAX, LOCK_RETRY_S_FIRST * 2**tries)
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))
                continue
            if self.step is Step.FREEZE:
                self._frozen_at = began
            return
        why = (
            f"a transaction on {batch.source} has held one of the slots for too long: look for it there in "
            "pg_stat_activity and pg_prepared_xacts"
        )
        if self.step is Step.LEAVE:
            raise Refused(f"{batch}: {why}")
        await self._give_up(why)

    def _pause_ends(self) -> None:
        if self._frozen_at is not None:
            self.pause_ms = (self.clock() - self._frozen_at) * 1000

    # -- rows ------------------------------------------------------------------------------------------------

    async def _hold(self) -> None:
        batch = self.batch
        on_target = (batch.slots, batch.epochs, batch.source, self.token)
        await self._call(self.ends.target, "handoff_hold_v1", *on_target)

    def _count(self, rows: int) -> None:
        self.rows += rows
        self.copied(rows)

    async def _purge(self) -> None:
        while tables := (await look(self.ends.target, self.ends.tables, self.batch.slots)).tables:
            async with self.ends.target.transaction():
                await self._hold()
                for table in tables:
                    await _delete_some(self.ends.target, table, self.batch.slots)

    async def _copy(self) -> None:
        source, target, slots = self.ends.source, self.ends.target, self.batch.slots
        async with snapshot_of(source), target.transaction():
            await self._hold()
            rows = await look(source, self.ends.tables, slots)
            self._count(await copy_all(source, target, rows, slots))
        self._since = rows.xmin

    async def _catch_up(self) -> None:
        """While the source still writes: until little is left. Once it is frozen: the rest, which is exact. (If
        somebody writes all the same, the slots were taken from this attempt, and CLOSE will find that.)"""
        for _ in range(CATCH_UPS_MAX):
            copied = await self._copy_changed()
            if copied <= CATCH_UP_ROWS_ENOUGH or self._frozen_at is not None:
                break

    async def _copy_changed(self) -> int:
        found = await changes(self.ends.source, self.ends.tables, self.batch.slots, self._since)
        copied = await self._replace(found) if found.rows else 0
        self._since = found.xmin
        self.behind = copied
        self._count(copied)
        return copied

    async def _replace(self, found: Changes) -> int:
        async with self.ends.target.transaction():
            await self._hold()
            return await replace(self.ends.target, found)

    async def _check(self) -> None:
        """Compares all rows as of one snapshot of the source, which still serves; VERIFY goes on from there."""
        async with snapshot_of(self.ends.source):
            await self._copy_changed()
            await self._hold()  # waits until the copy is on the disk, so that COMMIT need not
            found = await differences(*self._both)
        await self._expect_none(found)
        self._checked = self._since

    async def _verify(self) -> None:
        """Compares the rows of both sides. The source is frozen and the target this attempt's, since CLOSE and
        COMMIT, which follow, find the token of this attempt on them: nobody else's step came in between."""
        if self._checked:
            await self._expect_none(await differences_since(*self._both, self._checked))
        else:
            await self._expect_none(await differences(*self._both))

    @property
    def _both(self) -> tuple[Any, Any, Sequence[Table], Sequence[int]]:
        return self.ends.source, self.ends.target, self.ends.tables, self.batch.slots

    async def _expect_none(self, found: list[str]) -> None:
        if found:
            await self._give_up(
                f"the copy differs from the source ({'; '.join(found)}), which keeps the slots"
            )

    async def _clean(self) -> None:
        source, slots = self.ends.source, self.batch.slots
        while tables := (await look(source, self.ends.tables, slots)).tables:
            async with source.transaction():
                epochs = tuple(epoch + 1 for epoch in self.batch.epochs)
                await self._call(source, "handoff_clean_v1", slots, epochs)
                for table in tables:
                    self._count(await _delete_some(source, table, slots))


async def _delete_some(connection: Any, table: Table, slots: Sequence[int]) -> int:
    tag: str = await connection.execute(
        f"DELETE FROM {table.name} WHERE ctid = ANY (ARRAY("
        f"SELECT ctid FROM {table.name} WHERE slot = ANY ({smallints(slots)}) LIMIT {PURGE_ROWS}))"
    )
    return int(tag.rpartition(" ")[2])
