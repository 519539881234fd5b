"""Programs of a benchmark: each in a new session, with its output in a file, stopped with the benchmark."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx

from snapurl.parent_death import signal_at_parent_death

STOP_S_MAX = 10.0
ANSWER_S_MAX = 30.0
_POLL_S = 0.05


class BenchmarkFailed(Exception):
    """A measurement could not be made. The message gives the reason in one line."""


@dataclass(slots=True)
class Program:
    """A running program. `log` is the file with its output."""

    name: str
    process: asyncio.subprocess.Process
    log: Path

    @property
    def pid(self) -> int:
        return self.process.pid

    def last_words(self) -> str:
        """Returns the end of the output on one line."""
        return " ".join(self.log.read_text(errors="replace").split())[-400:] or "it said nothing"

    async def ended(self, timeout_s: float) -> None:
        """Waits until the program has exited with 0. Raises BenchmarkFailed if it fails or takes longer."""
        try:
            code = await asyncio.wait_for(self.process.wait(), timeout_s)
        except TimeoutError:
            raise BenchmarkFailed(f"{self.name} took longer than {timeout_s:.0f} s") from None
        if code != 0:
            raise BenchmarkFailed(f"{self.name} ended with {code}: {self.last_words()}")

    async def stop(self) -> None:
        """Sends SIGTERM, then SIGKILL to the whole session if the program does not exit."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            await asyncio.wait_for(self.process.wait(), STOP_S_MAX)
        except TimeoutError:
            os.killpg(self.process.pid, signal.SIGKILL)
            await self.process.wait()


async def start(
    name: str,
    argv: Sequence[str | Path],
    log: Path,
    *,
    environ: Mapping[str, str] | None = None,
    cores: Sequence[int] = (),
    cwd: Path | None = None,
) -> Program:
    """Starts a program, pinned to `cores` if any are given. The caller must stop it."""
    dies_with_us = signal_at_parent_death(signal.SIGTERM)

    def before_exec() -> None:
        if dies_with_us is not None:
            dies_with_us()
        if cores:
            os.sched_setaffinity(0, cores)

    with log.open("ab") as output:
        process = await asyncio.create_subprocess_exec(
            *map(str, argv),
            env=dict(environ) if environ is not None else None,
            cwd=cwd,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            preexec_fn=before_exec,
        )
    return Program(name, process, log)


@asynccontextmanager
async def running(
    name: str,
    argv: Sequence[str | Path],
    log: Path,
    *,
    environ: Mapping[str, str] | None = None,
    cores: Sequence[int] = (),
    cwd: Path | None = None,
) -> AsyncIterator[Program]:
    """Starts a program and stops it at the end of the block."""
    program = await start(name, argv, log, environ=environ, cores=cores, cwd=cwd)
    try:
        yield program
    finally:
        await program.stop()


async def answering(program: Program, url: str) -> None:
    """Waits until `url` responds without an error. Raises BenchmarkFailed on time-out."""
    deadline = asyncio.get_running_loop().time() + ANSWER_S_MAX
    async with httpx.AsyncClient(follow_redirects=False) as client:
        while True:
            try:
                if (await client.get(url, timeout=2)).status_code < 400:
                    return
            except httpx.HTTPError:
                pass
            if program.process.returncode is not None or asyncio.get_running_loop().time() > deadline:
                raise BenchmarkFailed(f"{program.name} does not answer: {program.last_words()}")
            await asyncio.sleep(_POLL_S)
