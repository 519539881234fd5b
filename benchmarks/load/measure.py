"""One run: sends the requests, and measures all their cost until the last click is counted."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from time import monotonic

from prometheus_client.parser import text_string_to_metric_families

from benchmarks.accounting import children, cpu_seconds, memory_mib, peak_resident_mib
from benchmarks.bed import HOST, Bed
from benchmarks.client import Connection
from benchmarks.load.generators import Generator
from benchmarks.load.sample import Clicks, Sample, Shape
from benchmarks.load.subjects import Subject
from benchmarks.programs import BenchmarkFailed

COUNTED_S_MAX = 60.0
QUIET_S = 0.3  # requests in flight when the generator stops are answered within this time
_COUNTED = "SELECT coalesce(sum(clicks), 0)::bigint FROM click_days"


@dataclass(frozen=True, slots=True)
class Sender:
    """The load generator, and the cores that it is pinned to (none: any)."""

    generator: Generator
    cores: Sequence[int] = ()


async def measure(
    bed: Bed, subject: Subject, sender: Sender, shape: Shape, seconds: float, first: int = 0
) -> Sample:
    """Runs `shape` for that time. Raises BenchmarkFailed if no request is answered."""
    before = await clicks(bed, subject)
    cpu_before = cpu_seconds(subject.groups)
    sent = await sender.generator.send(subject.port, shape, seconds, sender.cores, first)
    await asyncio.sleep(QUIET_S)
    after = await counted(bed, subject, before)
    used = cpu_seconds(subject.groups)
    cpu = {name: (used[name] - cpu_before[name]) / sent.requests * 1000 for name in used}
    return Sample(sent, cpu, _memory(subject), after)


async def warm_up(bed: Bed, subject: Subject, sender: Sender, shape: Shape, seconds: float) -> int:
    """Does the same without measuring, until all its clicks are counted. Returns the next index in the paths."""
    before = await clicks(bed, subject)
    sent = await sender.generator.send(subject.port, shape, seconds, sender.cores)
    await asyncio.sleep(QUIET_S)
    await counted(bed, subject, before)
    return sent.requests + shape.connections


def _memory(subject: Subject) -> dict[str, float]:
    """Returns MiB per group: the sum of peak resident memory for the service, current memory for the servers."""
    found = memory_mib(subject.groups)
    roots = subject.groups["service"]
    family = [pid for root in roots for pid in (root, *children(root))]
    return {**found, "service": peak_resident_mib(family)}


async def clicks(bed: Bed, subject: Subject) -> Clicks | None:
    """Returns redirects answered and clicks counted so far, or None for a peer."""
    if subject.metrics_port is None:
        return None
    return Clicks(await redirects_answered(subject.metrics_port), await counted_clicks(bed))


async def counted_clicks(bed: Bed) -> int:
    """Returns all clicks that the shards have counted so far."""
    return await bed.total(_COUNTED)


async def counted(bed: Bed, subject: Subject, before: Clicks | None) -> Clicks | None:
    """Waits until every redirect answered since `before` is counted as a click, or until the time is up."""
    if before is None or subject.metrics_port is None:
        return None
    deadline = monotonic() + COUNTED_S_MAX
    while True:
        now = Clicks(await redirects_answered(subject.metrics_port), await counted_clicks(bed))
        since = Clicks(now.answered - before.answered, now.counted - before.counted)
        if since.counted >= since.answered or monotonic() > deadline:
            return since
        await asyncio.sleep(0.1)


async def redirects_answered(metrics_port: int) -> int:
    """Returns how many redirects all workers have answered, according to SnapURL's metrics."""
    connection = Connection(HOST, metrics_port)
    try:
        answer = await connection.get("/metrics")
    finally:
        await connection.close()
    if answer.status != 200:
        raise BenchmarkFailed(f"/metrics answers {answer.status}")
    return sum(
        int(item.value)
        for family in text_string_to_metric_families(answer.body.decode())
        for item in family.samples
        if item.name == "snapurl_redirects_total" and item.labels["outcome"] == "redirected"
    )
