"""Runs child processes: restarts those that die, and stops all of them in order.

A dead child is restarted after a delay that doubles while it keeps dying. A child exits with code 2 only at its
start: its configuration is invalid, or nothing that it needs answers. If it has never settled before, that would
fail for ever, however long the start took, and the supervisor stops everything.

Children run in sessions of their own: Ctrl-C on the terminal reaches only the supervisor, which knows the order. On
Linux they also end when the supervisor is killed.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, TypeVar

from snapurl.parent_death import signal_at_parent_death

CONFIG_EXIT = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Child:
    """A process to keep running. `environ` is its complete environment; it inherits the open files `fds`."""

    name: str
    argv: tuple[str, ...]
    environ: Mapping[str, str]
    fds: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Stage:
    """Children that stop together. They are killed if they have not ended after `stop_s_max`."""

    children: tuple[Child, ...]
    stop_s_max: float


@dataclass(frozen=True, slots=True)
class Backoff:
    """The delay before a restart: doubles up to `max_s`, and starts over after a life of `settled_s`."""

    first_s: float = 0.1
    max_s: float = 5.0
    settled_s: float = 10.0

    def after(self, delay_s: float, lived_s: float) -> float:
        """Returns the next delay, given the previous one (0 if there was none)."""
        if lived_s >= self.settled_s or delay_s == 0:
            return self.first_s
        return min(delay_s * 2, self.max_s)


def _print(line: str) -> None:
    print(f"snapurl: {line}", file=sys.stderr, flush=True)


class Supervisor:
    """Runs the children of all stages; stops them stage by stage, beginning with the first.

    `report` is called with one line for each death, `on_exit` with the process id of each child that has ended,
    `before_stop` with the supervisor when it has been told to stop and all children still run.
    """

    def __init__(
        self,
        stages: Sequence[Stage],
        *,
        report: Callable[[str], None] = _print,
        on_exit: Callable[[int], None] = lambda pid: None,
        before_stop: Callable[[Supervisor], Awaitable[None]] | None = None,
        backoff: Backoff | None = None,
    ) -> None:
        self._report = report
        self._on_exit = on_exit
        self._before_stop = before_stop
        self._backoff = backoff or Backoff()
        self._stages = [(stage, [_RunningChild(child) for child in stage.children]) for stage in stages]
        self._stopping = asyncio.Event()
        self._code = 0

    @property
    def pids(self) -> dict[str, int]:
        """Name -> process id of the children that are running."""
        children = [item for _, items in self._stages for item in items]
        return {item.child.name: item.process.pid for item in children if item.process is not None}

    def signal(self, stage: Stage, signum: int) -> None:
        """Sends a signal to all running children of a stage."""
        for each, items in self._stages:
            if each is stage:
                for item in items:
                    item.signal(signum)

    async def run(self, stop: asyncio.Event) -> int:
        """Runs until `stop` is set or a child has an invalid configuration. Returns the exit code."""
        tasks = [
            item.run_as(asyncio.create_task(self._keep_running(item)))
            for _, items in self._stages
            for item in items
        ]
        waiting = asyncio.create_task(stop.wait())
        try:
            await asyncio.wait([waiting, *tasks], return_when=asyncio.FIRST_COMPLETED)
        finally:
            self._stopping.set()
            if stop.is_set() and self._before_stop is not None:
                await self._before_stop(self)
            for stage, items in self._stages:
                await _stop(items, stage.stop_s_max)
            waiting.cancel()
        for task in tasks:
            task.result()  # raises if the task has failed: a bug must not look like a clean exit
        return self._code

    async def _keep_running(self, item: _RunningChild) -> None:
        delay_s = 0.0
        settled = False
        while not self._stopping.is_set():
            started = monotonic()
            code = await self._run_once(item)
            lived_s = monotonic() - started
            if self._stopping.is_set():
                return
            if code == CONFIG_EXIT and not settled:
                self._code = CONFIG_EXIT
                self._stopping.set()
                return
            settled = settled or lived_s >= self._backoff.settled_s
            delay_s = self._backoff.after(delay_s, lived_s)
            self._report(f"{item.child.name} {exit_text(code)}; restarting it in {delay_s:.1f} s")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), delay_s)

    async def _run_once(self, item: _RunningChild) -> int | None:
        """Runs the child until it ends. Returns its exit code, -N for signal N, None if it could not start."""
        try:
            process = await asyncio.create_subprocess_exec(
                *item.child.argv,
                env=dict(item.child.environ),
                pass_fds=item.child.fds,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=signal_at_parent_death(signal.SIGTERM),
            )
        except OSError as error:
            self._report(f"{item.child.name} cannot start: {error.strerror}")
            return None
        item.process = process
        if self._stopping.is_set():  # it was starting while the others got their signal
            item.signal(signal.SIGTERM)
        code = await process.wait()
        item.process = None
        self._on_exit(process.pid)
        return code


class _RunningChild:
    """A child, the task that keeps it running, and its current process."""

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


async def _stop(items: Sequence[_RunningChild], stop_s_max: float) -> None:
    tasks = [item.task for item in items if item.task is not None]
    if not tasks:
        return
    for item in items:
        item.signal(signal.SIGTERM)
    _, late = await asyncio.wait(tasks, timeout=stop_s_max)
    if late:
        for item in items:
            item.signal(signal.SIGKILL)
        await asyncio.wait(late)


def exit_text(code: int | None) -> str:
    """Returns how a process ended, by its exit code (-N: signal N; None: it did not start)."""
    if code is None:
        return "did not start"
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"


@contextlib.asynccontextmanager
async def stop_signals() -> AsyncIterator[asyncio.Event]:
    """Makes SIGINT, SIGTERM and SIGHUP set an event, and nothing else, inside the block."""
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


async def unless_stopped(stop: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Returns the result of `work`, or None if `stop` was set first: then the work was cancelled and has ended."""
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


def python_argv(*words: str) -> tuple[str, ...]:
    """Returns the command line that runs this Python with `words`: `python_argv("-m", "snapurl.clicks")`."""
    return (sys.executable, *words)


def environ_with(changes: Mapping[str, str]) -> dict[str, str]:
    """Returns the environment of this process with `changes`, for a child."""
    return {**os.environ, **changes}
