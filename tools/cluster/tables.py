"""What moves with a slot: every table that has a `slot` column, read from the shard itself.

Nothing has to be listed by hand, so a new sharded table cannot be forgotten. A move compares what both shards
say before it begins.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snapurl.store.queries import load_queries

SQL = load_queries("handoff", package="tools")


@dataclass(frozen=True, slots=True)
class Table:
    """One sharded table: its columns without `xid` (which is the shard's own), and its primary key."""

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]

    @property
    def column_list(self) -> str:
        return ", ".join(f'"{column}"' for column in self.columns)

    @property
    def key_list(self) -> str:
        return ", ".join(f'"{column}"' for column in self.key)


async def sharded_tables(connection: Any) -> tuple[Table, ...]:
    """The tables that a move of slots takes along, by name."""
    rows = await connection.fetch(SQL["sharded_columns"])
    return tuple(Table(row["name"], tuple(row["columns"]), tuple(row["key"])) for row in rows)
