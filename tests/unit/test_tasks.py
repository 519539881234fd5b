"""Ending background tasks."""

from __future__ import annotations

import asyncio

from snapurl.tasks import end


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
    await asyncio.wait_for(end(task, None), 10)
    assert task.cancelled()
    assert swallowed == 1
