"""Click counts in the shards, applied exactly once through the cursors.

A call carries one sum per link and day over all its entries, which costs a shard a fraction of applying each
entry. A shard applies a sum as a whole or not at all. If a slot's cursor is between the entries of a sum, as it
may be after a consumer was killed, the shard returns the cursor, and the sum is made again from the entries after
it.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from enum import Enum

import asyncpg

from snapurl.errors import ConfigError
from snapurl.model import ClickRow, ClicksBySlot
from snapurl.store.click_sums import columns, group_sums, link_sums
from snapurl.store.cluster.pool import Pool, Row, ShardFailed
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

log = logging.getLogger("snapurl.clicks")

SQL = load_queries("clicks")

CALLS_MAX = (
    3  # per shard for the same rows; each leaves out, or shortens, the slots that blocked the one before
)
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
                answers = await self._apply(self._shards.pool(name), stream, left, visitors or {})
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

    async def _apply(
        self, pool: Pool, stream: str, rows: ClicksBySlot, visitors: Mapping[tuple[str, date], int]
    ) -> list[Row]:
        """Looks up what the links have in common, and counts. A link that is changed in between counts for what it
        was."""
        slots = sorted(rows)
        links = link_sums(rows)
        places = list(dict.fromkeys(key[:2] for key in links))
        found = await pool.fetch(SQL["owners"], [slot for slot, _ in places], [code for _, code in places])
        owners = {places[row["place"] - 1]: (row["owner"], tuple(row["tags"])) for row in found}
        return await pool.fetch(
            SQL["apply"],
            stream,
            slots,
            [rows[slot][0].entry for slot in slots],
            [rows[slot][-1].entry for slot in slots],
            *columns(links),
            [visitors.get(key[1:], 0) for key in links],
            *columns(group_sums(links, owners)),
        )

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
