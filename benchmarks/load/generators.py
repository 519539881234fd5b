"""Load generators: wrk, and a small one in Python for runs that only check that everything works."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from typing import Protocol

from benchmarks.client import Connection
from benchmarks.load.sample import Sent, Shape
from benchmarks.programs import BenchmarkFailed, start

SCRIPT = Path(__file__).parent / "load.lua"
HOST = "127.0.0.1"
TIMEOUT_S = 10
OVERRUN_S_MAX = 60.0
HOW_TO_INSTALL = (
    "wrk is not on PATH. Debian, Ubuntu: apt-get install wrk; Fedora: dnf install wrk; macOS: brew install wrk. "
    "`--quick` goes without it."
)


class Generator(Protocol):
    """`first` is the index in `shape.paths` to start from, so that a run can continue where another ended."""

    name: str

    async def send(
        self, port: int, shape: Shape, seconds: float, cores: Sequence[int], first: int = 0
    ) -> Sent: ...


def find_wrk() -> Wrk:
    """Returns wrk. Raises BenchmarkFailed with installation instructions if it is missing."""
    if shutil.which("wrk") is None:
        raise BenchmarkFailed(HOW_TO_INSTALL)
    return Wrk()


class Wrk:
    """wrk with one thread, in a closed loop."""

    name = "wrk"

    async def send(
        self, port: int, shape: Shape, seconds: float, cores: Sequence[int], first: int = 0
    ) -> Sent:
        with tempfile.TemporaryDirectory(prefix="snapurl-wrk-") as place:
            directory = Path(place)
            environ = {**os.environ, "BENCH_EVERY": str(shape.post_every), "BENCH_FIRST": str(first)}
            path = "/"
            if len(shape.paths) > 1:
                environ["BENCH_PATHS"] = str(directory / "paths")
                (directory / "paths").write_text("\n".join(shape.paths) + "\n")
            elif not shape.post_every:
                path = shape.paths[0]
            if shape.post_every:
                environ |= {"BENCH_POST": shape.post_path, "BENCH_BODY": str(directory / "body")}
                (directory / "body").write_bytes(shape.body)
            argv = [
                *("wrk", "-t1", f"-c{shape.connections}", f"-d{max(1, round(seconds))}s"),
                *(f"--timeout={TIMEOUT_S}s", f"--script={SCRIPT}", f"http://{HOST}:{port}{path}"),
            ]
            program = await start("wrk", argv, directory / "log", environ=environ, cores=cores)
            try:
                await program.ended(seconds + OVERRUN_S_MAX)
            finally:
                await program.stop()
            return _read((directory / "log").read_text())


def _read(said: str) -> Sent:
    line = next((line for line in said.splitlines() if line.startswith("RESULT ")), None)
    if line is None:
        raise BenchmarkFailed(f"wrk gave no result: {' '.join(said.split())[-300:]}")
    found = json.loads(line.removeprefix("RESULT "))
    if not found["requests"]:
        raise BenchmarkFailed(f"nothing was answered: {found['errors']}")
    p50, p99, p999 = (found[name] / 1000 for name in ("p50", "p99", "p999"))
    return Sent(found["requests"], found["us"] / 1e6, p50, p99, p999, found["errors"])


class PythonLoad:
    """The same with asyncio. It is too slow for its figures to describe a server."""

    name = "a generator in Python"

    async def send(
        self, port: int, shape: Shape, seconds: float, cores: Sequence[int], first: int = 0
    ) -> Sent:
        latencies: list[float] = []
        errors: Counter[str] = Counter()
        began = monotonic()
        places = iter(range(first, first + 100_000_000))

        async def one() -> None:
            connection = Connection(HOST, port)
            while monotonic() - began < seconds:
                number = next(places)
                asked = monotonic()
                if shape.post_every and (number + 1) % shape.post_every == 0:
                    answer = await connection.post(shape.post_path, json.loads(shape.body))
                else:
                    answer = await connection.get(shape.paths[number % len(shape.paths)])
                latencies.append((monotonic() - asked) * 1000)
                if answer.status == 0 or answer.status >= 400:
                    errors["status" if answer.status else "read"] += 1
            await connection.close()

        await asyncio.gather(*(one() for _ in range(min(8, shape.connections))))
        ordered = sorted(latencies)
        p50, p99, p999 = (ordered[int(len(ordered) * part)] for part in (0.5, 0.99, 0.999))
        return Sent(len(ordered), monotonic() - began, p50, p99, p999, dict(errors))
