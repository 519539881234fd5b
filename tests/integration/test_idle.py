"""An idle process sleeps: how often its timers fire when there is nothing to do."""

from __future__ import annotations

import asyncio
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from snapurl.app import create_app
from snapurl.config import Settings
from snapurl.run.worker import finish, start
from tests.integration.store.conftest import ready
from tests.support.waits import until
from tools.migrator.loop import Migrator, Options

__all__ = ["ready"]

Fired = dict[str, list[float]]
"""Task -> the delays in s of its timers that have fired, in order."""


@contextmanager
def timers() -> Iterator[Fired]:
    """Records the timers of the event loop, except those of the test itself."""
    loop: Any = asyncio.get_running_loop()
    test = asyncio.current_task()
    fired: Fired = defaultdict(list)
    call_at = loop.call_at

    def record(when: float, callback: Callable[..., Any], *args: Any, context: Any = None) -> Any:
        task = asyncio.current_task()
        if task is None or task is test:
            return call_at(when, callback, *args, context=context)
        name = f"{task.get_name()}: {getattr(task.get_coro(), '__qualname__', '')}"
        delay_s = when - loop.time()

        def fire(*args: Any) -> None:
            fired[name].append(delay_s)
            callback(*args)

        return call_at(when, fire, *args, context=context)

    loop.call_at = record
    try:
        yield fired
    finally:
        del loop.call_at


def per_second(fired: Fired) -> float:
    """Returns how often the timers fire per second by their delays, whatever the speed of the machine.

    The timers of a task follow each other. How often a process measures itself depends on the CPU time of this
    whole process, so that is left out.
    """
    return sum(len(each) / sum(each) for name, each in fired.items() if "metrics" not in name.lower())


def all_fired(fired: Fired, task: str, times: int) -> bool:
    """Whether there are tasks of that name, and a timer of each has fired that often."""
    counts = [len(each) for name, each in fired.items() if task in name]
    return bool(counts) and min(counts) >= times


async def test_an_idle_worker_sleeps(ready: Settings) -> None:
    """Without requests a worker does not look for clicks, and all else wakes it a few times a second."""
    app = create_app(ready)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = await start(app, listener)
        try:
            await until(lambda: app.ctx.services.cache.is_subscribed)
            with timers() as fired:
                await until(lambda: all_fired(fired, "watch", 2))
            assert per_second(fired) < 15, dict(fired)
        finally:
            await finish(app, server)


async def test_an_idle_migrator_wakes_for_its_lease_and_little_else(ready: Settings) -> None:
    """With every slot in its place a migrator renews its lease, and otherwise waits for notifications."""
    migrator, stop = Migrator(ready, Options(grace_s=0.0)), asyncio.Event()
    running = asyncio.create_task(migrator.run(stop))
    await until(lambda: migrator.status.state == "idle")
    with timers() as fired:
        await until(lambda: all_fired(fired, "_run_rounds", 5))
    assert per_second(fired) < 3, dict(fired)
    stop.set()
    await running
