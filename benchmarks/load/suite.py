"""Runs scenarios. All subjects of a scenario are up at the same time, and their runs alternate."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace

from benchmarks.bed import Bed
from benchmarks.load.dashboards import watched
from benchmarks.load.generators import Generator
from benchmarks.load.measure import Sender, measure, warm_up
from benchmarks.load.sample import Result, Sample, Shape, with_dashboards
from benchmarks.load.scenarios import Scale, Scenario
from benchmarks.load.subjects import Conditions, Start, Subject
from benchmarks.programs import BenchmarkFailed

REST_S = 0.3  # between two runs
WATCHED = ("hot", "zipf")  # on one core, and on all


@dataclass(frozen=True, slots=True)
class Suite:
    """How all scenarios are run. With `may_skip`, a peer that is not installed is skipped and reported.

    With `dashboards`, SnapURL takes further turns at the scenarios WATCHED, with so many dashboards open.
    """

    bed: Bed
    generator: Generator
    scale: Scale
    may_skip: bool
    durable: bool
    say: Callable[[str], None]
    dashboards: int = 0

    async def run(self, scenario: Scenario) -> list[Result]:
        """Returns the results of the scenario's subjects, SnapURL first. Raises BenchmarkFailed."""
        server_cores, sender_cores = cores_for(scenario.workers)
        how = Conditions(scenario.workers, server_cores, scenario.settings, self.scale.links)
        sender = Sender(self.generator, sender_cores)
        async with AsyncExitStack() as stack:
            subjects = [
                subject
                for start in scenario.subjects
                if (subject := await self._start(stack, start, how)) is not None
            ]
            if self.dashboards and scenario.name in WATCHED:
                subjects += [self._watched(each) for each in subjects if each.metrics_port is not None]
            samples = await self._take_turns(scenario, subjects, sender)
        return [
            Result(scenario.name, subject.name, subject.workers, samples[subject.name], scenario.per_request)
            for subject in subjects
        ]

    async def _start(self, stack: AsyncExitStack, start: Start, how: Conditions) -> Subject | None:
        try:
            return await stack.enter_async_context(start(self.bed, how))
        except BenchmarkFailed as error:
            if not self.may_skip:
                raise
            self.say(f"left out: {error}")
            return None

    def _watched(self, subject: Subject) -> Subject:
        """Returns the same server, with dashboards open during its runs."""
        return replace(
            subject,
            name=with_dashboards(subject.name, self.dashboards),
            beside=lambda: watched(self.bed, subject.port, self.dashboards),
        )

    async def _take_turns(
        self, scenario: Scenario, subjects: list[Subject], sender: Sender
    ) -> dict[str, list[Sample]]:
        shape = scenario.shape(self.scale)
        # Each subject continues in the paths where it stopped: the same links would all be cached.
        places = {subject.name: 0 for subject in subjects}
        samples: dict[str, list[Sample]] = {subject.name: [] for subject in subjects}
        warm_up_s = self.scale.warm_up_s * scenario.warm_ups
        for turn in range(self.scale.runs):
            for subject in subjects:
                # The caches of a subject may have expired during the runs of the others.
                if warm_up_s and (turn == 0 or len(subjects) > 1):
                    places[subject.name] += await warm_up(self.bed, subject, sender, shape, warm_up_s)
                await scenario.prepare(self.bed)
                await asyncio.sleep(REST_S)
                first = places[subject.name]
                links = await self._links(subject, shape)
                async with subject.beside():
                    sample = await measure(self.bed, subject, sender, shape, self.scale.seconds, first)
                places[subject.name] += sample.sent.requests + shape.connections
                made = await self._links(subject, shape) - links
                if (
                    made < sample.sent.requests * scenario.per_request
                    and subject.metrics_port is not None
                    and shape.post_every == 1
                ):
                    raise BenchmarkFailed(
                        f"{scenario.name}: only {made} links came of {sample.sent.requests} requests"
                    )
                samples[subject.name].append(sample)
                self.say(f"{scenario.name}: {subject.name} {line(sample)}")
        return samples

    async def _links(self, subject: Subject, shape: Shape) -> int:
        """Returns the number of links in the shards if SnapURL creates any."""
        makes = subject.metrics_port is not None and shape.post_every
        return await self.bed.total("SELECT count(*) FROM links") if makes else 0


def cores_for(workers: int) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Returns the cores of the server and of the load generator: one each for one worker, otherwise any."""
    cores = sorted(os.sched_getaffinity(0))
    return ((cores[0],), (cores[1],)) if workers == 1 and len(cores) > 1 else ((), ())


def line(sample: Sample) -> str:
    """Returns a one-line summary of a run."""
    errors = {kind: count for kind, count in sample.sent.errors.items() if count}
    return (
        f"{sample.rate:,.0f} requests/s, p99 {sample.sent.p99_ms:.2f} ms, "
        f"service {sample.cpu['service'] + sample.cpu['consumer']:.3f} CPU s per 1,000"
        + (f", errors {errors}" if errors else "")
    )
