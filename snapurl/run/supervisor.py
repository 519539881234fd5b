"""Keeps child processes running, and stops them in order.

A child that dies is started again, after a pause that doubles while it keeps dying. A child that says with
its first breath that the configuration is wrong (exit code 2) would say so for ever: it ends the whole.
Children run in sessions of their own, so that a Ctrl-C on the terminal reaches only us, who know the order;
on Linux they also end when we are killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from snapurl.parent_death import ending_with_parent

CONFIG_EXIT = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Child:
    """One process to keep running. `environ` is all that it gets; `fds` are open files that it inherits."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """Children that stop together, and the seconds they have for it before they are killed."""

    children: tuple[Child, ...]
    stop_s_max: float


@dataclass(frozen=True, slots=True)
class Backoff:
    """Seconds between a child's death and its next start; one that lived `settled_s` starts afresh."""

    first_s: float = 0.1
    most_s: float = 5.0
    settled_s: float = 10.0

    def after(self, pause_s: float, lived_s: float) -> float:
        """The next pause, given the last one (0 if there was none)."""
        if lived_s >= self.settled_s or pause_s == 0:
            return self.first_s
        return min(pause_s * 2, self.most_s)


def _say(line: str) -> None:
    print(f"snapurl: {line}", file=sys.stderr, flush=True)


class Supervisor:
    """Runs the children of all stages; stops stage by stage, the first one first.

    `say` gets one line for each death, `ended` the process id of each child that has ended.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        say: Callable[[str], None] = _say,
        ended: Callable[[int], None] = lambda pid: None,
        backoff: Backoff | None = None,
    ) -> None:
        self._say = say
        self._ended = ended
        self._backoff = backoff or Backoff()
        self._stages = [(stage, [_Kept(child) for child in stage.children]) for stage in stages]
        self._stopping = asyncio.Event()
        self._code = 0

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id of the children that run now."""
        kept = [item for _, items in self._stages for item in items]
        return {item.child.name: item.process.pid for item in kept if item.process is not None}

    async def run(self, stop: asyncio.Event) -> int:
        """Runs until `stop` is set or a child refuses its configuration; leaves none. Gives the exit code."""
        tasks = [
            item.run_as(asyncio.create_task(self._keep(item))) for _, items in self._stages for item in items
        ]
        waiting = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            for stage, items in self._stages:
                await _stop(items, stage.stop_s_max)
            waiting.cancel()
        for task in tasks:
            task.result()  # a bug in here must not look like a clean end
        return self._code

    async def _keep(self, item: _Kept) -> None:
        pause_s = 0.0
        settled = False
        while not self._stopping.is_set():
            started = monotonic()
            code = await self._run_once(item)
            lived_s = monotonic() - started
            settled = settled or lived_s >= self._backoff.settled_s
            if self._stopping.is_set():
                return
            if code == CONFIG_EXIT and not settled:
                self._code = CONFIG_EXIT
                self._stopping.set()
                return
            pause_s = self._backoff.after(pause_s, lived_s)
            self._say(f"{item.child.name} {_how(code)}; starting it again in {pause_s:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), pause_s)

    async def _run_once(self, item: _Kept) -> int | None:
        """Runs the child to its end; its exit code, negative for a signal, None if it could not start."""
        try:
            process = await asyncio.create_subprocess_exec(
                *item.child.argv,
                env=dict(item.child.environ),
                pass_fds=item.child.fds,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=ending_with_parent(signal.SIGTERM),
            )
        except OSError as error:
            self._say(f"{item.child.name} cannot be started: {error.strerror}")
            return None
        item.process = process
        if self._stopping.is_set():  # it was on its way while the others were told to stop
            item.signal(signal.SIGTERM)
        code = await process.wait()
        item.process = None
        self._ended(process.pid)
        return code


class _Kept:
    """A child, the task that keeps it, and the process it is now."""

    def __init__(self, child: Child) -> None:
        self.child = child
        self.process: asyncio.subprocess.Process | None = None
        self.task: asyncio.Task[None] | None = None

    def run_as(self, task: asyncio.Task[None]) -> asyncio.Task[None]:
        self.task = task
        return task

    def signal(self, signum: int) -> None:
        if self.process is not None:
            with contextlib.suppress(ProcessLookupError):
                self.process.send_signal(signum)


async def _stop(items: Sequence[_Kept], patience_s: float) -> None:
    tasks = [item.task for item in items if item.task is not None]
    if not tasks:
        return
    for item in items:
        item.signal(signal.SIGTERM)
    _, late = await asyncio.wait(tasks, timeout=patience_s)
    if late:
        for item in items:
            item.signal(signal.SIGKILL)
        await asyncio.wait(late)


def _how(code: int | None) -> str:
    if code is None:
        return "did not start"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


@contextlib.asynccontextmanager
async def stop_signals() -> AsyncIterator[asyncio.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set; meanwhile they do nothing else."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    for signum in signals:
        loop.add_signal_handler(signum, stop.set)
    try:
        yield stop
    finally:
        for signum in signals:
            loop.remove_signal_handler(signum)


async def unless(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """The result of `work`; None if `stop` was set first: the work is then cancelled, and has ended."""
    task = asyncio.create_task(work)
    waiting = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait([task, waiting], return_when=asyncio.FIRST_COMPLETED)
    finally:
        waiting.cancel()
        if not task.done():
            task.cancel()
            await asyncio.wait([task])
    return None if task.cancelled() else task.result()


def python(*words: str) -> tuple[str, ...]:
    """The command line of one of our own modules: `python("-m", "snapurl.clicks")`."""
    return (sys.executable, *words)


def environ_with(changes: Mapping[str, str]) -> dict[str, str]:
    """What a child of ours gets: what we have, and `changes`."""
    return {**os.environ, **changes}
