"""Waits for events that a test has caused, with a bound that only a hang reaches."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

T = TypeVar("T")

HANG_S = 600.0
"""No wait of a test lasts this long unless something hangs, however busy the machine is.

A whole reshard took more than two minutes with twenty other programs on two cores.
"""

BUSY_S = 10.0
"""What a busy machine may add to a time that the program promises to keep."""

PATIENT = {
    "statement_timeout_ms": 20_000,
    "pool_wait_ms": 20_000,
    "busy_wait_ms": 20_000,
    "redis_timeout_ms": 10_000,
}
"""Settings of tests that are not about time-outs: no statement of theirs is refused because the machine is busy.

A test that makes its own settings starts from these, and sets only the time-out that it is about.
"""

_POLL_S = 0.02


async def until(condition: Callable[[], Any], why: Callable[[], object] = lambda: "") -> Any:
    """Polls a condition, async or not, until it is true. Returns its value; fails with `why()` if it never is."""
    deadline = time.monotonic() + HANG_S
    while True:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        assert time.monotonic() < deadline, f"it never became true: {why()}"
        await asyncio.sleep(_POLL_S)


def blocking_until(condition: Callable[[], T], why: Callable[[], object] = lambda: "") -> T:
    """Polls a condition until it is true, in a test without an event loop. Returns its value."""
    deadline = time.monotonic() + HANG_S
    while not (found := condition()):
        assert time.monotonic() < deadline, f"it never became true: {why()}"
        time.sleep(_POLL_S)
    return found


async def unless_hung(event: Awaitable[T]) -> T:
    """Waits for an event, such as the end of a process. Raises TimeoutError if that hangs."""
    return await asyncio.wait_for(event, HANG_S)
