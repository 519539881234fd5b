"""The batcher alone: when it sends which items, and which waiter gets which answer."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import Sequence
from typing import Any

import pytest

from snapurl import batcher
from snapurl.batcher import Batcher, Pending
from tests.support.waits import HANG_S


class Item(Pending[int]):
    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number


class Destination:
    """Answers each item with its number once it is open. Records the batches."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.open = asyncio.Event()
        self.errors: dict[int, Exception] = {}  # by the first item of the batch
        self._arrived = asyncio.Condition()

    async def send(self, name: str, items: Sequence[Item]) -> None:
        async with self._arrived:
            self.batches.append([item.number for item in items])
            self._arrived.notify_all()
        await self.open.wait()
        if items[0].number in self.errors:
            raise self.errors[items[0].number]
        for item in items:
            item.answer(item.number)

    async def has(self, count: int) -> None:
        """Returns once that many batches have arrived."""
        async with asyncio.timeout(HANG_S), self._arrived:
            await self._arrived.wait_for(lambda: len(self.batches) >= count)


class Refused(Exception):
    pass


@pytest.fixture
def destination() -> Destination:
    return Destination()


def batching(destination: Destination, **policy: Any) -> Batcher[str, Item]:
    return Batcher("test", destination.send, **{"items_max": 100, **policy})


def submit(batches: Batcher[str, Item], *numbers: int, to: str = "a") -> list[asyncio.Future[int]]:
    items = [Item(number) for number in numbers]
    for item in items:
        batches.submit(to, item)
    return [item.done for item in items]


async def test_items_that_arrive_while_a_call_is_in_flight_are_the_next_batch(
    destination: Destination,
) -> None:
    """A single item is sent at once; all that arrive before its answer share the next call."""
    batches = batching(destination)
    answers = submit(batches, 1)
    await destination.has(1)
    for number in range(2, 6):
        answers += submit(batches, number)
        await asyncio.sleep(0)
    assert destination.batches == [[1]]
    destination.open.set()
    assert await asyncio.gather(*answers) == [1, 2, 3, 4, 5]
    assert destination.batches == [[1], [2, 3, 4, 5]]


async def test_each_destination_has_its_own_call_in_flight(destination: Destination) -> None:
    """While the call to one destination waits, an item for another is sent."""
    batches = batching(destination)
    answers = submit(batches, 1, to="a")
    await destination.has(1)
    answers += submit(batches, 2, to="b")
    await destination.has(2)
    destination.open.set()
    assert await asyncio.gather(*answers) == [1, 2]


async def test_a_batch_has_no_more_items_than_allowed(destination: Destination) -> None:
    """Fifty items with at most twenty per batch are three calls, in order."""
    destination.open.set()
    answers = submit(batching(destination, items_max=20), *range(50))
    assert await asyncio.gather(*answers) == list(range(50))
    assert destination.batches == [list(range(20)), list(range(20, 40)), list(range(40, 50))]


async def test_items_beyond_the_bound_are_refused_with_the_stated_error(destination: Destination) -> None:
    """Pending and in-flight items count towards the bound; once they are answered, items are accepted again."""
    batches = batching(destination, pending_max=3, refusal=Refused)
    answers = submit(batches, 1)
    await destination.has(1)
    answers += submit(batches, 2, 3)
    with pytest.raises(Refused, match="a"):
        batches.submit("a", Item(4))
    answers += submit(batches, 5, to="b")
    destination.open.set()
    assert await asyncio.gather(*answers) == [1, 2, 3, 5]
    assert await submit(batches, 6)[0] == 6


async def test_the_error_of_a_call_reaches_each_waiter_of_its_batch(destination: Destination) -> None:
    """All items of a failed batch get its exception, and the next batch is sent."""
    batches = batching(destination)
    destination.errors[1] = error = OSError("cut")
    failed = submit(batches, 1, 2, 3)
    await destination.has(1)
    answers = submit(batches, 4)
    destination.open.set()
    assert await asyncio.gather(*failed, return_exceptions=True) == [error] * 3
    assert await answers[0] == 4


async def test_an_answer_stays_when_the_call_fails_after_it() -> None:
    """An item that was answered before its call failed keeps the answer; the others get the exception."""

    async def send(name: str, items: Sequence[Item]) -> None:
        items[0].answer(7)
        raise OSError("cut")

    one, other = submit(Batcher("test", send, items_max=10), 1, 2)
    assert await one == 7
    with pytest.raises(OSError, match="cut"):
        await other


async def test_a_cancelled_waiter_takes_nothing_from_the_others(destination: Destination) -> None:
    """Waiters that are cancelled before and during the call leave all other answers as they are."""
    batches = batching(destination)
    answers = submit(batches, 1, 2, 3)
    answers.pop(0).cancel()
    await destination.has(1)
    answers.pop(0).cancel()
    answers += submit(batches, 4)
    destination.open.set()
    assert await asyncio.gather(*answers) == [3, 4]


async def test_a_call_that_takes_long_delays_no_other(destination: Destination) -> None:
    """After the patience the next batch is sent while the first is in flight, and both are answered."""
    batches = batching(destination, patience_s=0.001)
    answers = submit(batches, 1)
    await destination.has(1)
    answers += submit(batches, 2)
    await destination.has(2)
    destination.open.set()
    assert await asyncio.gather(*answers) == [1, 2]


async def test_without_patience_a_batch_waits_for_the_call_in_flight(destination: Destination) -> None:
    """Without patience, calls run one at a time, however long they take."""
    batches = batching(destination)
    answers = submit(batches, 1)
    await destination.has(1)
    answers += submit(batches, 2)
    await asyncio.sleep(0.1)
    assert destination.batches == [[1]]
    destination.open.set()
    assert await asyncio.gather(*answers) == [1, 2]


async def test_under_load_a_batch_lingers_for_more_items(destination: Destination) -> None:
    """Items that arrive one by one within the linger time form one batch."""
    destination.open.set()
    batches = batching(destination, linger_s=0.5)
    answers = submit(batches, *range(batcher.LOADED_MIN))
    for number in range(batcher.LOADED_MIN, 10):
        await asyncio.sleep(0)
        answers += submit(batches, number)
    assert batches.is_loaded()
    assert await asyncio.gather(*answers) == list(range(10))
    assert destination.batches == [list(range(10))]


async def test_a_batch_with_enough_items_does_not_linger(destination: Destination) -> None:
    """Under load, ENOUGH items at once are sent at once."""
    destination.open.set()
    answers = submit(batching(destination, linger_s=3_600), *range(batcher.ENOUGH))
    assert await asyncio.gather(*answers) == list(range(batcher.ENOUGH))


async def test_a_batch_lingers_until_the_callers_answered_before_are_back(destination: Destination) -> None:
    """Four callers that were answered together are one batch again, sent as soon as the last of them is back."""
    batches = batching(destination, linger_s=3_600, awaits_return=True)
    destination.open.set()
    await asyncio.gather(*submit(batches, 1, 2, 3, 4))
    answers = submit(batches, 5, 6, 7)
    for _ in range(10):
        await asyncio.sleep(0)
    assert destination.batches == [[1, 2, 3, 4]]
    answers += submit(batches, 8)
    assert await asyncio.gather(*answers) == [5, 6, 7, 8]
    assert destination.batches == [[1, 2, 3, 4], [5, 6, 7, 8]]


async def test_a_caller_that_does_not_come_back_delays_the_others_no_longer_than_the_linger(
    destination: Destination,
) -> None:
    """Three of four callers come back: their batch is sent when the fourth is no longer expected."""
    batches = batching(destination, linger_s=0.01, awaits_return=True)
    destination.open.set()
    await asyncio.gather(*submit(batches, 1, 2, 3, 4))
    async with asyncio.timeout(HANG_S):
        assert await asyncio.gather(*submit(batches, 5, 6, 7)) == [5, 6, 7]


async def test_nothing_is_sent_after_a_stop(destination: Destination) -> None:
    """A batch that lingers when the batcher stops is not sent once its callers are no longer expected."""
    batches = batching(destination, linger_s=0.01, awaits_return=True)
    destination.open.set()
    await asyncio.gather(*submit(batches, 1, 2, 3, 4))
    submit(batches, 5)
    await asyncio.sleep(0)
    await batches.stop()
    await asyncio.sleep(0.05)
    assert destination.batches == [[1, 2, 3, 4]]


async def test_without_load_nothing_lingers(destination: Destination) -> None:
    """Items that come one by one are sent at once, each alone."""
    destination.open.set()
    batches = batching(destination, linger_s=3_600)
    for number in range(batcher.LOADED_MIN * 2):
        assert await submit(batches, number)[0] == number
    assert not batches.is_loaded()


async def test_stop_cancels_what_is_unanswered(destination: Destination) -> None:
    """Waiters of the call in flight and of the next batch are cancelled; no further call is made."""
    batches = batching(destination, patience_s=3_600)
    answers = submit(batches, 1)
    await destination.has(1)
    answers += submit(batches, 2, 3)
    await batches.stop()
    assert all(answer.cancelled() for answer in answers)
    destination.open.set()
    await asyncio.sleep(0)
    assert destination.batches == [[1]]


async def test_an_error_that_nobody_waits_for_is_not_logged(
    destination: Destination, caplog: pytest.LogCaptureFixture
) -> None:
    """If all waiters were cancelled, asyncio does not log the exception of the call."""
    destination.errors[1] = OSError("cut")
    destination.open.set()
    answer = submit(batching(destination), 1)[0]
    await asyncio.wait((answer,))
    del answer
    gc.collect()
    await asyncio.sleep(0)
    assert not caplog.records


async def test_a_destination_without_items_is_forgotten(destination: Destination) -> None:
    """Once all its items are answered, nothing refers to a destination, so a shard can be removed."""
    batches = batching(destination, patience_s=0.001)
    answers = submit(batches, 1)
    await destination.has(1)
    answers += submit(batches, 2)
    await destination.has(2)
    destination.open.set()
    await asyncio.gather(*answers)
    async with asyncio.timeout(HANG_S):
        while batches._lanes or batches._calls:
            await asyncio.sleep(0)
