"""A modest client beside an attack: what it notices of it, and how much memory the workers take.

The modest client follows links and creates some, from an address of its own, on a schedule that does not wait for
answers. It is measured for a while without the attack, then during it. The time of a request runs from the moment
at which it is due, so that a stall counts for each request that falls into it.

Attacker, service and modest client share the machine. From machines of their own, the attacker would not take CPU
time from the others, and the modest client would not wait for it. So the attacker has a lower priority than the
service, and the modest client a higher one if this process may set it. The figures say which (`nice`). Even so, a
core that is busy with the attacker may give way at its next tick only (4 ms on many kernels), and a request needs
several processes. `floor.py` measures how much that adds. The rest is the service's. It shows when the attacker has
cores of its own, and all others the rest, as with `taskset -c 0 python -m tests.hostile`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

from benchmarks.accounting import children, peak_resident_mib, resident_mib
from benchmarks.bed import Bed, Service, made, serving
from benchmarks.client import Answer, Connection
from snapurl.config import Settings
from snapurl.http.wire.connections import BODIES_BYTES_MAX
from snapurl.tasks import cancel_and_wait
from tests.hostile.attacker import CONNECTIONS, HOST, NICE, Attack, cores_apart, named
from tests.hostile.table import Figure

T = TypeVar("T")

MODEST, HOSTILE, THIRD = "127.0.0.7", "127.0.0.9", "127.0.0.11"
REDIRECTS_PER_S, CREATES_PER_S = 200, 5
REDIRECTING, CREATING = 8, 2  # connections of the modest client
LINKS = 50  # that it follows
MODEST_NICE = -10
QUIET_S = 10.0
WORKERS = 2
LIMITS = ("limit_create", "limit_missing", "limit_unauthorized")
DEFAULT_LIMITS = {f"SNAPURL_{name.upper()}": Settings.model_fields[name].default for name in LIMITS}
LINKS_PATH = "/api/v1/links"

TIMES_MAX = 3.0
CREATE_MS_MAX = 250.0
GROWTH_MIB_MAX = 2 * BODIES_BYTES_MAX / 2**20
"""What a worker may grow by: the bodies that it holds at a time, and as much again for what is made of them."""


@dataclass
class Noticed:
    """Seconds that each request of the modest client took, and the statuses that were not the right ones."""

    redirects_s: list[float] = field(default_factory=list)
    creates_s: list[float] = field(default_factory=list)
    failed: Counter[int] = field(default_factory=Counter)


class Modest:
    """A client with few requests to each of `ports`. `more` are header lines of all of them."""

    def __init__(self, ports: Sequence[int], codes: Iterable[str], more: str = "") -> None:
        self.noticed = Noticed()
        self._codes = itertools.cycle(codes)
        self._connections = [
            Connection(HOST, ports[number % len(ports)], MODEST, more)
            for number in range(REDIRECTING + CREATING)
        ]

    async def during(self, event: Awaitable[T]) -> tuple[Noticed, T]:
        """Returns what is noticed until `event` is done, and its result."""
        self.noticed = Noticed()
        ended = asyncio.Event()
        asking = [
            asyncio.create_task(self._ask(number, connection, ended))
            for number, connection in enumerate(self._connections)
        ]
        try:
            result = await event
            ended.set()
            await asyncio.gather(*asking)
        finally:
            await cancel_and_wait(*asking)
        return self.noticed, result

    async def _ask(self, number: int, connection: Connection, ended: asyncio.Event) -> None:
        noticed, is_create = self.noticed, number >= REDIRECTING
        rate, clients = (CREATES_PER_S, CREATING) if is_create else (REDIRECTS_PER_S, REDIRECTING)
        took_s, status = (noticed.creates_s, 201) if is_create else (noticed.redirects_s, 302)
        due = time.monotonic() + number % clients / rate
        while not ended.is_set():
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            answer = await (self._create(connection) if is_create else self._follow(connection))
            took_s.append(time.monotonic() - due)
            if answer.status != status:
                noticed.failed[answer.status] += 1
            due += clients / rate

    def _follow(self, connection: Connection) -> Awaitable[Answer]:
        return connection.get(f"/{next(self._codes)}")

    def _create(self, connection: Connection) -> Awaitable[Answer]:
        return connection.post(LINKS_PATH, {"url": "https://example.org/"})

    async def close(self) -> None:
        for connection in self._connections:
            await connection.close()


@dataclass(frozen=True)
class Scene:
    """A service for one attack, and links that exist."""

    bed: Bed
    service: Service
    codes: Sequence[str]

    def workers(self) -> list[int]:
        """Returns the process ids of the workers."""
        return children(self.service.workers.pid)


@asynccontextmanager
async def scene(**variables: str) -> AsyncIterator[Scene]:
    """Starts a service that anybody may create links with, with the default limits unless `variables` differ."""
    async with AsyncExitStack() as stack:
        home = stack.enter_context(tempfile.TemporaryDirectory(prefix="snapurl-hostile-"))
        bed = await stack.enter_async_context(made(Path(home), durable=False))
        service = await stack.enter_async_context(serving(bed, WORKERS, **(DEFAULT_LIMITS | variables)))
        connection, codes = Connection(HOST, service.port, THIRD), []
        for _ in range(LINKS):
            answer = await connection.post(LINKS_PATH, {"url": "https://example.org/"})
            codes.append(answer.json()["code"])
        await connection.close()
        yield Scene(bed, service, codes)


@asynccontextmanager
async def attacking(
    name: str, port: int, codes: Sequence[str], seconds: float
) -> AsyncIterator[Awaitable[bytes]]:
    """Starts the attack `module:NAME` in a process of its own. Yields what it says at its end."""
    argv = (sys.executable, "-m", "tests.hostile.attacker", name)
    process = await asyncio.create_subprocess_exec(*argv, stdin=PIPE, stdout=PIPE)
    assert process.stdin is not None and process.stdout is not None
    try:
        given = {"seconds": seconds, "ports": [port], "codes": codes, "address": HOSTILE}
        process.stdin.write(json.dumps(given).encode())
        process.stdin.close()
        await process.stdout.readline()  # it begins
        yield process.stdout.read()
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def measured(
    here: Scene,
    name: str,
    seconds: float,
    *,
    port: int = 0,
    codes: Sequence[str] = (),
    more: str = "",
    growth_mib_max: float = GROWTH_MIB_MAX,
) -> list[Figure]:
    """Attacks the service, at `port` if that is given, with a modest client beside it. Returns what both notice.

    `codes` are for the attacker, if others than the modest client's; `more` are header lines of the modest client.
    """
    port = port or here.service.port
    modest = Modest([port], here.codes, more)
    with first_in_line():
        await modest.during(asyncio.sleep(1.0))  # it connects, and its links are cached
        quiet, _ = await modest.during(asyncio.sleep(min(QUIET_S, seconds)))
        rest_mib = {pid: resident_mib(pid) for pid in here.workers()}
        async with attacking(name, port, codes or here.codes, seconds) as said:
            began = time.monotonic()
            noticed, counts = await modest.during(said)
            took_s = time.monotonic() - began
        await modest.close()
        figures = [answers(named(name), json.loads(counts), took_s), *latencies(quiet, noticed)]
    grown_mib = max(peak_resident_mib([pid]) - mib for pid, mib in rest_mib.items())
    return [
        *figures,
        Figure(
            "memory of a worker beyond what it had",
            f"{grown_mib:.0f} MiB",
            f"{growth_mib_max:.0f} MiB",
            grown_mib <= growth_mib_max and here.workers() == list(rest_mib),
        ),
    ]


@contextmanager
def first_in_line() -> Iterator[None]:
    """Has this thread get the CPU before others for the block, if it may."""
    before = os.getpriority(os.PRIO_PROCESS, 0)
    with suppress(PermissionError):
        os.setpriority(os.PRIO_PROCESS, 0, MODEST_NICE)
    try:
        yield
    finally:
        os.setpriority(os.PRIO_PROCESS, 0, before)


def answers(attack: Attack, counts: dict[str, int], took_s: float) -> Figure:
    """Returns what the attacker was answered, and whether that is documented."""
    connections = counts.pop(CONNECTIONS)
    place = (
        f"nice {NICE}, {f'{len(apart)} cores of its own' if (apart := cores_apart()) else 'the same cores'}"
    )
    listed = ", ".join(f"{count:,} x {status}" for status, count in sorted(counts.items()))
    return Figure(
        f"attack ({place}), {attack.connections:,} connections at a time",
        f"{sum(counts.values()) / took_s:,.0f} answers/s in {connections:,} tries to connect: {listed or 'none'}",
        ", ".join(map(str, sorted(attack.statuses))),
        {int(status) for status in counts} <= attack.statuses,
    )


def latencies(quiet: Noticed, noticed: Noticed) -> list[Figure]:
    before_ms, redirects_ms = p99_ms(quiet.redirects_s), p99_ms(noticed.redirects_s)
    creates_ms, nice = p99_ms(noticed.creates_s), os.getpriority(os.PRIO_PROCESS, 0)
    failed = ", ".join(f"{count} x {status or 'none'}" for status, count in noticed.failed.items())
    return [
        Figure(
            f"p99 of {len(noticed.redirects_s):,} redirects of others (nice {nice})",
            f"{before_ms:.1f} → {redirects_ms:.1f} ms",
            f"{TIMES_MAX:g} times",
            redirects_ms <= TIMES_MAX * before_ms,
        ),
        Figure(
            f"p99 of {len(noticed.creates_s):,} creates of others",
            f"{p99_ms(quiet.creates_s):.1f} → {creates_ms:.1f} ms",
            f"{CREATE_MS_MAX:g} ms",
            creates_ms <= CREATE_MS_MAX,
        ),
        Figure("errors of others", failed or "0", "0", not noticed.failed),
    ]


def p99_ms(seconds: Sequence[float]) -> float:
    return sorted(seconds)[int(len(seconds) * 0.99)] * 1_000
