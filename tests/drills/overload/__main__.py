"""Ten times as many requests as the service can answer, while well-behaved clients send a few.

    python -m tests.drills.overload --seconds 30

The flood consists of creates: a cached redirect costs so little that no generator on the same machine could send
ten times as many. Rate limits are off, so only the bounds of a worker protect it. Slow clients (heads and bodies, a
byte per second), idle connections, and large bodies come with the flood. Well-behaved clients create and follow a
link now and then, before, during and after it; the report is about them and the workers' memory.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.bed import Service, made, serving
from benchmarks.client import Connection

WORKERS = 2
CAPACITY_S = 5.0
CAPACITY_CLIENTS = 64
FLOODS = 2
FLOOD_CONNECTIONS = 2_000  # each
TIMES = 10
BODIES_AT_ONCE = 32
POLITE = 20
POLITE_PAUSE_S = 0.25
CALM_S = 8.0
RECOVER_S_MAX = 5.0
SAMPLE_S = 0.5
SHORT = 0.1  # share of the durations and connections


@dataclass(frozen=True)
class Plan:
    """The size of the overload."""

    seconds: float
    idle: int
    drips: int
    body_bytes: int


@dataclass
class Polite:
    """Well-behaved clients: (start time, seconds, status) of each request."""

    port: int
    creates: list[tuple[float, float, int]] = field(default_factory=list)
    redirects: list[tuple[float, float, int]] = field(default_factory=list)

    async def ask(self, number: int, stop: asyncio.Event) -> None:
        connection = Connection("127.0.0.1", self.port)
        await asyncio.sleep(number * POLITE_PAUSE_S / POLITE)
        while not stop.is_set():
            began = time.monotonic()
            answer = await connection.post("/api/v1/links", {"url": "https://example.org/polite"})
            self.creates.append((began, time.monotonic() - began, answer.status))
            began = time.monotonic()
            answer = await connection.get("/followed")
            self.redirects.append((began, time.monotonic() - began, answer.status))
            await asyncio.sleep(POLITE_PAUSE_S)
        await connection.close()

    def between(self, begin: float, end: float) -> str:
        """Returns a line with the statuses and p99 of the requests in that period."""
        return "; ".join(
            f"{name}: {_words([item for item in items if begin <= item[0] < end])}"
            for name, items in (("creates", self.creates), ("redirects", self.redirects))
        )

    def p99_ms(self, begin: float, end: float) -> float:
        return _p99_ms([item for item in (*self.creates, *self.redirects) if begin <= item[0] < end])


def _p99_ms(items: list[tuple[float, float, int]]) -> float:
    seconds = sorted(item[1] for item in items)
    return seconds[int(len(seconds) * 0.99)] * 1000 if seconds else float("inf")


def _words(items: list[tuple[float, float, int]]) -> str:
    statuses = Counter(item[2] for item in items)
    listed = ", ".join(f"{count} x {status or 'none'}" for status, count in statuses.most_common())
    return f"{listed or 'none'}, p99 {_p99_ms(items):.0f} ms"


class Memory:
    """The resident memory of the workers, and the peak of any of them."""

    def __init__(self, supervisor: int) -> None:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        self._workers = [Path(f"/proc/{pid}/statm") for pid in children]
        self.before_mb = max(self._now())
        self.most_mb = self.before_mb

    def _now(self) -> list[float]:
        return [int(file.read_text().split()[1]) * 4096 / 1e6 for file in self._workers]

    async def watch(self, stop: asyncio.Event) -> None:
        while not stop.is_set():
            self.most_mb = max(self.most_mb, *self._now())
            await asyncio.sleep(SAMPLE_S)


async def capacity(port: int, seconds: float) -> float:
    """Returns the creates per second that clients achieve in a closed loop."""
    ends = time.monotonic() + seconds
    done = 0

    async def ask() -> None:
        nonlocal done
        connection = Connection("127.0.0.1", port)
        while time.monotonic() < ends:
            answer = await connection.post("/api/v1/links", {"url": "https://example.org/"})
            done += answer.status == 201
        await connection.close()

    await asyncio.gather(*(ask() for _ in range(CAPACITY_CLIENTS)))
    return done / seconds


async def flood(*words: object) -> dict[str, object]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.drills.overload.flood", *map(str, words)),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0
    found: dict[str, object] = json.loads(output)
    return found


async def overload(plan: Plan, service: Service, scale: float) -> dict[str, float]:
    """Executes one overload, prints the results and returns the figures."""
    port = service.port
    answer = await Connection("127.0.0.1", port).post(
        "/api/v1/links", {"url": "https://example.org/", "alias": "followed"}
    )
    assert answer.status == 201, answer
    can = await capacity(port, CAPACITY_S * scale)
    print(f"capacity: {can:.0f} creates/s", flush=True)
    polite, stop = Polite(port), asyncio.Event()
    connections = int(FLOOD_CONNECTIONS * scale)
    memory = Memory(service.workers.pid)
    async with asyncio.TaskGroup() as group:
        group.create_task(memory.watch(stop))
        for number in range(POLITE):
            group.create_task(polite.ask(number, stop))
        calm = time.monotonic()
        await asyncio.sleep(CALM_S * scale)
        began = time.monotonic()
        said = await asyncio.gather(
            *(
                flood(
                    "creates",
                    port,
                    can * TIMES / FLOODS,
                    plan.seconds,
                    connections,
                    f"127.0.0.{n + 2}",
                )
                for n in range(FLOODS)
            ),
            flood("idle", port, plan.idle, plan.seconds),
            flood("drips", port, plan.drips, plan.seconds),
            flood("bodies", port, plan.body_bytes, BODIES_AT_ONCE),
        )
        ended = time.monotonic()
        await asyncio.sleep(RECOVER_S_MAX * scale + CALM_S * scale)
        stop.set()
    for line in said:
        print(line)
    print(f"before: {polite.between(calm, began)}")
    print(f"during {ended - began:.0f} s: {polite.between(began, ended)}")
    for second in range(int(RECOVER_S_MAX)):
        print(f"  {second + 1} s after: {polite.between(ended + second, ended + second + 1)}")
    print(f"after: {polite.between(ended + RECOVER_S_MAX, ended + RECOVER_S_MAX + CALM_S)}")
    print(
        f"memory of a worker: {memory.before_mb:.0f} MB before, {memory.most_mb:.0f} MB at most", flush=True
    )
    during = [item for item in polite.redirects if began <= item[0] < ended]
    return {
        "capacity": can,
        "calm_p99_ms": polite.p99_ms(calm, began),
        "recovered_p99_ms": polite.p99_ms(ended + RECOVER_S_MAX - 1, ended + RECOVER_S_MAX),
        "after_p99_ms": polite.p99_ms(ended + RECOVER_S_MAX, ended + RECOVER_S_MAX + CALM_S),
        "redirected": sum(item[2] == 302 for item in during) / max(1, len(during)),
        "memory_mb": memory.most_mb,
    }


async def run(plan: Plan, home: Path, *, short: bool = False) -> dict[str, float]:
    """Returns the figures of one overload; a short one only checks that the drill works."""
    async with AsyncExitStack() as stack:
        bed = await stack.enter_async_context(made(home, durable=False))
        service = await stack.enter_async_context(serving(bed, WORKERS))
        return await overload(plan, service, scale=SHORT if short else 1.0)


def main() -> None:
    parser = argparse.ArgumentParser(description="Overload, and what others notice of it.")
    parser.add_argument("--seconds", type=float, default=30.0)
    parser.add_argument("--idle", type=int, default=10_000)
    parser.add_argument("--drips", type=int, default=400)
    parser.add_argument("--body-mb", type=int, default=1_000)
    asked = parser.parse_args()
    plan = Plan(asked.seconds, asked.idle, asked.drips, asked.body_mb * 1_000_000)
    with tempfile.TemporaryDirectory(prefix="snapurl-overload-") as home:
        figures = asyncio.run(run(plan, Path(home)))
    print(
        f"p99 before {figures['calm_p99_ms']:.0f} ms, in the 5th second after {figures['recovered_p99_ms']:.0f} ms"
    )


if __name__ == "__main__":
    main()
