"""Folds days of clicks that are no longer kept into months, in the background of the active click consumer.

Each call to a shard is a bounded transaction: the days are there, or their month is. So a folder may be killed at
any time, and two of them do no harm. Slots in hand-off are left for the next pass.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, timedelta
from typing import TypeVar

from ring.slots import SLOT_COUNT
from snapurl.store.cluster.fanout import ShardSilent
from snapurl.store.folds import FIRST, FoldStore
from snapurl.telemetry.metrics import CLICK_DAYS_FOLDED, CLICK_DAYS_OVERDUE

log = logging.getLogger("snapurl.clicks")

EVERY_S = 86_400.0  # between two passes over all slots
RETRY_S = 600.0  # after a pass that a shard did not answer, or that slots in hand-off were left out of
POLL_S = 60.0  # between two looks at whether it is time, and before the first
SLOTS_PER_READ = 64  # the first time, and after a read that was not quick: one that was doubles the next
SLOTS_PER_READ_MAX = 1024
QUICK_S = 0.005
REST = 4  # times as long as a call took, nothing is folded: visitors come first
T = TypeVar("T")


class Folder:
    """`works` says whether this consumer is the active one, `today` is in UTC, `clock` is monotonic."""

    def __init__(
        self,
        store: FoldStore,
        days_kept: int,
        works: Callable[[], bool],
        today: Callable[[], date],
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._days_kept = days_kept
        self._works = works
        self._today = today
        self._clock = clock

    async def run(self) -> None:
        """Makes passes while this consumer is the active one, for ever."""
        next_at = float("-inf")
        while True:
            await asyncio.sleep(POLL_S)
            if self._works() and self._clock() >= next_at:
                next_at = self._clock() + (EVERY_S if await self.fold_all() else RETRY_S)

    async def fold_all(self) -> bool:
        """Folds what is to be folded now. Returns whether nothing of it is left."""
        if not self._days_kept:
            return True
        before = self._today() - timedelta(self._days_kept)
        left: list[date] = []
        is_done = True
        for name in self._store.shard_names:
            try:
                left += await self._fold_shard(name, before)
            except ShardSilent as error:
                log.warning("days of clicks are not folded yet: %s", error)
                is_done = False
        CLICK_DAYS_OVERDUE.set(max(((before - _last_of_month(day)).days for day in left), default=0))
        return is_done and not left

    async def _fold_shard(self, name: str, before: date) -> list[date]:
        """Returns the oldest day of each slot that has days left to fold."""
        left: list[date] = []
        first, count = 0, SLOTS_PER_READ
        while first < SLOT_COUNT:
            end = min(first + count, SLOT_COUNT)
            found, took_s = await self._rested(self._store.foldable(name, first, end - 1, before))
            first, count = end, min(2 * count, SLOTS_PER_READ_MAX) if took_s < QUICK_S else SLOTS_PER_READ
            for slot, oldest in found.items():
                try:
                    is_folded = await self._fold_slot(name, slot, before)
                except ShardSilent as error:
                    log.warning("days of clicks in slot %d are not folded yet: %s", slot, error)
                    is_folded = False
                if not is_folded:
                    left.append(oldest)
        return left

    async def _fold_slot(self, name: str, slot: int, before: date) -> bool:
        """Returns whether the slot has nothing left to fold."""
        for what, start in FIRST.items():
            more: tuple[str, ...] | None = start
            while more is not None:
                if not self._works():
                    return False
                fold, _ = await self._rested(self._store.fold(name, what, slot, more, before))
                if not fold.is_owned:
                    return False
                CLICK_DAYS_FOLDED.labels(what).inc(fold.days)
                more = fold.more
        return True

    async def _rested(self, call: Awaitable[T]) -> tuple[T, float]:
        """Returns the answer and how long it took, after a rest."""
        began = self._clock()
        answer = await call
        took_s = self._clock() - began
        await asyncio.sleep(REST * took_s)
        return answer, took_s


def utc_today() -> date:
    return datetime.now(UTC).date()


def _last_of_month(day: date) -> date:
    return (day.replace(day=1) + timedelta(31)).replace(day=1) - timedelta(1)
