"""Cancelling background tasks, and cached calls."""

from __future__ import annotations

import asyncio

import pytest

from snapurl.tasks import CachedCall, both, cancel_and_wait, with_background
from tests.support.waits import HANG_S


async def test_a_task_that_loses_a_cancellation_ends_all_the_same() -> None:
    """A task that swallows its first cancellation is cancelled again until it has ended."""
    swallowed = 0

    async def stubborn() -> None:
        nonlocal swallowed
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                if swallowed:
                    raise
                swallowed += 1

    task = asyncio.create_task(stubborn())
    await asyncio.sleep(0)
    await asyncio.wait_for(cancel_and_wait(task, None), HANG_S)
    assert task.cancelled()
    assert swallowed == 1


async def test_a_recent_answer_is_not_asked_for_again() -> None:
    """Callers within the age share one result; later callers get a new one."""
    now, asked = 0.0, 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        return asked

    recent = CachedCall(ask, 1.0, lambda: now)
    assert await asyncio.gather(*(recent() for _ in range(5))) == [1] * 5
    now = 1.0
    assert await recent() == 1
    now = 1.1
    assert await recent() == 2


async def test_a_call_goes_on_without_those_who_wait_for_it() -> None:
    """Callers that go away do not cause a second call: the next caller joins the one that is running."""
    asked, may_end = 0, asyncio.Event()

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await may_end.wait()
        return asked

    recent = CachedCall(ask, 1.0)
    for _ in range(5):
        impatient = asyncio.create_task(recent())
        await asyncio.sleep(0)
        await cancel_and_wait(impatient)
    patient = asyncio.create_task(recent())
    await asyncio.sleep(0)
    may_end.set()
    assert await patient == 1


async def test_the_error_of_a_call_reaches_all_who_wait_and_is_not_kept() -> None:
    """All concurrent callers get the error of their call; the next caller asks again."""
    asked = 0

    async def ask() -> int:
        nonlocal asked
        asked += 1
        await asyncio.sleep(0)
        if asked == 1:
            raise ConnectionResetError
        return asked

    recent = CachedCall(ask, 1.0)
    results = await asyncio.gather(*(recent() for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [ConnectionResetError] * 3
    assert await recent() == 2


async def test_of_two_coroutines_none_runs_on_after_the_other_has_failed() -> None:
    """If one of two coroutines fails, its error is raised unchanged once the other has ended."""
    ended = asyncio.Event()

    async def endless() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    async def failing() -> None:
        await asyncio.sleep(0)
        raise ConnectionResetError

    with pytest.raises(ConnectionResetError):
        await both(endless(), failing())
    assert ended.is_set()


async def test_work_ends_with_what_runs_beside_it() -> None:
    """When work has ended, what runs beside it ends too; when a helper ends first, its error ends the work."""
    ended: list[str] = []

    async def lasting(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(name)

    async def result() -> int:
        await asyncio.sleep(0)
        return 7

    async def failing() -> None:
        raise ArithmeticError("cannot happen")

    assert await with_background(result(), lasting("a"), lasting("b")) == 7
    assert sorted(ended) == ["a", "b"]
    ended.clear()
    with pytest.raises(ArithmeticError):
        await with_background(lasting("work"), lasting("a"), failing())
    assert sorted(ended) == ["a", "work"]
    with pytest.raises(RuntimeError, match="result has ended"):
        await with_background(lasting("work"), result())
