"""Redirects at full rate while a shard is added: the throughput that remains when both compete for the cores."""

from __future__ import annotations

import asyncio
import dataclasses
from dataclasses import dataclass

from benchmarks.load.measure import Sender, clicks, counted, measure, warm_up
from benchmarks.load.sample import Clicks, Result, Sample
from benchmarks.load.scenarios import Scenario
from benchmarks.load.subjects import Conditions, Subject, snapurl
from benchmarks.load.suite import Suite, line
from benchmarks.moves.operator import Moved, follow, migrating

SHARD = "moving"
WORKERS = 2


@dataclass(frozen=True, slots=True)
class Moving:
    """The same requests without a move and during one. `added` is the move; the clicks cover all requests."""

    still: Result
    moving: Result
    added: Moved
    clicks: Clicks


async def redirects_while_moving(suite: Suite, scenario: Scenario) -> Moving:
    """Runs `scenario` alone, then while a shard is added. Drains the shard at the end. Raises BenchmarkFailed."""
    bed = suite.bed
    shape = scenario.shape(suite.scale)
    sender = Sender(suite.generator)
    async with snapurl(bed, Conditions(WORKERS)) as subject:
        # Moving rows exist on two shards for a while, so clicks are counted only before and after the move.
        uncounted = dataclasses.replace(subject, metrics_port=None)
        before = await clicks(bed, subject)
        assert before is not None

        place = await warm_up(bed, uncounted, sender, shape, suite.scale.warm_up_s)

        async def run(what: str) -> Sample:
            nonlocal place
            sample = await measure(bed, uncounted, sender, shape, suite.scale.seconds, place)
            place += sample.sent.requests + shape.connections
            suite.say(f"reshard: {what}, {line(sample)}")
            return sample

        still = [await run("without a move") for _ in range(suite.scale.runs)]
        dsn = await bed.cluster.add_shard(SHARD)
        async with migrating(bed):
            adding = asyncio.create_task(follow(bed, ["add", SHARD, "--dsn", dsn], SHARD))
            moving = [await run("while `add` runs")]
            while not adding.done():
                moving.append(await run("while `add` runs"))
            added = await adding
            since = await counted(bed, subject, before)
            assert since is not None
            await follow(bed, ["drain", SHARD], SHARD)
        await bed.cluster.shard(SHARD).stop()
    return Moving(_result("still", subject, still), _result("moving", subject, moving), added, since)


def _result(scenario: str, subject: Subject, samples: list[Sample]) -> Result:
    return Result(scenario, subject.name, subject.workers, samples)
