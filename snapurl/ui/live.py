"""One sampler per worker for however many watch: it begins with the first of them and ends with the last."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from time import monotonic

from snapurl.telemetry.logs import endless_task


class Sampler:
    """Calls `sample` every `interval_s` while somebody watches, and gives its result to all who do.

    "" is no result: the one before it stays. A watcher that is slow misses results; it never gets an older one than
    there is.
    """

    def __init__(self, sample: Callable[[], Awaitable[str]], interval_s: float) -> None:
        self._sample = sample
        self._interval_s = interval_s
        self._watchers = 0
        self._task: asyncio.Task[None] | None = None
        self._newest = ""
        self._number = 0
        self._changed = asyncio.Event()

    @property
    def is_watched(self) -> bool:
        return self._watchers > 0

    @contextmanager
    def watch(self) -> Iterator[Callable[[], Awaitable[str]]]:
        """Gives a function that waits for a result it has not returned yet, and returns the newest."""
        seen = self._number - 1 if self._task is not None and self._newest else self._number

        async def newest() -> str:
            nonlocal seen
            while self._number == seen:
                await self._changed.wait()
            seen = self._number
            return self._newest

        self._watchers += 1
        if self._task is None:
            self._task = endless_task(self._run, "sampler")
        try:
            yield newest
        finally:
            self._watchers -= 1
            if not self._watchers:
                self._task.cancel()
                self._task = None
                self._newest = ""

    async def _run(self) -> None:
        while True:
            began_s = monotonic()
            self._publish(await self._sample())
            await asyncio.sleep(max(self._interval_s / 2, self._interval_s - (monotonic() - began_s)))

    def _publish(self, result: str) -> None:
        """Wakes those who watch, unless nothing has changed."""
        if result in ("", self._newest):
            return
        self._newest = result
        self._number += 1
        self._changed.set()
        self._changed = asyncio.Event()
