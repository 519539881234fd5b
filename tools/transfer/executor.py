"""Executes the steps of a hand-off for a batch of slots, as `ring/handoff.py` lists them.

There are no decisions here. Each step is one call on one shard whose guard is in
`migrations/0007_handoff.sql`; PURGE, COPY and CATCH_UP lock the target's rows of `slots` while they write. If
a step is refused (SN001) or a connection is lost, the attempt stops there: the next one, under a fresh token,
finds what was done.
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
from snapurl.store.cluster.tables import Table
from snapurl.telemetry.traces import span
from tools.cluster.calls import Argument, call, smallints
from tools.transfer.batch import Batch
from tools.transfer.compare import differences, differences_since
from tools.transfer.copy import (
    copy_rows,
    copy_watches,
    find_non_empty,
    read_changed_rows,
    repeatable_read,
    upsert,
)

log = logging.getLogger("snapurl.migrator")

# Writers queue behind the wait for the lock, so it is part of the pause. It doubles with each try.
LOCK_MS_FIRST = 2
LOCK_MS_MAX = 30
LOCK_ATTEMPTS = 60  # then the attempt is aborted: a writer is stuck
LOCK_RETRY_S_FIRST = 0.005  # between two tries; doubles too
LOCK_RETRY_S_MAX = 0.05
CATCH_UPS_MAX = 8
CATCH_UP_ROWS_ENOUGH = 200  # so few changed rows may be copied in the pause
PURGE_ROWS = 5_000


class Refused(Exception):
    """The attempt was aborted; before the decision, the source serves the slots again. The message says why."""


@dataclass(slots=True)
class ShardPair:
    """A connection to each side, for one attempt at a time, and the tables to copy."""

    source: Any
    target: Any
    tables: Sequence[Table]


@dataclass(slots=True, eq=False)
class Executor:
    """Executes the steps of one batch under one token, and measures them.

    `found` has the state and token of each slot on the source in the snapshot, if its hand-off had begun.
    `step` is the current step, `rows` how many rows were copied or deleted. `behind` is the number of rows
    that the last CATCH_UP found changed. `pause_ms` is set once the slots have been frozen and are served
    again.
    """

    batch: Batch
    pair: ShardPair
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
    def span_attributes(self) -> dict[str, Any]:
        """Returns the attributes of the move's span."""
        batch = self.batch
        attributes = {
            "move": str(self.token),
            "source": batch.source,
            "target": batch.target,
            "slots": len(batch.slots),
        }
        return {f"snapurl.{name}": value for name, value in attributes.items()}

    async def run(self, program: Program) -> None:
        """Executes the steps in order.

        Raises Refused if a step is refused, and asyncpg's errors and OSError if a connection is lost.
        """
        try:
            for step in program:
                self.step = step
                log.debug("%s: %s", self.batch, step)
                with span(f"step {step}"):
                    await self._execute(step)
        except asyncpg.PostgresError as error:
            if getattr(error, "sqlstate", "") != "SN001":
                raise
            raise Refused(f"{self.batch}: {error}") from error

    async def _execute(self, step: Step) -> None:  # noqa: PLR0912  # one case per step, with nothing but a call
        source, target = self.pair.source, self.pair.target
        slots, epochs = self.batch.slots, self.batch.epochs
        on_source = (slots, epochs, self.batch.target, self.token)
        on_target = (slots, epochs, self.batch.source, self.token)
        match step:
            case Step.LEAVE:
                await self._call_locked("handoff_leave_v1")
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
                await self._call_locked("handoff_freeze_v1")
            case Step.VERIFY:
                await self._verify()
            case Step.CLOSE:
                await self._call(source, "handoff_close_v1", *on_source)
            case Step.COMMIT:
                await self._call(target, "handoff_commit_v1", *on_target)
                self._end_pause()
            case Step.RELEASE:
                await self._call(source, "handoff_release_v1", *on_source)
            case Step.RETRACT:
                await self._call(target, "handoff_retract_v1", slots, epochs, self.batch.source)
            case Step.RESTORE:
                await self._call(source, "handoff_restore_v1", *on_source)
                self._end_pause()
            case Step.CLEAN:
                await self._clean()
            case Step.WAIT:
                pass
            case _:
                assert_never(step)

    async def _call(self, connection: Any, function: str, *arguments: Argument) -> None:
        await call(connection, function, *arguments, relaxed=self.step in RELAXED)

    async def _abort(self, why: str) -> None:
        await self.run(ABORT)
        raise Refused(f"{self.batch}: {why}")

    async def _call_locked(self, function: str) -> None:
        """Calls a step that waits for running writes. Each try is short, so that a stuck writer causes no pause."""
        batch = self.batch
        found = (batch.slots, batch.epochs, batch.target, self.token)
        for tries in range(LOCK_ATTEMPTS):
            began = self.clock()
            lock_ms = min(LOCK_MS_MAX, LOCK_MS_FIRST << tries)
            try:
                await self._call(self.pair.source, function, *found, lock_ms)
            except asyncpg.LockNotAvailableError:
                retry_s = min(LOCK_RETRY_S_MAX, LOCK_RETRY_S_FIRST * 2**tries)
                await asyncio.sleep(retry_s * random.uniform(0.5, 1.5))
                continue
            if self.step is Step.FREEZE:
                self._frozen_at = began
            return
        why = (
            f"a transaction on {batch.source} has held the lock of one of the slots for too long: find it there in "
            "pg_stat_activity or pg_prepared_xacts"
        )
        if self.step is Step.LEAVE:
            raise Refused(f"{batch}: {why}")
        await self._abort(why)

    def _end_pause(self) -> None:
        if self._frozen_at is not None:
            self.pause_ms = (self.clock() - self._frozen_at) * 1000

    # -- rows ------------------------------------------------------------------------------------------------

    async def _lock_rows(self) -> None:
        batch = self.batch
        on_target = (batch.slots, batch.epochs, batch.source, self.token)
        await self._call(self.pair.target, "handoff_hold_v1", *on_target)

    def _count(self, rows: int) -> None:
        self.rows += rows
        self.copied(rows)

    async def _purge(self) -> None:
        while tables := (await find_non_empty(self.pair.target, self.pair.tables, self.batch.slots)).tables:
            async with self.pair.target.transaction():
                await self._lock_rows()
                for table in tables:
                    await _delete_some(self.pair.target, table, self.batch.slots)

    async def _copy(self) -> None:
        source, target, slots = self.pair.source, self.pair.target, self.batch.slots
        await copy_watches(source, target)
        async with repeatable_read(source), target.transaction():
            await self._lock_rows()
            found = await find_non_empty(source, self.pair.tables, slots)
            self._count(await copy_rows(source, target, found.tables, slots))
        self._since = found.xmin

    async def _catch_up(self) -> None:
        """Copies changed rows: while the source serves, until few are left; once it is frozen, all of them.

        A write that comes in after the freeze means that another attempt took over: CLOSE will be refused.
        """
        for _ in range(CATCH_UPS_MAX):
            copied = await self._copy_changed()
            if copied <= CATCH_UP_ROWS_ENOUGH or self._frozen_at is not None:
                break

    async def _copy_changed(self) -> int:
        changed = await read_changed_rows(self.pair.source, self.pair.tables, self.batch.slots, self._since)
        copied = 0
        if changed.rows:
            async with self.pair.target.transaction():
                await self._lock_rows()
                copied = await upsert(self.pair.target, changed)
        self._since = changed.xmin
        self.behind = copied
        self._count(copied)
        return copied

    async def _check(self) -> None:
        """Compares all rows as of one snapshot of the source, which still serves. VERIFY continues from it."""
        async with repeatable_read(self.pair.source):
            await self._copy_changed()
            await self._lock_rows()  # its commit flushes the copy to disk, so that COMMIT need not
            found = await differences(*self._sides)
        await self._abort_on(found)
        self._checked = self._since

    async def _verify(self) -> None:
        """Compares the rows of both sides, outside any lock.

        The CLOSE and COMMIT that follow check the attempt's token, so no other attempt's step came in
        between.
        """
        if self._checked:
            await self._abort_on(await differences_since(*self._sides, self._checked))
        else:
            await self._abort_on(await differences(*self._sides))

    @property
    def _sides(self) -> tuple[Any, Any, Sequence[Table], Sequence[int]]:
        return self.pair.source, self.pair.target, self.pair.tables, self.batch.slots

    async def _abort_on(self, different: list[str]) -> None:
        if different:
            await self._abort(
                f"the copy differs from the source ({'; '.join(different)}), which keeps the slots"
            )

    async def _clean(self) -> None:
        source, slots = self.pair.source, self.batch.slots
        while tables := (await find_non_empty(source, self.pair.tables, slots)).tables:
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
