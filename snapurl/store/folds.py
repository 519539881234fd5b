"""Days of clicks that become months in the shards: `migrations/0027_click_months.sql` has the theory."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from enum import StrEnum

from snapurl.store.cluster.fanout import fetch_at
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

SQL = load_queries("folds")
MONTHS_PER_CALL = 200
BYTES_PER_CALL = 131_072  # of what their days tell, as stored; one month is folded however large it is


class Kept(StrEnum):
    """What has days: each link, each group of links."""

    LINKS = "links"
    GROUPS = "groups"


FIRST = {Kept.LINKS: ("",), Kept.GROUPS: ("", "")}
"""Where a slot begins: before the first code, and before the first scope and key."""


@dataclass(frozen=True, slots=True)
class Fold:
    """How many days a call has folded, and where to go on: None if there are no more.

    Unless the shard owns the slot and does not move it, nothing is folded.
    """

    is_owned: bool
    days: int
    more: tuple[str, ...] | None


class FoldStore:
    """Raises ShardSilent."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    @property
    def shard_names(self) -> list[str]:
        return self._shards.names

    async def foldable(self, name: str, first: int, last: int, before: date) -> dict[int, date]:
        """Returns the slots from `first` to `last` of which a shard serves days from before the month of `before`,
        with the oldest one."""
        rows = await fetch_at(self._shards, name, SQL["foldable"], first, last, before)
        return {row["slot"]: row["oldest"] for row in rows}

    async def fold(self, name: str, what: Kept, slot: int, start: tuple[str, ...], before: date) -> Fold:
        """Folds some days from before the month of `before`, unless the slot is in hand-off or elsewhere."""
        bounds = MONTHS_PER_CALL, BYTES_PER_CALL
        (row,) = await fetch_at(self._shards, name, SQL[what], slot, *start, before, *bounds)
        is_owned = self._router.settle(slot, row)
        return Fold(is_owned, row["folded"], tuple(row["more"]) if row["more"] else None)
