"""Batches: items for one destination that arrive at the same time share one call.

Theory. A call to PostgreSQL or Redis costs mostly its round trip, whatever it carries. So a destination has one
call in flight, and the items that arrive meanwhile form the next batch: the higher the load, the larger the
batches. An item for an idle destination is sent at once. A policy bounds this:

- `items_max`: a batch has no more items; the others go into the next one.
- `pending_max`: a destination with that many unanswered items refuses further ones.
- `patience_s`: a call that takes longer delays no other; the next batch is sent while it is still in flight.
- `linger_s`: under load a batch waits that long for more items, unless it has ENOUGH. The load is high if
  LOADED_MIN items, over all destinations, were unanswered within the last LOADED_S. A single item never
  lingers.
- `awaits_return`: under load, callers that were answered together submit their next items together. So a batch
  lingers only until every caller that was answered within `linger_s` has come back, instead of until it has
  ENOUGH. Creates with a plain linger of 2 ms reached 0.76 of the throughput (two workers, four shards).

`send` answers each item, then or later. If it raises, the exception is the answer of each item that has none. A
waiter that is cancelled takes nothing from the others. An item is sent after it was submitted, never before, so
a read returns nothing older than its submission.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Coroutine, Hashable, Sequence
from typing import Any, Generic, TypeVar

from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import detached_task

LOADED_MIN = 4  # unanswered items, from which on the load is high
LOADED_S = 0.02  # for which it counts as high after that
ENOUGH = 16  # items, with which a batch does not linger

R = TypeVar("R")


class Pending(Generic[R]):
    """An item of a batch. `done` is its answer."""

    __slots__ = ("done",)

    def __init__(self) -> None:
        self.done: asyncio.Future[R] = asyncio.get_running_loop().create_future()

    def answer(self, result: R) -> None:
        """Sets the answer, unless the waiter has been cancelled."""
        if not self.done.done():
            self.done.set_result(result)

    def fail(self, error: Exception) -> None:
        """Sets an exception as the answer, unless there is an answer or the waiter has been cancelled."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # retrieved, so asyncio does not log it if every waiter was cancelled


K = TypeVar("K", bound=Hashable)
P = TypeVar("P", bound=Pending[Any])


class _Lane(Generic[K, P]):
    """One destination. `waiting` are the items that are not sent, `pending` counts those without an answer, these
    included. `call` is the call that the next batch waits for, `timer` what sends the next batch otherwise."""

    __slots__ = ("call", "destination", "pending", "timer", "waiting")

    def __init__(self, destination: K) -> None:
        self.destination = destination
        self.waiting: deque[P] = deque()
        self.pending = 0
        self.call: asyncio.Task[None] | None = None
        self.timer: asyncio.Handle | None = None


class Batcher(Generic[K, P]):
    """Collects items by destination and passes them to `send(destination, items)`.

    `name` is that of a call's task. `refusal(destination)` is the exception of items beyond `pending_max`. Without
    `pending_max` callers are bounded elsewhere; without `patience_s` a batch always waits for the call in flight.
    `unanswered` counts the items that are the load, if some are unanswered after their call.
    """

    def __init__(
        self,
        name: str,
        send: Callable[[K, Sequence[P]], Coroutine[Any, Any, None]],
        *,
        items_max: int,
        pending_max: int | None = None,
        refusal: Callable[[K], Exception] | None = None,
        patience_s: float | None = None,
        linger_s: float = 0.0,
        awaits_return: bool = False,
        unanswered: Callable[[], int] | None = None,
    ) -> None:
        assert (pending_max is None) == (refusal is None)
        self._name = name
        self._send = send
        self._items_max = items_max
        self._pending_max = pending_max
        self._refusal = refusal
        self._patience_s = patience_s
        self._linger_s = linger_s
        self._awaits_return = awaits_return
        self._returning: deque[list[int]] = deque()  # per answered batch, how many callers have not come back
        self._lingering: set[_Lane[K, P]] = set()
        self._pending = 0
        self._unanswered = unanswered or (lambda: self._pending)
        self._lanes: dict[K, _Lane[K, P]] = {}
        self._calls: dict[asyncio.Task[None], Sequence[P]] = {}
        self._loaded_until = 0.0

    def submit(self, destination: K, item: P) -> None:
        """Adds an item to the next batch for `destination`. Raises `refusal(destination)` beyond `pending_max`."""
        lane = self._lanes.get(destination)
        if lane is None:
            lane = self._lanes[destination] = _Lane(destination)
        elif self._refusal is not None and lane.pending >= (self._pending_max or 0):
            raise self._refusal(destination)
        lane.pending += 1
        self._pending += 1
        lane.waiting.append(item)
        if self._returning:
            self._note_return()
        if lane.call is None and lane.timer is None:  # the items of this moment are one batch
            lane.timer = asyncio.get_running_loop().call_soon(self._begin, lane)

    def is_loaded(self) -> bool:
        """Whether the load is high, over all destinations."""
        now = asyncio.get_running_loop().time()
        if self._unanswered() >= LOADED_MIN:
            self._loaded_until = now + LOADED_S
        return now < self._loaded_until

    async def stop(self) -> None:
        """Cancels all calls, and all waiters that have no answer."""
        unanswered = [item for items in self._calls.values() for item in items]
        for lane in self._lanes.values():
            unanswered += lane.waiting
            lane.waiting.clear()
            if lane.timer is not None:
                lane.timer.cancel()
        self._lingering.clear()  # no caller's return sends one of these any more
        await cancel_and_wait(*self._calls)
        for item in unanswered:
            item.done.cancel()

    def _begin(self, lane: _Lane[K, P]) -> None:
        if self._lingers(lane):
            lane.timer = asyncio.get_running_loop().call_later(self._linger_s, self._send_batch, lane)
            self._lingering.add(lane)
        else:
            self._send_batch(lane)

    def _lingers(self, lane: _Lane[K, P]) -> bool:
        if not self._linger_s or not self.is_loaded():
            return False
        return bool(self._returning) if self._awaits_return else len(lane.waiting) < ENOUGH

    def _expect_return(self, callers: int) -> None:
        batch = [callers]
        self._returning.append(batch)
        asyncio.get_running_loop().call_later(self._linger_s, self._stop_expecting, batch)

    def _stop_expecting(self, batch: list[int]) -> None:
        if batch[0]:
            self._returning.remove(batch)
            self._send_if_all_returned()

    def _note_return(self) -> None:
        self._returning[0][0] -= 1
        if not self._returning[0][0]:
            self._returning.popleft()
            self._send_if_all_returned()

    def _send_if_all_returned(self) -> None:
        if self._returning:
            return
        for lane in list(self._lingering):
            assert lane.timer is not None
            lane.timer.cancel()
            self._send_batch(lane)

    def _send_batch(self, lane: _Lane[K, P]) -> None:
        self._lingering.discard(lane)
        items = [lane.waiting.popleft() for _ in range(min(len(lane.waiting), self._items_max))]
        lane.call = detached_task(self._call(lane, items), self._name)
        self._calls[lane.call] = items
        lane.timer = None
        if self._patience_s is not None:
            lane.timer = asyncio.get_running_loop().call_later(self._patience_s, self._continue, lane)

    def _continue(self, lane: _Lane[K, P]) -> None:
        """The call in flight has ended, or takes too long."""
        if lane.timer is not None:
            lane.timer.cancel()
        lane.call = lane.timer = None
        if lane.waiting:
            self._begin(lane)
        elif not lane.pending:
            del self._lanes[lane.destination]

    async def _call(self, lane: _Lane[K, P], items: Sequence[P]) -> None:
        try:
            await self._send(lane.destination, items)
        except Exception as error:
            for item in items:
                item.fail(error)
        finally:
            call = asyncio.current_task()
            assert call is not None
            del self._calls[call]
            lane.pending -= len(items)
            self._pending -= len(items)
            if self._awaits_return:
                self._expect_return(len(items))
            if lane.call is call or not lane.pending:
                self._continue(lane)
