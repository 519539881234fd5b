"""What visitors notice of `add` and then `drain`, under redirects and creates at a steady rate.

The load is open-loop: a request is due at its time whether or not the one before it has been answered, and its
queueing time counts as latency. Delays of the client's timer do not count. Redirects follow a Zipf distribution
over all links, so memory, Redis and the shards each answer some.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import asdict, dataclass, field
from time import monotonic
from typing import Any

from benchmarks.bed import HOST, Bed, Service, serving
from benchmarks.client import Answer, Connection
from benchmarks.moves.operator import Moved, follow, migrating, reshard
from benchmarks.programs import BenchmarkFailed
from benchmarks.seeding import code_of
from benchmarks.zipf import zipf_numbers

REDIRECT_CONNECTIONS = 16
CREATE_CONNECTIONS = 8
WARM_UP_S = 3.0
COUNTED_S_MAX = 60.0
DRAWS = 200_000
SHARD = "db4"


@dataclass(frozen=True, slots=True)
class Rates:
    """Requests per second, and the seconds without a move before, between and after the changes."""

    redirects: float
    creates: float
    still_s: float


@dataclass(frozen=True, slots=True)
class Request:
    """`at_s` is when it was due, on the monotonic clock. Status 0 means that the connection failed."""

    kind: str
    at_s: float
    latency_ms: float
    status: int


@dataclass(frozen=True, slots=True)
class Latency:
    """Latencies of the requests of one kind in one phase, in ms."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(slots=True)
class Log:
    """All requests, and the start of each phase: "still", "moving", "cleaning" or "checking"."""

    requests: list[Request] = field(default_factory=list)
    change_stamps: list[tuple[float, str]] = field(default_factory=list)

    def mark(self, what: str) -> None:
        self.change_stamps.append((monotonic(), what))

    def phase(self, at_s: float) -> str:
        return next((what for since, what in reversed(self.change_stamps) if since <= at_s), "warm-up")

    def latency(self, kind: str, phase: str) -> Latency:
        found = sorted(
            item.latency_ms for item in self.requests if item.kind == kind and self.phase(item.at_s) == phase
        )
        if not found:
            raise BenchmarkFailed(f"no {kind} was made while {phase}: let it take longer")
        return Latency(len(found), found[len(found) // 2], found[int(len(found) * 0.99)], found[-1])

    def failed(self) -> Counter[str]:
        """Returns the number of unexpected responses by kind and status, for instance "redirect 503"."""
        good = {"redirect": 302, "create": 201}
        return Counter(
            f"{item.kind} {item.status}" for item in self.requests if item.status != good[item.kind]
        )


@dataclass(frozen=True, slots=True)
class Traffic:
    """The results. `created` counts the acknowledged creates, `found` those of them that the shards hold."""

    added: Moved
    drained: Moved
    latencies: dict[str, dict[str, Latency]]
    failed: Counter[str]
    created: int
    found: int
    redirected: int
    counted: int

    @property
    def pause_ms_p99(self) -> float:
        """Returns the p99 pause of the worse of the two changes."""
        return max(self.added.pauses.p99_ms, self.drained.pauses.p99_ms)

    @property
    def pause_ms_max(self) -> float:
        return max(self.added.pauses.max_ms, self.drained.pauses.max_ms)

    @property
    def slowdown(self) -> float:
        """Returns the redirect p99 while slots move, divided by that without a move."""
        return self.latencies["redirect"]["moving"].p99_ms / self.latencies["redirect"]["still"].p99_ms

    def document(self) -> dict[str, Any]:
        return {
            "add": self.added.document(),
            "drain": self.drained.document(),
            "latencies": {
                kind: {phase: asdict(item) for phase, item in phases.items()}
                for kind, phases in self.latencies.items()
            },
            "failed": dict(self.failed),
            "created": self.created,
            "created_and_found": self.found,
            "redirected": self.redirected,
            "clicks_counted": self.counted,
            "redirect_p99_moving_over_still": self.slowdown,
        }


async def measure_traffic(bed: Bed, links: int, rates: Rates, options: Sequence[str] = ()) -> Traffic:
    """Adds a shard and drains it under traffic on the seeded links. `options` go to the migrators."""
    rows_before = await bed.total("SELECT count(*) FROM links")
    clicks_before = await bed.total("SELECT coalesce(sum(clicks), 0)::bigint FROM click_days")
    log = Log()
    async with serving(bed, workers=2) as service:
        options = (*options, "--service-url", f"http://{HOST}:{service.port}")
        stop = asyncio.Event()
        visiting = asyncio.create_task(_visit(service, links, rates, log, stop))
        try:
            added, drained = await _reshard(bed, rates, log, options)
        finally:
            stop.set()
            created = await visiting
        redirected = sum(item.kind == "redirect" and item.status == 302 for item in log.requests)
        counted = await _counted(bed, clicks_before, redirected)
    found = await bed.total("SELECT count(*) FROM links") - rows_before
    await reshard(bed, "verify")
    phases = ("still", "moving", "cleaning")
    return Traffic(
        added,
        drained,
        {kind: {phase: log.latency(kind, phase) for phase in phases} for kind in ("redirect", "create")},
        log.failed(),
        len(created),
        found,
        redirected,
        counted,
    )


async def _reshard(bed: Bed, rates: Rates, log: Log, options: Sequence[str]) -> tuple[Moved, Moved]:
    dsn = await bed.cluster.add_shard(SHARD)
    await asyncio.sleep(WARM_UP_S)
    async with migrating(bed, *options):
        log.mark("still")
        await asyncio.sleep(rates.still_s)
        added = await follow(bed, ["add", SHARD, "--dsn", dsn], SHARD, log.mark)
        await asyncio.sleep(rates.still_s)
    async with migrating(bed, *options):
        drained = await follow(bed, ["drain", SHARD], SHARD, log.mark)
        await asyncio.sleep(rates.still_s)
    return added, drained


async def _counted(bed: Bed, before: int, expected: int) -> int:
    """Returns the clicks counted since `before`, once there are as many as expected or the time is up."""
    deadline = monotonic() + COUNTED_S_MAX
    while True:
        counted = await bed.total("SELECT coalesce(sum(clicks), 0)::bigint FROM click_days") - before
        if counted >= expected or monotonic() > deadline:
            return counted
        await asyncio.sleep(0.2)


# -- the visitors ------------------------------------------------------------------------------------------------


async def _visit(service: Service, links: int, rates: Rates, log: Log, stop: asyncio.Event) -> list[str]:
    """Runs all visitors until `stop`. Returns the codes of the acknowledged creates."""
    codes = itertools.cycle([code_of(number) for number in zipf_numbers(links, DRAWS, seed=1)])
    created: list[str] = []

    async def redirect(connection: Connection) -> Answer:
        return await connection.get(f"/{next(codes)}")

    async def create(connection: Connection) -> Answer:
        answer = await connection.post("/api/v1/links", {"url": "https://www.example.org/made/under/way"})
        if answer.status == 201:
            created.append(answer.json()["code"])
        return answer

    async with asyncio.TaskGroup() as group:
        for kind, ask, rate, connections in (
            ("redirect", redirect, rates.redirects, REDIRECT_CONNECTIONS),
            ("create", create, rates.creates, CREATE_CONNECTIONS),
        ):
            every_s = connections / rate
            for number in range(connections):
                first_s = monotonic() + every_s * number / connections
                group.create_task(
                    _steadily(kind, ask, Connection(HOST, service.port), first_s, every_s, log, stop)
                )
    return created


async def _steadily(
    kind: str,
    ask: Callable[[Connection], Awaitable[Answer]],
    connection: Connection,
    due_s: float,
    every_s: float,
    log: Log,
    stop: asyncio.Event,
) -> None:
    """Sends a request each time that one is due."""
    while not stop.is_set():
        late = monotonic() > due_s  # delayed by the previous response, so it counts as latency
        if not late:
            await asyncio.sleep(due_s - monotonic())
        began_s = due_s if late else monotonic()
        answer = await ask(connection)
        log.requests.append(Request(kind, due_s, (monotonic() - began_s) * 1000, answer.status))
        due_s += every_s
    await connection.close()
