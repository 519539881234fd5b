"""Quiet for whoever makes writers wait: several lanes may copy at a time, but nobody copies during a pause.

What is copied beside a batch that is frozen makes its pause longer, on the disks and processors of the shards and
in this process. A pause that is wanted comes before copies that have not begun.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager


class Quiet:
    """A lock that is shared by those who work, and had alone by the one who pauses."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self._working = 0
        self._wanted = 0
        self._quiet = False

    @asynccontextmanager
    async def work(self) -> AsyncIterator[None]:
        """Beside others who work; waits while there is quiet or somebody waits for it."""
        async with self._changed:
            await self._changed.wait_for(lambda: not self._quiet and not self._wanted)
            self._working += 1
        try:
            yield
        finally:
            self._working -= 1
            await self._tell()

    async def begin(self) -> None:
        """Quiet from now on, when those who work now have ended."""
        self._wanted += 1
        try:
            async with self._changed:
                await self._changed.wait_for(lambda: not self._quiet and not self._working)
                self._quiet = True
        finally:
            self._wanted -= 1
            await self._tell()

    async def end(self) -> None:
        """No quiet any more."""
        self._quiet = False
        await self._tell()

    async def _tell(self) -> None:
        async with self._changed:
            self._changed.notify_all()
