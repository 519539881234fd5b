"""Ending background tasks for certain."""

from __future__ import annotations

import asyncio
from typing import Any

AGAIN_S = 0.1


async def end(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels tasks until they have ended.

    Once is not enough: before Python 3.12 `asyncio.wait_for`, which redis-py waits with, loses a cancellation that
    comes in the moment in which it is done.
    """
    left = {task for task in tasks if task is not None}
    while left := {task for task in left if not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=AGAIN_S)
