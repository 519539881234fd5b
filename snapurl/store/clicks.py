"""Click counts in the shards, applied exactly once through the cursors."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from ring.slots import slot_of
from snapurl.errors import ConfigError
from snapurl.ports import ClickRow, DayClicks, SourceClicks, SourceKind
from snapurl.store.pool import ShardFailed
from snapurl.store.queries import load_queries
from snapurl.store.router import Router
from snapurl.store.shards import Shards

SQL = load_queries("clicks")

SOURCES_SHOWN = 50  # of a kind, those with the most clicks


class ClickStore:
    """Adds clicks to days and reads them. `totals` raises Unavailable when the shard is silent."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    async def apply(self, stream: str, rows: Sequence[ClickRow]) -> set[int]:
        """Applies rows at the believed owners, one call per shard; the slots whose rows are now counted.

        Rows at or before a slot's cursor are skipped in the same transaction, so calling again with the same
        rows changes nothing. Within a slot rows must be given in ascending order of entry over all calls.
        Slots that are not in the answer are in hand-off, elsewhere, or on a silent shard: try them again.
        """
        groups = self._router.group(rows, lambda row: row.slot)
        applied = await asyncio.gather(*(self._apply_at(name, stream, part) for name, part in groups.items()))
        return set().union(*applied)

    async def _apply_at(self, name: str, stream: str, rows: Sequence[ClickRow]) -> set[int]:
        try:
            answers = await self._shards.pool(name).fetch(
                SQL["apply"],
                stream,
                [row.slot for row in rows],
                [row.entry for row in rows],
                [row.code for row in rows],
                [row.day for row in rows],
                [row.clicks for row in rows],
                *_sources(rows),
            )
        except (ShardFailed, ConfigError):
            return set()
        return {answer["slot"] for answer in answers if self._router.settle(answer["slot"], answer)}

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


def _sources(rows: Sequence[ClickRow]) -> tuple[list[object], ...]:
    """Seven parallel arrays: slots, entries, codes, days, kinds, values, clicks."""
    found = [
        (row.slot, row.entry, row.code, row.day, source.kind.value, source.value, source.clicks)
        for row in rows
        for source in row.sources
    ]
    return tuple(map(list, zip(*found, strict=True))) if found else ([],) * 7
