"""The sharded tables: every table with a `slot` column moves with its slots.

They are read from the shard, so no list can miss a new table. A move begins only if both shards have the same
ones.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from snapurl.store.cluster.pool import CLUSTER


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
    """Returns the sharded tables, by name."""
    rows = await connection.fetch(CLUSTER["sharded_columns"])
    return tuple(Table(row["name"], tuple(row["columns"]), tuple(row["key"])) for row in rows)
