"""Click counts in the shards, applied exactly once through the cursors.

A call carries one sum per link and day over all its entries, which costs a shard a fraction of applying each
entry. A shard applies a sum as a whole or not at all. If a slot's cursor is between the entries of a sum, as it
may be after a consumer was killed, the shard returns the cursor, and the sum is made again from the entries after
it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from datetime import date
from typing import Any

import asyncpg

from ring.slots import slot_of
from snapurl.errors import ConfigError
from snapurl.model import ClickRow, DayClicks, SourceClicks, SourceKind
from snapurl.store.cluster.pool import Row, ShardFailed
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

SQL = load_queries("clicks")

SOURCES_SHOWN = 50  # per kind, those with the most clicks
CALLS_MAX = (
    3  # per shard for the same rows; each leaves out, or shortens, the slots that blocked the one before
)

BySlot = Mapping[int, Sequence[ClickRow]]
"""Slot -> its rows, in ascending order of entry."""


class ClickStore:
    """Adds clicks to days and reads them. `totals` and `sources` raise Unavailable if the shard does not answer."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    async def apply(self, stream: str, rows: BySlot) -> set[int]:
        """Applies rows at the believed owners, one call per shard. Returns the slots whose rows are now counted.

        Rows at or before a slot's cursor are not counted again, so calling again with the same rows changes
        nothing. Within a slot rows must be given in ascending order of entry over all calls. Slots that are
        missing from the result are in hand-off, elsewhere, or on a shard that does not answer: try them again.
        """
        groups = self._router.group(list(rows), int)
        applied = await asyncio.gather(
            *(self._apply_at(name, stream, slots, rows) for name, slots in groups.items())
        )
        return set().union(*applied)

    async def _apply_at(self, name: str, stream: str, slots: Sequence[int], rows: BySlot) -> set[int]:
        """Applies rows at shard `name`. Returns those of `slots` that it has counted."""
        counted: set[int] = set()
        left = {slot: rows[slot] for slot in slots}
        for _ in range(CALLS_MAX):
            try:
                answers = await self._shards.pool(name).fetch(SQL["apply"], stream, *_sums(left))
            except (ShardFailed, ConfigError, asyncpg.SerializationError):
                return counted
            if not answers:
                return counted | left.keys()
            for answer in answers:
                if self._is_counted(answer, left):
                    counted.add(answer["slot"])
            if not left:
                return counted
        return counted

    def _is_counted(self, answer: Row, left: dict[int, Sequence[ClickRow]]) -> bool:
        """Removes a slot that blocked the call from `left`, or the entries that its cursor includes. Whether it
        is done."""
        slot = answer["slot"]
        rows = left.pop(slot)
        match answer["outcome"]:
            case "done":
                return True
            case "behind":
                left[slot] = [row for row in rows if row.entry > answer["last_entry"]]
            case _:
                self._router.settle(slot, answer)
        return False

    async def totals(self, code: str) -> list[DayClicks]:
        """Returns the clicks of a code by UTC day, oldest first, without days that have none."""
        slot = slot_of(code)
        rows = await self._router.read(slot, lambda pool: pool.fetch(SQL["totals"], slot, code))
        return [DayClicks(row["day"], row["clicks"]) for row in rows if row["day"] is not None]

    async def sources(self, code: str) -> list[SourceClicks]:
        """Returns the sources of a code's clicks over all days: per kind at most SOURCES_SHOWN, most clicks
        first."""
        slot = slot_of(code)
        rows = await self._router.read(
            slot, lambda pool: pool.fetch(SQL["sources"], slot, code, SOURCES_SHOWN)
        )
        return [
            SourceClicks(SourceKind(row["kind"]), row["value"], row["clicks"])
            for row in rows
            if row["kind"] is not None
        ]


def _sums(rows_of: BySlot) -> tuple[Sequence[object], ...]:
    """Returns the arguments of `clicks_apply_v2` after the stream: parallel arrays of slots with their first and
    last entries, of clicks by link and day, and of clicks by source."""
    slots = sorted(rows_of)
    clicks: dict[tuple[int, str, date], int] = {}
    sources: dict[tuple[int, str, date, SourceKind, str], int] = {}
    for slot in slots:
        for row in rows_of[slot]:
            key = (slot, row.code, row.day)
            clicks[key] = clicks.get(key, 0) + row.clicks
            for kind, value, count in row.sources:
                source = (*key, kind, value)
                sources[source] = sources.get(source, 0) + count
    return (
        slots,
        [rows_of[slot][0].entry for slot in slots],
        [rows_of[slot][-1].entry for slot in slots],
        *_transposed([(*key, count) for key, count in clicks.items()], 4),
        *_transposed([(*key, count) for key, count in sources.items()], 6),
    )


def _transposed(rows: list[Any], width: int) -> tuple[list[object], ...]:
    """Sorts and transposes tuples of `width` parts into `width` lists."""
    rows.sort()
    return tuple(map(list, zip(*rows, strict=True))) if rows else ([],) * width
