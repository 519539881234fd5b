"""Bulk calls: one fenced call per shard, repeated for the items whose slots were elsewhere or busy.

Repeating is safe because each item names its attempt (a token or nonce): a row that it has already made is
found to be its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Generic, TypeVar

from pydantic_core import to_json

from snapurl.errors import OutcomeUnknown
from snapurl.store.pool import ShardFailed, ShardUnknown
from snapurl.store.router import Router
from snapurl.store.shards import HAND_OFF, Shards

ATTEMPTS = 3  # a call whose reply was lost is made this often at most

Item = TypeVar("Item")
Answer = TypeVar("Answer")
R = TypeVar("R")


async def repeat_lost(call: Callable[[], Awaitable[R]]) -> R:
    """Calls again what is safe to repeat when its reply was lost.

    Raises ShardFailed, whose `sent` says whether any of the attempts may have been carried out.
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


class Unsettled:
    """Why an item of a bulk call has no answer, and whether it is known not to have happened. `cause` is for the
    metrics."""

    def __init__(self, detail: str, *, known: bool, cause: str = HAND_OFF) -> None:
        self.detail = detail
        self.known = known
        self.cause = cause


class BulkCall(Generic[Item, Answer]):
    """One bulk call: a fenced call per shard, repeated for the items whose slots were elsewhere or busy.

    Repeating is safe since each item names its attempt (token, nonce): a row it has made already is its own.
    """

    def __init__(
        self,
        router: Router,
        shards: Shards,
        query: str,
        slot: Callable[[Item], int],
        encode: Callable[[Item], dict[str, Any]],
        answer: Callable[[Item, Mapping[str, Any]], Answer],
    ) -> None:
        self._router = router
        self._shards = shards
        self._query = query
        self._slot = slot
        self._encode = encode
        self._answer = answer

    async def run(self, items: Sequence[Item]) -> list[Answer | Unsettled]:
        """One answer per item, in their order."""
        answers: list[Answer | Unsettled] = [Unsettled("the slot is being moved", known=True) for _ in items]
        left = set(range(len(items)))
        failed: dict[str, ShardFailed] = {}

        async def attempt() -> bool:
            todo = sorted(place for place in left if not failed or self._owner(items[place]) not in failed)
            groups = self._router.group(todo, lambda place: self._slot(items[place]))
            results = await asyncio.gather(*(self._ask(name, group, items) for name, group in groups.items()))
            for (name, group), rows in zip(groups.items(), results, strict=True):
                if isinstance(rows, ShardFailed):
                    failed[name] = rows
                    continue
                for row in rows:
                    place = row["place"]
                    assert place in group
                    if self._router.settle(self._slot(items[place]), row):
                        answers[place] = self._answer(items[place], row)
                        left.discard(place)
            return all(self._owner(items[place]) in failed for place in left)

        await self._router.until_settled(attempt)
        moving = next((place for place in left if self._owner(items[place]) not in failed), None)
        if moving is not None:
            await self._router.tell_of(self._slot(items[moving]))
        for place in left:
            if error := failed.get(self._owner(items[place])):
                cause = OutcomeUnknown.slug if error.sent else error.cause
                answers[place] = Unsettled(str(error), known=not error.sent, cause=cause)
        return answers

    def _owner(self, item: Item) -> str:
        return self._shards.map.owner(self._slot(item))

    async def _ask(
        self, name: str, group: Sequence[int], items: Sequence[Item]
    ) -> Sequence[Mapping[str, Any]] | ShardFailed:
        payload = to_json(
            [
                {**self._encode(items[place]), "place": place, "slot": self._slot(items[place])}
                for place in group
            ]
        ).decode()
        try:
            return await repeat_lost(lambda: self._shards.pool(name).fetch(self._query, payload))
        except ShardUnknown:
            return ()
        except ShardFailed as error:
            return error
