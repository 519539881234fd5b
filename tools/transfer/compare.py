"""Proves that two shards hold the same rows of some slots: a count and an order-free checksum per table.

Theory. All rows are compared while the source still serves: those of one snapshot of it, with the target as it is
after the catch-up as of the same snapshot. What is left for when nobody writes is what has changed since. That is
asked of PostgreSQL, not of the rows' own `xid`, by which they are copied: each version of a row has the transaction
that wrote it in `xmin`, and one that the snapshot lacks is not older than the snapshot's `xmin`. So a write that
forgot its `xid`, which no catch-up would bring, is noticed all the same. A row that was deleted leaves nothing
behind, but then there is one less. Slots with such rows are compared whole, so that the two sides need not agree on
which rows these are. On the target nothing else changes: the attempt's token holds it up to the decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snapurl.tasks import both
from tools.cluster.calls import IN_SLOTS
from tools.cluster.tables import Table


@dataclass(frozen=True, slots=True)
class Digest:
    """Rows and the sum of their 64-bit hashes; the order of the rows does not matter."""

    rows: int
    checksum: int


async def digests(connection: Any, tables: Sequence[Table], slots: Sequence[int]) -> dict[str, Digest]:
    """Digest by table name, all as of one snapshot; `xid` is left out, since it is each shard's own."""
    rows = await connection.fetch(" UNION ALL ".join(map(_digest, tables)), slots)
    return {row["name"]: Digest(row["rows"], int(row["checksum"])) for row in rows}


def _digest(table: Table) -> str:
    return (
        f"SELECT '{table.name}' AS name, count(*) AS rows,"
        f" coalesce(sum(hash_record_extended(ROW({table.column_list}), 0)), 0) AS checksum"  # of 128 bits
        f" FROM {table.name} WHERE {IN_SLOTS}"
    )


async def differences_since(
    source: Any, target: Any, tables: Sequence[Table], slots: Sequence[int], since: str
) -> list[str]:
    """As `differences`, if there were none as of a snapshot of the source with this xmin and nobody writes now."""
    (left, changed), (right, _) = await both(
        _counted(source, tables, slots, since), _counted(target, tables, slots)
    )
    if left != right or changed:
        return await differences(source, target, tables, slots if left != right else sorted(changed))
    return []


async def _counted(
    connection: Any, tables: Sequence[Table], slots: Sequence[int], since: str = ""
) -> tuple[dict[str, int], set[int]]:
    """Rows by table, and the slots in which some were written `since`, all as of one snapshot."""
    query = " UNION ALL ".join(_count(table, since=bool(since)) for table in tables)
    rows = await connection.fetch(query, slots, *filter(None, [since]))
    return {row["name"]: row["rows"] for row in rows}, {slot for row in rows for slot in row["changed"] or ()}


def _count(table: Table, *, since: bool) -> str:
    written = "age(xmin) <= age($2::text::xid8::xid)" if since else "false"
    return (
        f"SELECT '{table.name}' AS name, count(*) AS rows,"
        f" array_agg(DISTINCT slot) FILTER (WHERE {written}) AS changed"
        f" FROM {table.name} WHERE {IN_SLOTS}"
    )


async def differences(source: Any, target: Any, tables: Sequence[Table], slots: Sequence[int]) -> list[str]:
    """One line per table in which the two differ, such as `links: 12 rows beside 11`; empty if they are equal."""
    left, right = await both(digests(source, tables, slots), digests(target, tables, slots))
    return [
        f"{name}: {left[name].rows} rows beside {right[name].rows}"
        + ("" if left[name].rows != right[name].rows else " with other contents")
        for name in left
        if left[name] != right[name]
    ]
