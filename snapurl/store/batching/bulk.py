"""Bulk calls: one fenced call per shard, repeated for the items whose slots had moved or were busy.

A repeat is safe because each item has a token: the repeat finds the row that the first call made.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from snapurl.errors import OutcomeUnknown
from snapurl.store.cluster.pool import Pool, Row, ShardFailed, ShardUnknown
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import HAND_OFF, Shards

ATTEMPTS = 3  # of a call whose reply is lost, the first included

Item = TypeVar("Item")
Answer = TypeVar("Answer")
R = TypeVar("R")


async def repeat_lost(call: Callable[[], Awaitable[R]]) -> R:
    """Repeats a call when its reply was lost. Only for calls that are safe to repeat.

    Raises ShardFailed. Its `sent` says whether any attempt may have been executed.
    """
    sent = False
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return await call()
        except ShardFailed as error:
            if sent and not error.sent:
                raise ShardFailed(error.name, error.reason, sent=True, cause=error.cause) from error
            sent = error.sent
            if not sent or attempt == ATTEMPTS:
                raise
    raise AssertionError("unreachable")


async def repeat_or_refuse(call: Callable[[], Awaitable[R]]) -> R:
    """As `repeat_lost`, but raises OutcomeUnknown or Unavailable."""
    try:
        return await repeat_lost(call)
    except ShardFailed as error:
        if error.sent:
            raise OutcomeUnknown(retry_after_s=1.0) from error
        raise error.as_unavailable() from error


class Unsettled:
    """Why an item of a bulk call has no answer, and whether it is known not to have been executed.

    `cause` is a label of the metrics.
    """

    def __init__(self, detail: str, *, known: bool, cause: str = HAND_OFF) -> None:
        self.detail = detail
        self.known = known
        self.cause = cause


class BulkCall(Generic[Item, Answer]):
    """One bulk call. `run` returns one answer per item."""

    def __init__(
        self,
        router: Router,
        shards: Shards,
        slot: Callable[[Item], int],
        send: Callable[[Pool, Sequence[Item]], Awaitable[Sequence[Row]]],
        answer: Callable[[Item, Row], Answer],
    ) -> None:
        """`send` calls the SQL function at a shard and returns one row per item, in their order."""
        self._router = router
        self._shards = shards
        self._slot = slot
        self._send = send
        self._answer = answer

    async def run(self, items: Sequence[Item]) -> list[Answer | Unsettled]:
        """Returns one answer per item, in their order."""
        answers: list[Answer | Unsettled] = [Unsettled("the slot is being moved", known=True)] * len(items)
        slots = [self._slot(item) for item in items]
        left = dict.fromkeys(range(len(items)))
        failed: dict[str, ShardFailed] = {}

        def take(group: Sequence[int], rows: Sequence[Row]) -> None:
            settled = None
            for place, row in zip(group, rows, strict=True):
                if row is settled or self._router.settle(slots[place], row):
                    settled = row  # items may share a row, and the slots of one row are settled alike
                    answers[place] = self._answer(items[place], row)
                    del left[place]

        async def attempt() -> bool:
            todo = [place for place in left if not failed or self._owner(slots[place]) not in failed]
            groups = self._router.group(todo, slots.__getitem__)
            results = await asyncio.gather(
                *(self._call(name, [items[place] for place in group]) for name, group in groups.items())
            )
            for (name, group), rows in zip(groups.items(), results, strict=True):
                if isinstance(rows, ShardFailed):
                    failed[name] = rows
                elif rows is not None:
                    take(group, rows)
            return all(self._owner(slots[place]) in failed for place in left)

        await self._router.until_settled(attempt)
        moving = next((place for place in left if self._owner(slots[place]) not in failed), None)
        if moving is not None:
            await self._router.log_hand_off(slots[moving])
        for place in left:
            if error := failed.get(self._owner(slots[place])):
                cause = OutcomeUnknown.slug if error.sent else error.cause
                answers[place] = Unsettled(str(error), known=not error.sent, cause=cause)
        return answers

    def _owner(self, slot: int) -> str:
        return self._shards.map.owner(slot)

    async def _call(self, name: str, items: Sequence[Item]) -> Sequence[Row] | ShardFailed | None:
        """Returns the rows, or the failure. None if the shard is not known yet."""
        try:
            return await repeat_lost(lambda: self._send(self._shards.pool(name), items))
        except ShardUnknown:
            return None
        except ShardFailed as error:
            return error
