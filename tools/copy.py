"""Copies the rows of slots from one shard to another: binary COPY, piped, never on disk.

Theory. The source is read in a REPEATABLE READ snapshot. Its `xmin` is the oldest transaction that was still open
when it was taken: whatever an older one wrote is in the snapshot, and whatever the snapshot lacks was written
by a transaction that is not older. Every row carries the transaction that wrote it last (`xid`), and a delete is
a row too (a tombstone), so the rows with `xid >= xmin` of the previous snapshot, read from a new one, are
exactly what may have changed since. No trigger, change log or replication slot is needed.

The first copy goes straight into the tables, which hold no row of the slots. A catch-up goes through a temporary
table and replaces rows by key. The caller has begun the target's transaction by holding the slots' rows there under
the attempt's token: a migrator that has been replaced cannot write, and cannot be replaced while it writes. `xid`
is not copied: it counts the target's own transactions there.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from tools.calls import smallints
from tools.manifest import SQL, Table

CHUNKS_AHEAD = 32  # chunks read from the source before the target has taken them


@dataclass(frozen=True, slots=True)
class Snapshot:
    """A snapshot of the source that is open on `connection`; `xmin` as PostgreSQL writes an xid8."""

    connection: Any
    xmin: str


@asynccontextmanager
async def snapshot_of(source: Any) -> AsyncIterator[Snapshot]:
    """A REPEATABLE READ snapshot of the source for as long as the block runs."""
    async with source.transaction(isolation="repeatable_read", readonly=True):
        yield Snapshot(source, await source.fetchval(SQL["snapshot_xmin"]))


async def copy_all(
    snapshot: Snapshot,
    target: Any,
    tables: Sequence[Table],
    slots: Sequence[int],
) -> int:
    """Copies every row of `slots` into tables that have none of them; how many rows."""
    rows = 0
    for table in tables:
        query = f"SELECT {table.column_list} FROM {table.name} WHERE {_among(slots)}"  # noqa: S608
        rows += await _pipe(snapshot.connection, target, query, table.name, table)
    return rows


async def catch_up(
    snapshot: Snapshot, target: Any, tables: Sequence[Table], slots: Sequence[int], since: str
) -> int:
    """Replaces the rows that may have changed since the snapshot whose xmin was `since`; how many rows."""
    rows = 0
    for table in tables:
        query = (
            f"SELECT {table.column_list} FROM {table.name} "  # noqa: S608
            f"WHERE {_among(slots)} AND xid >= '{since}'::xid8"
        )
        if not await snapshot.connection.fetchval(f"SELECT EXISTS ({query})"):
            continue
        await target.execute(
            f"CREATE TEMPORARY TABLE incoming (LIKE {table.name} INCLUDING DEFAULTS) ON COMMIT DROP"
        )
        rows += await _pipe(snapshot.connection, target, query, "incoming", table)
        await target.execute(_replace(table))
        await target.execute("DROP TABLE incoming")
    return rows


def _replace(table: Table) -> str:
    changed = [column for column in table.columns if column not in table.key]
    assignments = ", ".join(f'"{column}" = excluded."{column}"' for column in (*changed, "xid"))
    return (
        f"INSERT INTO {table.name} ({table.column_list}) SELECT {table.column_list} FROM incoming "  # noqa: S608
        f"ON CONFLICT ({table.key_list}) DO UPDATE SET {assignments}"
    )


def _among(slots: Sequence[int]) -> str:
    return f"slot = ANY ({smallints(slots)})"


async def _pipe(source: Any, target: Any, query: str, into: str, table: Table) -> int:
    chunks: asyncio.Queue[bytes | None] = asyncio.Queue(CHUNKS_AHEAD)

    async def read() -> None:
        await source.copy_from_query(query, output=chunks.put, format="binary", timeout=None)
        await chunks.put(None)

    async def incoming() -> AsyncIterator[bytes]:
        while (chunk := await chunks.get()) is not None:
            yield chunk

    async with asyncio.TaskGroup() as group:
        group.create_task(read())
        writing = group.create_task(
            target.copy_to_table(
                into, source=incoming(), columns=list(table.columns), format="binary", timeout=None
            )
        )
    return rows_of(writing.result())


def rows_of(tag: str) -> int:
    """The number at the end of a command tag such as `COPY 120`."""
    return int(tag.rpartition(" ")[2])
