"""Copies the rows of slots from one shard to another: binary COPY, piped, never on disk.

Theory. The source is read in a REPEATABLE READ snapshot. Its `xmin` is the oldest transaction that was still open
when it was taken: whatever an older one wrote is in the snapshot, and whatever the snapshot lacks was written
by a transaction that is not older. Every row carries the transaction that wrote it last (`xid`), and a delete is
a row too (a tombstone), so the rows with `xid >= xmin` of the previous snapshot, read from a new one, are
exactly what may have changed since. No trigger, change log or replication slot is needed.

The first copy goes straight into the tables, which hold no row of the slots. A catch-up goes through a
temporary table, which the session keeps, and replaces rows by key. The caller has begun the target's
transaction by holding the slots' rows there under the attempt's token: a migrator that has been replaced
cannot write, and cannot be replaced while it writes. `xid` is not copied: it counts the target's own
transactions there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tools.calls import smallints
from tools.manifest import Table

CHUNKS_AHEAD = 32  # chunks read from the source before the target has taken them


@dataclass(frozen=True, slots=True)
class Rows:
    """What one snapshot of the source shows: its `xmin`, as PostgreSQL writes an xid8, and which tables have rows
    of the slots (only changed ones, if it was asked `since`)."""

    xmin: str
    tables: tuple[Table, ...]


async def look(source: Any, tables: Sequence[Table], slots: Sequence[int], since: str = "") -> Rows:
    """One statement, and so one snapshot: if it shows no table with rows there is nothing to copy as of it."""
    questions = ", ".join(
        f"EXISTS (SELECT 1 FROM {table.name} WHERE {_which(slots, since)})" for table in tables
    )
    row = await source.fetchrow(f"SELECT pg_snapshot_xmin(pg_current_snapshot())::text, {questions}")
    return Rows(row[0], tuple(table for table, there in zip(tables, row[1:], strict=True) if there))


@asynccontextmanager
async def snapshot_of(source: Any) -> AsyncIterator[None]:
    """All statements on `source` in the block see one REPEATABLE READ snapshot."""
    async with source.transaction(isolation="repeatable_read", readonly=True):
        yield


async def copy_all(source: Any, target: Any, rows: Rows, slots: Sequence[int]) -> int:
    """Copies every row of `slots` into tables that have none of them; how many rows."""
    copied = 0
    for table in rows.tables:
        query = f"SELECT {table.column_list} FROM {table.name} WHERE {_which(slots)}"
        copied += await pipe(source, target, query, table.name, table)
    return copied


async def copy_changed(source: Any, target: Any, rows: Rows, slots: Sequence[int], since: str) -> int:
    """Replaces the rows that may have changed since the snapshot whose xmin was `since`; how many rows."""
    copied = 0
    for table in rows.tables:
        query = f"SELECT {table.column_list} FROM {table.name} WHERE {_which(slots, since)}"
        copied += await pipe(source, target, query, _incoming(table), table)
        await target.execute(_replace(table))
    return copied


async def prepare_to_replace(target: Any, tables: Sequence[Table]) -> None:
    """Makes what `copy_changed` needs on this connection, once."""
    made = (
        f"CREATE TEMPORARY TABLE IF NOT EXISTS {_incoming(table)} (LIKE {table.name} INCLUDING DEFAULTS) "
        "ON COMMIT DELETE ROWS"
        for table in tables
    )
    await target.execute("; ".join(("SET LOCAL synchronous_commit = off", *made)))


def _incoming(table: Table) -> str:
    return f"incoming_{table.name}"


def _replace(table: Table) -> str:
    changed = [column for column in table.columns if column not in table.key]
    assignments = ", ".join(f'"{column}" = excluded."{column}"' for column in (*changed, "xid"))
    return (
        f"INSERT INTO {table.name} ({table.column_list}) SELECT {table.column_list} FROM {_incoming(table)} "
        f"ON CONFLICT ({table.key_list}) DO UPDATE SET {assignments}"
    )


def _which(slots: Sequence[int], since: str = "") -> str:
    return f"slot = ANY ({smallints(slots)})" + (f" AND xid >= '{since}'::xid8" if since else "")


async def pipe(source: Any, target: Any, query: str, into: str, table: Table) -> int:
    """Streams the rows of `query` at the source into table `into` of the target, as they come; how many."""
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_AHEAD)

    async def read() -> None:
        await source.copy_from_query(query, output=chunks.put, format="binary", timeout=None)
        await chunks.put(None)

    async def incoming() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            yield chunk

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            writing = group.create_task(
                target.copy_to_table(
                    into, source=incoming(), columns=list(table.columns), format="binary", timeout=None
                )
            )
    except ExceptionGroup as failed:  # the caller knows asyncpg's errors, not a group of them
        raise failed.exceptions[0] from None
    return rows_of(writing.result())


def rows_of(tag: str) -> int:
    """The number at the end of a command tag such as `COPY 120`."""
    return int(tag.rpartition(" ")[2])
