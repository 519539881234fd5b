"""Proves that two shards hold the same rows of some slots: a count and an order-free checksum per table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.calls import smallints
from tools.manifest import Table


@dataclass(frozen=True, slots=True)
class Digest:
    """Rows and the sum of their 64-bit hashes; the order of the rows does not matter."""

    rows: int
    checksum: int


async def digests(connection: Any, tables: Sequence[Table], slots: Sequence[int]) -> dict[str, Digest]:
    """Digest by table name, all as of one snapshot; `xid` is left out, since it is each shard's own."""
    rows = await connection.fetch(" UNION ALL ".join(_digest(table, slots) for table in tables))
    return {row["name"]: Digest(row["rows"], int(row["checksum"])) for row in rows}


def _digest(table: Table, slots: Sequence[int]) -> str:
    return (
        f"SELECT '{table.name}' AS name, count(*) AS rows,"
        f" coalesce(sum(hash_record_extended(ROW({table.column_list}), 0)), 0) AS checksum"  # of 128 bits
        f" FROM {table.name} WHERE slot = ANY ({smallints(slots)})"
    )


async def differences(source: Any, target: Any, tables: Sequence[Table], slots: Sequence[int]) -> list[str]:
    """One line per table in which the two differ, such as `links: 12 rows beside 11`; empty if they are equal."""
    left, right = await asyncio.gather(digests(source, tables, slots), digests(target, tables, slots))
    return [
        f"{name}: {left[name].rows} rows beside {right[name].rows}"
        + ("" if left[name].rows != right[name].rows else " with other contents")
        for name in left
        if left[name] != right[name]
    ]
