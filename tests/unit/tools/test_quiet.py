"""Who copies, who pauses: the lanes of a migrator do not disturb each other's pauses."""

from __future__ import annotations

import asyncio

import pytest

from tools.quiet import Quiet


class Lane:
    """One that works or pauses until it is let go."""

    def __init__(self) -> None:
        self.began = False
        self.go_on = asyncio.Event()
        self.task: asyncio.Task[None] | None = None

    async def _work(self, quiet: Quiet) -> None:
        async with quiet.work():
            self.began = True
            await self.go_on.wait()

    async def _pause(self, quiet: Quiet) -> None:
        await quiet.begin()
        self.began = True
        await self.go_on.wait()
        await quiet.end()

    async def starts(self, quiet: Quiet, what: str) -> Lane:
        self.task = asyncio.create_task(self._work(quiet) if what == "work" else self._pause(quiet))
        await _settle()
        return self

    async def ends(self) -> None:
        assert self.task is not None
        self.go_on.set()
        await self.task
        await _settle()


async def _settle() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_pause_waits_for_copies_and_they_for_it() -> None:
    """Copies run beside each other; a pause begins when they have ended, and none begins before it ends."""
    quiet = Quiet()
    first, second = await Lane().starts(quiet, "work"), await Lane().starts(quiet, "work")
    assert first.began
    assert second.began
    pause = await Lane().starts(quiet, "pause")
    late = await Lane().starts(quiet, "work")
    await first.ends()
    assert not pause.began
    assert not late.began, "a pause that is wanted comes first"
    await second.ends()
    assert pause.began
    assert not late.began
    await pause.ends()
    assert late.began
    await late.ends()


async def test_pauses_come_one_after_another() -> None:
    """Two batches are never frozen at a time."""
    quiet = Quiet()
    first, second = await Lane().starts(quiet, "pause"), await Lane().starts(quiet, "pause")
    assert first.began
    assert not second.began
    await first.ends()
    assert second.began
    await second.ends()


async def test_what_breaks_off_holds_nobody_up() -> None:
    """After a copy that failed, and a pause that was given up while it waited, the others go on."""
    quiet = Quiet()
    with pytest.raises(ZeroDivisionError):
        async with quiet.work():
            raise ZeroDivisionError
    work = await Lane().starts(quiet, "work")
    pause = await Lane().starts(quiet, "pause")
    assert pause.task is not None
    pause.task.cancel()
    await _settle()
    other = await Lane().starts(quiet, "work")
    assert other.began
    await work.ends()
    await other.ends()
    last = await Lane().starts(quiet, "pause")
    assert last.began
    await last.ends()
