"""The supervisor, with small real child processes."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from time import monotonic, sleep

import pytest

from snapurl.local.process import is_running, wait_until
from snapurl.run.supervisor import (
    Backoff,
    Child,
    Stage,
    Supervisor,
    environ_with,
    python_argv,
    stop_signals,
    unless_stopped,
)
from tests.support.waits import HANG_S

QUICK = Backoff(first_s=0.01, max_s=0.05)
SETTLED = Backoff(first_s=0.01, max_s=0.05, settled_s=0.0)  # every life is long enough

SLEEP = "import time; time.sleep(600)"
STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
# A handler would not end a sleep that begins just after the signal has come.
NOTE_END = """
import pathlib, signal, sys
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
pathlib.Path(sys.argv[1] + "." + sys.argv[2]).touch()
signal.sigwait([signal.SIGTERM])
with pathlib.Path(sys.argv[1]).open("a") as file:
    file.write(sys.argv[2] + "\\n")
"""
NESTED = """
import asyncio, sys
from snapurl.run.supervisor import Child, Stage, Supervisor, environ_with, python_argv, stop_signals

async def main():
    inner = Child("inner", python_argv("-c", *sys.argv[1:]), environ_with({}))
    async with stop_signals() as stop:
        return await Supervisor([Stage((inner,), 2.0)]).run(stop)

sys.exit(asyncio.run(main()))
"""


def child(name: str, *words: str) -> Child:
    return Child(name, python_argv("-c", *words), environ_with({}))


async def until(done: Callable[[], bool]) -> None:
    assert await wait_until(done, HANG_S), "it did not happen in time"


@asynccontextmanager
async def running(
    stages: Sequence[Stage],
    said: list[str] | None = None,
    ended: list[int] | None = None,
    backoff: Backoff = QUICK,
) -> AsyncIterator[tuple[Supervisor, asyncio.Event, asyncio.Task[int]]]:
    lines, pids = said if said is not None else [], ended if ended is not None else []
    supervisor = Supervisor(stages, report=lines.append, on_exit=pids.append, backoff=backoff)
    stop = asyncio.Event()
    task = asyncio.create_task(supervisor.run(stop))
    try:
        yield supervisor, stop, task
    finally:
        stop.set()
        await task


async def test_killed_child_is_started_again_and_said_so() -> None:
    """A killed child is restarted, and one line says which child, how it ended, and when it restarts."""
    said: list[str] = []
    ended: list[int] = []
    async with running([Stage((child("w1", SLEEP), child("w2", SLEEP)), 2.0)], said, ended) as (
        supervisor,
        _,
        _,
    ):
        await until(lambda: len(supervisor.pids) == 2)
        first = dict(supervisor.pids)
        os.kill(first["w1"], signal.SIGKILL)
        await until(lambda: supervisor.pids.get("w1") not in (None, first["w1"]))
        assert supervisor.pids["w2"] == first["w2"]
        assert said == ["w1 was killed by SIGKILL; restarting it in 0.0 s"]
        assert ended == [first["w1"]]
        last = dict(supervisor.pids)
    assert not any(map(is_running, {*first.values(), *last.values()}))


async def test_stop_ends_every_child_and_returns_zero() -> None:
    """After `stop` no child is left, and none is restarted."""
    said: list[str] = []
    async with running([Stage((child("w1", SLEEP), child("w2", SLEEP)), 2.0)], said) as (
        supervisor,
        stop,
        task,
    ):
        await until(lambda: len(supervisor.pids) == 2)
        pids = list(supervisor.pids.values())
        stop.set()
        assert await task == 0
        assert supervisor.pids == {}
        assert not any(map(is_running, pids))
        assert said == []


async def test_stop_at_once_leaves_nothing() -> None:
    """A stop while children are starting also ends them."""
    for _ in range(5):
        ended: list[int] = []
        async with running([Stage((child("w1", SLEEP),), 2.0)], ended=ended) as (supervisor, stop, task):
            stop.set()
            assert await task == 0
            assert supervisor.pids == {}
        assert not any(map(is_running, ended))


async def test_stages_stop_in_order(tmp_path: Path) -> None:
    """Children of a later stage get the signal only after those of the earlier stage have ended."""
    log = tmp_path / "log"
    stages = [
        Stage((child(name, NOTE_END, str(log), name),), 5.0) for name in ("workers", "consumer", "last")
    ]
    async with running(stages):
        await until(lambda: len(list(tmp_path.iterdir())) == 3)
    assert log.read_text().split() == ["workers", "consumer", "last"]


async def test_stubborn_child_is_killed() -> None:
    """A child that ignores SIGTERM is killed after the time of its stage."""
    async with running([Stage((child("w1", STUBBORN),), 0.3)]) as (supervisor, stop, task):
        await until(lambda: len(supervisor.pids) == 1)
        pid = supervisor.pids["w1"]
        await asyncio.sleep(0.2)  # until it ignores the signal; if it does not yet, it ends on SIGTERM
        stop.set()
        await task
        assert not is_running(pid)


async def test_configuration_error_ends_the_whole() -> None:
    """A child that ends with exit code 2 at its start stops everything, with that code."""
    async with running([Stage((child("w1", SLEEP), child("bad", "raise SystemExit(2)")), 2.0)]) as (
        _,
        _,
        task,
    ):
        assert await asyncio.wait_for(task, HANG_S) == 2


async def test_a_slow_start_does_not_hide_a_configuration_error() -> None:
    """A child that takes long to find that its configuration is invalid is not started again and again."""
    stage = Stage((child("bad", "raise SystemExit(2)"),), 2.0)
    async with running([stage], backoff=SETTLED) as (_, _, task):
        assert await asyncio.wait_for(task, HANG_S) == 2


async def test_a_child_that_has_worked_is_restarted_until_it_can_start_again(tmp_path: Path) -> None:
    """A child that had settled and then cannot start, as while all shards are down, is tried again and again."""
    first = f"import pathlib; p = pathlib.Path({str(tmp_path / 'ran')!r}); ran = p.exists(); p.touch()"
    said: list[str] = []
    stage = Stage((child("w1", f"{first}; raise SystemExit(2 if ran else 3)"),), 2.0)
    async with running([stage], said, backoff=SETTLED) as (_, stop, task):
        await until(lambda: sum("exit code 2" in line for line in said) >= 3)
        stop.set()
        assert await task == 0


async def test_dying_child_is_retried_with_growing_pauses() -> None:
    """A child that keeps dying is restarted after delays that double up to a bound, with one line each."""
    said: list[str] = []
    async with running([Stage((child("w1", "raise SystemExit(3)"),), 2.0)], said):
        await until(lambda: len(said) >= 4)
    assert all(line.startswith("w1 ended with exit code 3; restarting it in ") for line in said)
    assert not any("\n" in line for line in said)


@pytest.mark.parametrize(
    ("pause_s", "lived_s", "expected"), [(0, 0, 0.1), (0.1, 0, 0.2), (4, 9, 5), (5, 0, 5), (5, 10, 0.1)]
)
def test_backoff_doubles_to_a_bound_and_forgets(pause_s: float, lived_s: float, expected: float) -> None:
    """Delays double from 0.1 s to 5 s; after a life of 10 s they start over."""
    assert Backoff().after(pause_s, lived_s) == expected


async def test_program_that_is_missing_is_said_and_retried() -> None:
    """A program that cannot start is reported in one line without a stack trace, and the others keep running."""
    said: list[str] = []
    missing = Child("ghost", ("/nonexistent/program",), {})
    async with running([Stage((missing, child("w1", SLEEP)), 2.0)], said) as (supervisor, _, task):
        await until(lambda: len(said) >= 2 and "w1" in supervisor.pids)
        assert said[0] == "ghost cannot start: No such file or directory"
        assert not task.done()


async def test_nested_supervisors_stop_together(tmp_path: Path) -> None:
    """A supervisor under a supervisor stops its children when it is stopped, and is replaced when killed."""
    log = tmp_path / "log"
    async with running([Stage((child("outer", NESTED, NOTE_END, str(log), "inner"),), 5.0)]) as (
        supervisor,
        _,
        _,
    ):
        await until((tmp_path / "log.inner").exists)
        (tmp_path / "log.inner").unlink()
        os.kill(supervisor.pids["outer"], signal.SIGKILL)
        await until((tmp_path / "log.inner").exists)
        if sys.platform == "linux":  # other systems do not signal a process when its parent dies
            await until(lambda: log.exists() and log.read_text() == "inner\n")
        log.unlink(missing_ok=True)
    assert log.read_text() == "inner\n"


@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_signal_stops_a_whole_program(tmp_path: Path, signum: signal.Signals) -> None:
    """SIGTERM, SIGINT and SIGHUP each end a program built on the supervisor cleanly, with its children."""
    log = tmp_path / "log"
    with subprocess.Popen([*python_argv("-c", NESTED, NOTE_END, str(log), "inner")]) as program:
        deadline = monotonic() + HANG_S
        while not (tmp_path / "log.inner").exists():
            assert monotonic() < deadline
            sleep(0.01)
        program.send_signal(signum)
        assert program.wait(HANG_S) == 0
    assert log.read_text() == "inner\n"


async def test_signals_are_ours_only_meanwhile() -> None:
    """Inside `stop_signals` a SIGTERM only sets the event; afterwards the handler is removed."""
    async with stop_signals() as stop:
        os.kill(os.getpid(), signal.SIGTERM)
        await asyncio.wait_for(stop.wait(), HANG_S)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL


async def test_unless_gives_the_result_or_cancels() -> None:
    """`unless_stopped` returns the result or raises the error of the work, and cancels it on a stop."""
    cleaned: list[bool] = []

    async def long() -> int:
        try:
            await asyncio.sleep(600)
        finally:
            cleaned.append(True)
        return 1

    async def quick() -> int:
        return 7

    async def wrong() -> int:
        raise ValueError("x")

    stop = asyncio.Event()
    assert await unless_stopped(stop, quick()) == 7
    with pytest.raises(ValueError, match="x"):
        await unless_stopped(stop, wrong())
    asyncio.get_running_loop().call_later(0.05, stop.set)
    assert await unless_stopped(stop, long()) is None
    assert cleaned == [True]
