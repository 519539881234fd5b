"""Click counts in the shards, applied exactly once through the cursors.

A call carries one sum per link and day over all its entries, which costs a shard a fraction of applying each
entry. A shard applies a sum as a whole or not at all. If a slot's cursor is between the entries of a sum, as it
may be after a consumer was killed, the shard returns the cursor, and the sum is made again from the entries after
it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from enum import Enum
from json import JSONEncoder

import asyncpg

from snapurl.errors import ConfigError
from snapurl.model import ClickRow, ClicksBySlot
from snapurl.store.cluster.pool import Row, ShardFailed
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

log = logging.getLogger("snapurl.clicks")

SQL = load_queries("clicks")

CALLS_MAX = (
    3  # per shard for the same rows; each leaves out, or shortens, the slots that blocked the one before
)
# Kinds that are told beside those of SourceKind: the UTC hours of all clicks, and of those of bots.
HOUR = "hour"
BOT_HOUR = "bot_hour"
_encode = JSONEncoder(separators=(",", ":")).encode
# What a smaller call may succeed at.
_TOO_MUCH = (asyncpg.QueryCanceledError, asyncpg.OutOfMemoryError)


class Fault(Enum):
    """Why a shard did not count."""

    UNREACHABLE = "unreachable"
    TOO_MUCH = "too much"  # it gave up, or refuses the rows: fewer of them may be counted


@dataclass(frozen=True, slots=True)
class Delivery:
    """The slots whose rows are counted now, and what prevents the others, if that is not their hand-off."""

    counted: set[int]
    fault: Fault | None = None


class ClickStore:
    """Adds clicks to days; `StatisticsStore` reads them."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    def owner(self, slot: int) -> str:
        """Returns the name of the shard that is believed to own the slot."""
        return self._shards.map.owner(slot)

    async def apply(
        self,
        name: str,
        stream: str,
        rows: ClicksBySlot,
        visitors: Mapping[tuple[str, date], int] | None = None,
    ) -> Delivery:
        """Applies rows at shard `name`, in one call unless slots are in hand-off or counted in part.

        `visitors` are estimates by code and day; a day keeps the greatest one.

        Rows at or before a slot's cursor are not counted again, so calling again with the same rows changes
        nothing. Within a slot rows must be given in ascending order of entry over all calls, and those of one entry
        in one call. Slots that are missing from the result are in hand-off, elsewhere, or on a shard with a fault:
        try them again.
        """
        counted: set[int] = set()
        left = dict(rows)
        for _ in range(CALLS_MAX):
            try:
                answers = await self._shards.pool(name).fetch(
                    SQL["apply"], stream, *_sums(left, visitors or {})
                )
            except asyncpg.SerializationError:
                return Delivery(counted)
            except ShardFailed as error:
                is_too_much = isinstance(error.__cause__, _TOO_MUCH)
                return Delivery(counted, Fault.TOO_MUCH if is_too_much else Fault.UNREACHABLE)
            except ConfigError:
                return Delivery(counted, Fault.UNREACHABLE)
            except asyncpg.PostgresError as error:
                log.error("shard %s refuses clicks: %s", name, type(error).__name__)
                return Delivery(counted, Fault.TOO_MUCH)
            if not answers:
                return Delivery(counted | left.keys())
            for answer in answers:
                if self._is_counted(answer, left):
                    counted.add(answer["slot"])
            if not left:
                break
        return Delivery(counted)

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


@dataclass(slots=True)
class _Sum:
    """What a link got on a day: clicks, and what is told of them by kind and value."""

    clicks: int = 0
    bots: int = 0
    counts: dict[str, dict[str, int]] = field(default_factory=dict)

    def add(self, row: ClickRow) -> None:
        self.clicks += row.clicks
        self.bots += row.bots
        self._add(HOUR, str(row.hour), row.clicks)
        if row.bots:
            self._add(BOT_HOUR, str(row.hour), row.bots)
        for kind, value, clicks in row.sources:
            if value:
                self._add(kind, value, clicks)

    def _add(self, kind: str, value: str, clicks: int) -> None:
        values = self.counts.get(kind)
        if values is None:
            self.counts[kind] = {value: clicks}
        else:
            values[value] = values.get(value, 0) + clicks


def _sums(rows_of: ClicksBySlot, visitors: Mapping[tuple[str, date], int]) -> tuple[Sequence[object], ...]:
    """Returns the arguments of `clicks_apply_v3` after the stream: parallel arrays of slots with their first and
    last entries, and of what each link got on each day."""
    slots = sorted(rows_of)
    sums: dict[tuple[int, str, date], _Sum] = {}
    for slot in slots:
        for row in rows_of[slot]:
            key = (slot, row.code, row.day)
            found = sums.get(key)
            if found is None:
                found = sums[key] = _Sum()
            found.add(row)
    keys = sorted(sums)
    ordered = [sums[key] for key in keys]
    return (
        slots,
        [rows_of[slot][0].entry for slot in slots],
        [rows_of[slot][-1].entry for slot in slots],
        *([key[part] for key in keys] for part in range(3)),
        [each.clicks for each in ordered],
        [each.bots for each in ordered],
        [visitors.get(key[1:], 0) for key in keys],
        [_encode(each.counts) for each in ordered],
    )
