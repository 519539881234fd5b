"""Proves that two shards hold the same rows of some slots: a count and an order-free checksum per table."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tools.manifest import Table


@dataclass(frozen=True, slots=True)
class Digest:
    """Rows and the sum of their 64-bit hashes; the order of the rows does not matter."""

    rows: int
    checksum: int


async def digest(connection: Any, table: Table, slots: Sequence[int]) -> Digest:
    """The digest of one table's rows of `slots`; `xid` is left out, since it is each shard's own."""
    row = await connection.fetchrow(
        "SELECT count(*) AS rows,"  # noqa: S608
        f" coalesce(sum(hash_record_extended(ROW({table.column_list}), 0)::numeric), 0) AS checksum"
        f" FROM {table.name} WHERE slot = ANY ($1)",
        slots,
    )
    return Digest(row["rows"], int(row["checksum"]))


async def digests(connection: Any, tables: Sequence[Table], slots: Sequence[int]) -> dict[str, Digest]:
    """Digest by table name."""
    return {table.name: await digest(connection, table, slots) for table in tables}


async def differences(source: Any, target: Any, tables: Sequence[Table], slots: Sequence[int]) -> list[str]:
    """One line per table in which the two differ, such as `links: 12 rows beside 11`; empty if they are equal."""
    left, right = await asyncio.gather(digests(source, tables, slots), digests(target, tables, slots))
    return [
        f"{name}: {left[name].rows} rows beside {right[name].rows}"
        + ("" if left[name].rows != right[name].rows else " with other contents")
        for name in left
        if left[name] != right[name]
    ]
