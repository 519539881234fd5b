"""Copies the rows of slots from one shard to another: binary COPY, piped, never on disk.

Theory. The source is read in a REPEATABLE READ snapshot. Its `xmin` is the oldest transaction that was still open
when it was taken: whatever an older one wrote is in the snapshot, and whatever the snapshot lacks was written
by a transaction that is not older. Every row carries the transaction that wrote it last (`xid`), and a delete is
a row too (a tombstone), so the rows with `xid >= xmin` of the previous snapshot, read from a new one, are
exactly what may have changed since. No trigger, change log or replication slot is needed.

The first copy goes straight into the tables, which hold no row of the slots. A catch-up has few rows, so the one
statement that looks for them brings them as well, as JSON (exact for every type that tables here have, and by the
names of columns), and the target replaces rows by key: no more than what was written to the slots while they were
copied. The caller has begun the target's transaction by holding the slots' rows there under the attempt's token: a
migrator that has been replaced cannot write, and cannot be replaced while it writes. `xid` is not copied: it counts
the target's own transactions there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from snapurl.tasks import both
from tools.cluster.calls import IN_SLOTS, smallints
from tools.cluster.tables import Table

CHUNKS_AHEAD = 32  # chunks read from the source before the target has taken them


@dataclass(frozen=True, slots=True)
class Rows:
    """What one snapshot of the source shows: its `xmin`, as PostgreSQL writes an xid8, and which tables have rows
    of the slots."""

    xmin: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class Changes:
    """What one snapshot of the source, of this `xmin`, shows to have changed since an earlier one: JSON arrays of
    rows, by table, without those tables in which nothing has."""

    xmin: str
    rows: tuple[tuple[Table, str], ...]


async def look(source: Any, tables: Sequence[Table], slots: Sequence[int]) -> Rows:
    """One statement, and so one snapshot: if it shows no table with rows there is nothing to copy as of it."""
    questions = ", ".join(f"EXISTS (SELECT 1 FROM {table.name} WHERE {IN_SLOTS})" for table in tables)
    row = await source.fetchrow(f"SELECT pg_snapshot_xmin(pg_current_snapshot())::text, {questions}", slots)
    return Rows(row[0], tuple(table for table, there in zip(tables, row[1:], strict=True) if there))


async def changes(source: Any, tables: Sequence[Table], slots: Sequence[int], since: str) -> Changes:
    """The rows that may have changed since the snapshot whose xmin was `since`; one statement, one snapshot."""
    found = ", ".join(
        f"(SELECT json_agg(c)::text FROM (SELECT {table.column_list} FROM {table.name}"
        f" WHERE {IN_SLOTS} AND xid >= $2::text::xid8) c)"
        for table in tables
    )
    query = f"SELECT pg_snapshot_xmin(pg_current_snapshot())::text, {found}"
    row = await source.fetchrow(query, slots, since)
    return Changes(row[0], tuple((table, rows) for table, rows in zip(tables, row[1:], strict=True) if rows))


@asynccontextmanager
async def snapshot_of(source: Any) -> AsyncIterator[None]:
    """All statements on `source` in the block see one REPEATABLE READ snapshot."""
    async with source.transaction(isolation="repeatable_read", readonly=True):
        yield


async def copy_all(source: Any, target: Any, rows: Rows, slots: Sequence[int]) -> int:
    """Copies every row of `slots` into tables that have none of them; how many rows."""
    copied = 0
    for table in rows.tables:
        query = f"SELECT {table.column_list} FROM {table.name} WHERE slot = ANY ({smallints(slots)})"
        copied += await pipe(source, target, query, table.name, table)
    return copied


async def replace(target: Any, found: Changes) -> int:
    """Puts the rows in place of those of the same keys; how many rows."""
    tags = [await target.execute(_replace(table), rows) for table, rows in found.rows]
    return sum(map(rows_of, tags))


def _replace(table: Table) -> str:
    changed = [column for column in table.columns if column not in table.key]
    assignments = ", ".join(f'"{column}" = excluded."{column}"' for column in (*changed, "xid"))
    return (
        f"INSERT INTO {table.name} ({table.column_list}) SELECT {table.column_list}"
        f" FROM json_populate_recordset(NULL::{table.name}, $1::json) "
        f"ON CONFLICT ({table.key_list}) DO UPDATE SET {assignments}"
    )


async def pipe(source: Any, target: Any, query: str, into: str, table: Table) -> int:
    """Streams the rows of `query` at the source into table `into` of the target, as they come; how many."""
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_AHEAD)

    async def read() -> None:
        await source.copy_from_query(query, output=chunks.put, format="binary", timeout=None)
        await chunks.put(None)

    async def incoming() -> AsyncIterator[bytes]:
        over = False
        while not over:
            waiting = [await chunks.get(), *(chunks.get_nowait() for _ in range(chunks.qsize()))]
            over = waiting[-1] is None
            yield b"".join(filter(None, waiting))

    columns = list(table.columns)
    writing = target.copy_to_table(into, source=incoming(), columns=columns, format="binary", timeout=None)
    _, tag = await both(read(), writing)
    return rows_of(tag)


def rows_of(tag: str) -> int:
    """The number at the end of a command tag such as `COPY 120`."""
    return int(tag.rpartition(" ")[2])
