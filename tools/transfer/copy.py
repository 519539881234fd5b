"""Copies the rows of slots from one shard to another: binary COPY, piped, never on disk.

Theory. The source is read in a REPEATABLE READ snapshot. Its `xmin` is the oldest transaction that was still
open when it was taken. All that older transactions wrote is in the snapshot; what the snapshot lacks was
written by a transaction that is not older. Every row carries the transaction that wrote it last (`xid`), and
a delete is a row too (a tombstone). So the rows with `xid >= xmin` of the previous snapshot, read from a new
one, are all that may have changed since. No trigger, change log or replication slot is needed.

The first copy goes straight into the tables, which hold no row of the slots. A catch-up has few rows: one
statement finds and returns them, as JSON by column name (exact for every type that these tables have), and
the target upserts them by key. Before that, the caller's transaction on the target has locked the slots' rows
under the attempt's token. So a migrator that was replaced cannot write, and none can be replaced while it
writes. `xid` is not copied: on the target it names the target's own transactions.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from snapurl.store.cluster.tables import Table
from snapurl.store.queries import load_queries
from snapurl.tasks import both
from tools.cluster.calls import IN_SLOTS, smallints

SQL = load_queries("webhooks", package="tools")
CHUNKS_AHEAD = 32  # chunks read from the source that the target has not taken yet


@dataclass(frozen=True, slots=True)
class NonEmptyTables:
    """The tables that have rows of the slots in one snapshot, and the snapshot's `xmin` (the text of an xid8)."""

    xmin: str
    tables: tuple[Table, ...]


@dataclass(frozen=True, slots=True)
class ChangedRows:
    """The rows that may have changed between two snapshots, as one JSON array per table that has any.

    `xmin` is that of the later snapshot.
    """

    xmin: str
    rows: tuple[tuple[Table, str], ...]


async def find_non_empty(source: Any, tables: Sequence[Table], slots: Sequence[int]) -> NonEmptyTables:
    """Returns which tables have rows of `slots`, as of one snapshot."""
    exists = ", ".join(f"EXISTS (SELECT 1 FROM {table.name} WHERE {IN_SLOTS})" for table in tables)
    row = await source.fetchrow(f"SELECT pg_snapshot_xmin(pg_current_snapshot())::text, {exists}", slots)
    found = tuple(table for table, has_rows in zip(tables, row[1:], strict=True) if has_rows)
    return NonEmptyTables(row[0], found)


async def read_changed_rows(
    source: Any, tables: Sequence[Table], slots: Sequence[int], since: str
) -> ChangedRows:
    """Returns the rows that may have changed since the snapshot whose xmin was `since`, as of one snapshot."""
    found = ", ".join(
        f"(SELECT json_agg(c)::text FROM (SELECT {table.column_list} FROM {table.name}"
        f" WHERE {IN_SLOTS} AND xid >= $2::text::xid8) c)"
        for table in tables
    )
    query = f"SELECT pg_snapshot_xmin(pg_current_snapshot())::text, {found}"
    row = await source.fetchrow(query, slots, since)
    changed = tuple((table, rows) for table, rows in zip(tables, row[1:], strict=True) if rows)
    return ChangedRows(row[0], changed)


@asynccontextmanager
async def repeatable_read(source: Any) -> AsyncIterator[None]:
    """All statements on `source` in the block use one REPEATABLE READ snapshot."""
    async with source.transaction(isolation="repeatable_read", readonly=True):
        yield


async def copy_watches(source: Any, target: Any) -> None:
    """Lets the target know of the webhooks that the source knows, so that it tells of the first change that it
    takes.

    A webhook that is created later is added on both, since the topology has named the target before the move
    began.
    """
    if watches := await source.fetchval(SQL["watches"]):
        await target.execute(SQL["take_watches"], watches)


async def copy_rows(source: Any, target: Any, tables: Sequence[Table], slots: Sequence[int]) -> int:
    """Copies every row of `slots` into tables that have none of them. Returns how many rows."""
    copied = 0
    for table in tables:
        query = f"SELECT {table.column_list} FROM {table.name} WHERE slot = ANY ({smallints(slots)})"
        copied += await pipe(source, target, query, table.name, table)
    return copied


async def upsert(target: Any, changed: ChangedRows) -> int:
    """Writes the rows, over those of the same keys. Returns how many rows."""
    tags = [await target.execute(_upsert_query(table), rows) for table, rows in changed.rows]
    return sum(map(rows_of, tags))


def _upsert_query(table: Table) -> str:
    changed = [column for column in table.columns if column not in table.key]
    assignments = ", ".join(f'"{column}" = excluded."{column}"' for column in (*changed, "xid"))
    return (
        f"INSERT INTO {table.name} ({table.column_list}) SELECT {table.column_list}"
        f" FROM json_populate_recordset(NULL::{table.name}, $1::json) "
        f"ON CONFLICT ({table.key_list}) DO UPDATE SET {assignments}"
    )


async def pipe(source: Any, target: Any, query: str, into: str, table: Table) -> int:
    """Streams the rows of `query` on the source into table `into` of the target. Returns how many rows."""
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_AHEAD)

    async def read() -> None:
        await source.copy_from_query(query, output=chunks.put, format="binary", timeout=None)
        await chunks.put(None)

    async def chunks_read() -> AsyncIterator[bytes]:
        over = False
        while not over:
            batch = [await chunks.get(), *(chunks.get_nowait() for _ in range(chunks.qsize()))]
            over = batch[-1] is None
            yield b"".join(filter(None, batch))

    columns = list(table.columns)
    writing = target.copy_to_table(into, source=chunks_read(), columns=columns, format="binary", timeout=None)
    _, tag = await both(read(), writing)
    return rows_of(tag)


def rows_of(tag: str) -> int:
    """Returns the number at the end of a command tag such as `COPY 120`."""
    return int(tag.rpartition(" ")[2])
