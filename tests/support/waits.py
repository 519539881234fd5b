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
_POLL_S_MAX = 0.5


def _pause_s(asked_s: float) -> float:
    """Returns how long to wait after asking took `asked_s`: what is waited for needs the CPU, too."""
    return min(max(_POLL_S, 2 * asked_s), _POLL_S_MAX)


async def until(condition: Callable[[], Any], why: Callable[[], object] = lambda: "") -> Any:
    """Polls a condition, async or not, until it is true. Returns its value; fails with `why()` if it never is."""
    deadline = time.monotonic() + HANG_S
    while (began := time.monotonic()) < deadline:
        found = condition()
        if inspect.isawaitable(found):
            found = await found
        if found:
            return found
        await asyncio.sleep(_pause_s(time.monotonic() - began))
    raise AssertionError(f"it never became true: {why()}")


def blocking_until(condition: Callable[[], T], why: Callable[[], object] = lambda: "") -> T:
    """Polls a condition until it is true, in a test without an event loop. Returns its value."""
    deadline = time.monotonic() + HANG_S
    while (began := time.monotonic()) < deadline:
        if found := condition():
            return found
        time.sleep(_pause_s(time.monotonic() - began))
    raise AssertionError(f"it never became true: {why()}")


async def unless_hung(event: Awaitable[T]) -> T:
    """Waits for an event, such as the end of a process. Raises TimeoutError if that hangs."""
    return await asyncio.wait_for(event, HANG_S)
