"""How the cost per request grows with the number of links, and with the number of shards for the same links."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bed import made
from benchmarks.load.sample import Result
from benchmarks.load.scenarios import SCENARIOS, Scenario
from benchmarks.load.subjects import snapurl
from benchmarks.load.suite import Suite
from benchmarks.seeding import seed

LINKS = (10_000, 100_000, 1_000_000)
SHARDS = (1, 2, 4, 8)
WARM_UPS = 12  # the more links there are, the longer it takes until the popular ones are cached


def _alone(name: str) -> Scenario:
    found = next(scenario for scenario in SCENARIOS if scenario.name == name)
    return dataclasses.replace(found, subjects=(snapurl,))


async def by_links(suite: Suite, directory: Path, counts: Sequence[int]) -> dict[int, Result]:
    """Returns, per number of links, the result of the Zipf scenario over all of them, on a growing cluster."""
    found = {}
    async with made(directory / "links", durable=suite.durable) as bed:
        seeded = 0
        for links in counts:
            await seed(bed.dsns, seeded, links)
            seeded = links
            suite.say(f"growth: {links:,} links")
            scale = dataclasses.replace(suite.scale, links=links)
            (found[links],) = await dataclasses.replace(suite, bed=bed, scale=scale, dashboards=0).run(
                dataclasses.replace(_alone("zipf"), warm_ups=WARM_UPS)
            )
    return found


async def by_shards(suite: Suite, directory: Path, counts: Sequence[int]) -> dict[int, dict[str, Result]]:
    """Returns, per number of shards, the result of each scenario, each on a new cluster."""
    found: dict[int, dict[str, Result]] = {}
    for shards in counts:
        async with made(directory / f"shards-{shards}", shards, durable=suite.durable) as bed:
            await seed(bed.dsns, 0, suite.scale.links)
            suite.say(f"growth: {shards} shard{'s' if shards > 1 else ''}")
            here = dataclasses.replace(suite, bed=bed, dashboards=0)
            results = [await here.run(_alone(name)) for name in ("zipf", "cold", "create")]
            found[shards] = {item.scenario: item for (item,) in results}
    return found
