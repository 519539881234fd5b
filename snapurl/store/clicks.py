"""Click counts in the shards, applied exactly once through the cursors.

A call brings each link's clicks of a day as one sum over all entries it is made of, which costs a shard a fraction
of what the entries would. A sum is taken whole or not at all: if a slot's cursor is in the midst of its entries, as
it may be after a consumer was killed, the shard names the cursor, and the sum is made anew of what comes after it.
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

SOURCES_SHOWN = 50  # of a kind, those with the most clicks
CALLS_MAX = 3  # of a shard for the same rows; each leaves out, or cuts down, the slots that stood in the way

BySlot = Mapping[int, Sequence[ClickRow]]
"""Slot -> its rows, in ascending order of entry."""


class ClickStore:
    """Adds clicks to days and reads them. `totals` raises Unavailable when the shard is silent."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    async def apply(self, stream: str, rows: BySlot) -> set[int]:
        """Applies rows at the believed owners, together per shard; the slots whose rows are now counted.

        Rows at or before a slot's cursor are not counted again, so calling again with the same rows changes
        nothing. Within a slot rows must be given in ascending order of entry over all calls. Slots that are not in
        the answer are in hand-off, elsewhere, or on a silent shard: try them again.
        """
        groups = self._router.group(list(rows), int)
        applied = await asyncio.gather(
            *(self._apply_at(name, stream, slots, rows) for name, slots in groups.items())
        )
        return set().union(*applied)

    async def _apply_at(self, name: str, stream: str, slots: Sequence[int], rows: BySlot) -> set[int]:
        """Those of `slots` that shard `name` has counted."""
        counted: set[int] = set()
        left = {slot: rows[slot] for slot in slots}
        for _ in range(CALLS_MAX):
            try:
                answers = await self._shards.pool(name).fetch(SQL["apply"], stream, *_folded(left))
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
        """Takes a slot that stood in the way out of `left`, or what is counted already out of its rows."""
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
        """Clicks of a code by UTC day, oldest first; days without clicks are left out."""
        slot = slot_of(code)
        rows = await self._router.read(slot, lambda pool: pool.fetch(SQL["totals"], slot, code))
        return [DayClicks(row["day"], row["clicks"]) for row in rows if row["day"] is not None]

    async def sources(self, code: str) -> list[SourceClicks]:
        """Where the clicks of a code came from over all days: of each kind the first SOURCES_SHOWN, most first."""
        slot = slot_of(code)
        rows = await self._router.read(
            slot, lambda pool: pool.fetch(SQL["sources"], slot, code, SOURCES_SHOWN)
        )
        return [
            SourceClicks(SourceKind(row["kind"]), row["value"], row["clicks"])
            for row in rows
            if row["kind"] is not None
        ]


def _folded(rows_of: BySlot) -> tuple[Sequence[object], ...]:
    """The arguments of `clicks_apply_v1` after the stream: parallel arrays of slots with their first and last
    entries, of clicks by link and day, and of clicks by source."""
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
        *_columns([(*key, count) for key, count in clicks.items()], 4),
        *_columns([(*key, count) for key, count in sources.items()], 6),
    )


def _columns(rows: list[Any], width: int) -> tuple[list[object], ...]:
    """Tuples of `width` parts as so many lists, in the order of the tuples."""
    rows.sort()
    return tuple(map(list, zip(*rows, strict=True))) if rows else ([],) * width
