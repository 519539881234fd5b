"""Proves that two shards hold the same rows of some slots: a count and an order-free checksum per table.

Theory. All rows are compared while the source still serves: those of one snapshot of it, with the target
after the catch-up as of the same snapshot. The pause only has to compare what has changed since. Which rows
these are, PostgreSQL says by the system column `xmin` of each row version, and not the rows' own `xid`, by
which they are copied. A version that the snapshot lacks is not older than the snapshot's `xmin`. So a write
that did not set `xid`, which no catch-up copies, is detected too. A deleted row leaves no version, but the
number of rows differs. Slots with changed rows are compared whole, so that the two sides need not agree on
which rows these are. Nothing else changes on the target: the attempt's token guards it up to the decision.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from snapurl.store.cluster.tables import Table
from snapurl.tasks import both
from tools.cluster.calls import IN_SLOTS


@dataclass(frozen=True, slots=True)
class Digest:
    """The number of rows and the sum of their 64-bit hashes, which does not depend on their order."""

    rows: int
    checksum: int


async def digests(connection: Any, tables: Sequence[Table], slots: Sequence[int]) -> dict[str, Digest]:
    """Returns the digest by table name, as of one snapshot. `xid` is left out: it is each shard's own."""
    rows = await connection.fetch(" UNION ALL ".join(map(_digest_query, tables)), slots)
    return {row["name"]: Digest(row["rows"], int(row["checksum"])) for row in rows}


def _digest_query(table: Table) -> str:
    return (
        f"SELECT '{table.name}' AS name, count(*) AS rows,"
        f" coalesce(sum(hash_record_extended(ROW({table.column_list}), 0)), 0) AS checksum"  # of 128 bits
        f" FROM {table.name} WHERE {IN_SLOTS}"
    )


async def differences_since(
    source: Any, target: Any, tables: Sequence[Table], slots: Sequence[int], since: str
) -> list[str]:
    """As `differences`, given that a snapshot of the source with xmin `since` showed none. Nobody may write now."""
    (left, changed), (right, _) = await both(
        _count_rows(source, tables, slots, since), _count_rows(target, tables, slots)
    )
    if left != right or changed:
        return await differences(source, target, tables, slots if left != right else sorted(changed))
    return []


async def _count_rows(
    connection: Any, tables: Sequence[Table], slots: Sequence[int], since: str = ""
) -> tuple[dict[str, int], set[int]]:
    """Returns the number of rows by table, and the slots written `since` then, as of one snapshot."""
    query = " UNION ALL ".join(_count_query(table, since=bool(since)) for table in tables)
    rows = await connection.fetch(query, slots, *filter(None, [since]))
    return {row["name"]: row["rows"] for row in rows}, {slot for row in rows for slot in row["changed"] or ()}


def _count_query(table: Table, *, since: bool) -> str:
    written = "age(xmin) <= age($2::text::xid8::xid)" if since else "false"
    return (
        f"SELECT '{table.name}' AS name, count(*) AS rows,"
        f" array_agg(DISTINCT slot) FILTER (WHERE {written}) AS changed"
        f" FROM {table.name} WHERE {IN_SLOTS}"
    )


async def differences(source: Any, target: Any, tables: Sequence[Table], slots: Sequence[int]) -> list[str]:
    """Returns one line per table that differs, such as `links: 12 rows against 11`; none if all are equal."""
    left, right = await both(digests(source, tables, slots), digests(target, tables, slots))
    return [
        f"{name}: {left[name].rows} rows against {right[name].rows}"
        + ("" if left[name].rows != right[name].rows else " with different contents")
        for name in left
        if left[name] != right[name]
    ]
