"""What asyncio lacks: a reliable cancellation of tasks, and a cached asynchronous call."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Coroutine
from contextvars import Context
from typing import Any, Generic, TypeVar

RETRY_S = 0.1
T = TypeVar("T")
U = TypeVar("U")


async def cancel_and_wait(*tasks: asyncio.Task[Any] | None) -> None:
    """Cancels tasks and waits until they have ended.

    One cancellation is not enough: before Python 3.12 `asyncio.wait_for`, which redis-py uses, loses a cancellation
    that arrives in the moment in which its future is done. So it is repeated every RETRY_S.
    """
    left = {task for task in tasks if task is not None}
    while left := {task for task in left if not task.done()}:
        for task in left:
            task.cancel()
        await asyncio.wait(left, timeout=RETRY_S)


async def both(first: Coroutine[Any, Any, T], second: Coroutine[Any, Any, U]) -> tuple[T, U]:
    """Returns the results of two coroutines that run at once.

    If one fails, ends the other and raises the error. Unlike `asyncio.gather` it leaves nothing running, so the
    connection that the other one used is free for the next call.
    """
    try:
        async with asyncio.TaskGroup() as group:
            one, other = group.create_task(first), group.create_task(second)
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from None
    return one.result(), other.result()


async def with_background(main: Coroutine[Any, Any, T], *helpers: Coroutine[Any, Any, Any]) -> T:
    """Returns the result of `main`, beside which the helpers run; they end with it.

    A helper must not end before: `main` is cancelled then. Raises the helper's error, or a RuntimeError that names
    it. Afterwards nothing is running.
    """
    work = asyncio.create_task(main)
    others = [asyncio.create_task(each, name=getattr(each, "__qualname__", None)) for each in helpers]
    try:
        await asyncio.wait((work, *others), return_when=asyncio.FIRST_COMPLETED)
        for ended in others:
            if ended.done():
                raise ended.exception() or RuntimeError(f"{ended.get_name()} has ended")
        return await work
    finally:
        await cancel_and_wait(work, *others)
        for task in (work, *others):
            _ = (
                task.cancelled() or task.exception()
            )  # one error is raised; asyncio need not report the others


class CachedCall(Generic[T]):
    """Caches the result of `call` for `age_s_max`; concurrent callers share one call.

    The age counts from the beginning of the call. A call goes on when all who wait for it have gone, so clients
    that come and go do not cause more calls. All who wait get its error, which is not cached.
    """

    def __init__(
        self, call: Callable[[], Awaitable[T]], age_s_max: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._call = call
        self._age_s_max = age_s_max
        self._clock = clock
        self._running: asyncio.Task[T] | None = None
        self._last: tuple[float, T] | None = None

    async def __call__(self) -> T:
        if self._last is not None and self._clock() - self._last[0] <= self._age_s_max:
            return self._last[1]
        if self._running is None:
            self._running = asyncio.create_task(self._run(), name="cached call", context=Context())
            self._running.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._running)

    async def close(self) -> None:
        """Ends a call that is running."""
        await cancel_and_wait(self._running)

    async def _run(self) -> T:
        began = self._clock()
        try:
            result = await self._call()
            self._last = began, result
            return result
        finally:
            self._running = None
