"""Clicks on a few links, delivered in order and again until each is counted, whatever happens to the shards."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from datetime import date, timedelta
from itertools import count
from typing import Any

from ring.slots import SLOT_COUNT, slot_of
from snapurl.model import ClickRow
from snapurl.store.cluster.fanout import ShardSilent
from snapurl.store.folds import FIRST, FoldStore
from tests.integration.store.conftest import Store
from tests.support.click_totals import assert_groups_are_sums, assert_totals_are_sums
from tests.support.waits import HANG_S

STREAM = "faults"
FIRST_DAY = date(1990, 5, 1)
ENTRIES_PER_MONTH = 30
PAUSE_S = 0.02


class Clicks:
    """Delivers one entry after another: a click on each of some links. Folds the days of months that are over."""

    def __init__(self, store: Store, codes: Sequence[str]) -> None:
        self._store = store
        self._folds = FoldStore(store.shards, store.router)
        self._codes = codes
        self._entries = count(1)
        self._open: dict[int, list[ClickRow]] = {}
        self._delivered: Counter[str] = Counter()

    async def deliver(self) -> None:
        """Delivers entries until it is cancelled. The last one may be counted or not."""
        while True:
            if not self._open:
                await self._begin(next(self._entries))
            await self._try()
            await asyncio.sleep(PAUSE_S)

    async def _begin(self, entry: int) -> None:
        # rows to insert besides those to update
        day = FIRST_DAY + timedelta(days=entry * 31 // ENTRIES_PER_MONTH // 10 * 10)
        if entry % ENTRIES_PER_MONTH == 0:
            await self._fold(day)
        for code in self._codes:
            self._open.setdefault(slot_of(code), []).append(ClickRow(slot_of(code), entry, code, day, 1))
        self._delivered.update(self._codes)

    async def _fold(self, before: date) -> None:
        for name in self._folds.shard_names:
            try:
                for slot in await self._folds.foldable(name, 0, SLOT_COUNT - 1, before):
                    for what, start in FIRST.items():
                        await self._folds.fold(name, what, slot, start, before)
            except ShardSilent:
                continue  # the next month folds it

    async def _try(self) -> None:
        clicks = self._store.clicks
        for slot in list(self._open):
            delivery = await clicks.apply(clicks.owner(slot), STREAM, {slot: self._open[slot]})
            if slot in delivery.counted:
                del self._open[slot]

    async def check(self, shards: Sequence[Any]) -> None:
        """Delivers what is open, and asserts that each click is counted once, by day and in the totals."""
        async with asyncio.timeout(HANG_S):
            while self._open:
                await self._try()
                await asyncio.sleep(PAUSE_S)
        found: Counter[str] = Counter()
        for shard in shards:
            await assert_totals_are_sums(shard)
            for row in await shard.fetch("SELECT code, clicks FROM click_totals"):
                assert row["code"] not in found, f"the total of {row['code']} is in both shards"
                found[row["code"]] = row["clicks"]
        await assert_groups_are_sums(shards)
        assert {code: found[code] for code in self._codes} == {
            code: self._delivered[code] for code in self._codes
        }
