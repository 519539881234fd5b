"""`python -m benchmarks.load` (`make bench`): compares SnapURL with its peers, on a new local cluster.

Prints each measurement, then writes load.json, load.md and the plots. The exit code is 1 if a goal is missed.
The figures of a quick run mean nothing; it fails only if something does not work.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from time import monotonic

from benchmarks.bed import made
from benchmarks.goals import Goal
from benchmarks.load.dashboards import DASHBOARDS_MAX
from benchmarks.load.flood import FLOODS, flood
from benchmarks.load.generators import PythonLoad, find_wrk
from benchmarks.load.growth import LINKS, SHARDS, by_links, by_shards
from benchmarks.load.memory import worker_mib
from benchmarks.load.moving import redirects_while_moving
from benchmarks.load.outcome import Outcome, goals_of
from benchmarks.load.plots import draw
from benchmarks.load.report import page
from benchmarks.load.scenarios import SCENARIOS, Scale
from benchmarks.load.suite import Suite
from benchmarks.machine import this_machine
from benchmarks.programs import BenchmarkFailed
from benchmarks.seeding import seed
from snapurl.errors import ConfigError, SnapURLError

RESULTS = Path(__file__).parents[1] / "results"
FURTHER = ("memory", "flood", "reshard", "links", "shards")
NAMES = (*(scenario.name for scenario in SCENARIOS), *FURTHER)
FULL = Scale(links=100_000, draws=1_000_000, seconds=5.0, warm_up_s=5.0, runs=3)
FLOOD_RUNS = 6  # a flood lasts as long as this many runs
BEGAN_S = monotonic()
QUICK = Scale(links=500, draws=2_000, seconds=0.5, warm_up_s=0.2, runs=1)


@dataclass(frozen=True, slots=True)
class Choice:
    """What to run, and where to write the results (None: nowhere)."""

    names: tuple[str, ...]
    scale: Scale
    quick: bool
    results: Path | None
    dashboards: int = 0

    def has(self, name: str) -> bool:
        return name in self.names


def main(words: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code."""
    choice = _choice(words)
    try:
        goals, found = asyncio.run(run(choice))
    except (BenchmarkFailed, ConfigError, SnapURLError) as error:
        print(f"benchmarks.load: {error}", file=sys.stderr)
        return 2
    if choice.quick:
        return 0 if _works(found) else 1
    return 0 if all(goal.reached for goal in goals) else 1


def _choice(words: list[str] | None) -> Choice:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.load", description=__doc__)
    parser.add_argument("--only", default="", help=f"these, by commas: {', '.join(NAMES)}")
    parser.add_argument("--runs", type=int, help=f"of each, alternating ({FULL.runs})")
    parser.add_argument("--seconds", type=float, help=f"of a run ({FULL.seconds:g})")
    parser.add_argument(
        "--quick", action="store_true", help="see that everything works: seconds each, no wrk needed"
    )
    parser.add_argument("--results", type=Path, help="a directory (benchmarks/results; of a quick run: none)")
    parser.add_argument(
        "--dashboards", type=int, default=0, metavar="N",
        help=f"also measure hot and zipf while N dashboards show the cluster, up to {DASHBOARDS_MAX} (0)",
    )  # fmt: skip
    options = parser.parse_args(words)
    if not 0 <= options.dashboards <= DASHBOARDS_MAX:
        parser.error(f"--dashboards: a number up to {DASHBOARDS_MAX}")
    names = tuple(options.only.split(",")) if options.only else NAMES
    if unknown := set(names) - set(NAMES):
        parser.error(f"there is no scenario {', '.join(sorted(unknown))}")
    base = QUICK if options.quick else FULL
    scale = Scale(
        base.links, base.draws, options.seconds or base.seconds, base.warm_up_s, options.runs or base.runs
    )
    results = options.results or (None if options.quick else RESULTS)
    return Choice(names, scale, options.quick, results, options.dashboards)


async def run(choice: Choice) -> tuple[list[Goal], Outcome]:
    """Measures, prints and writes the results. Raises BenchmarkFailed, ConfigError."""
    generator = PythonLoad() if choice.quick else find_wrk()
    with tempfile.TemporaryDirectory(prefix="snapurl-bench-") as place:
        directory = Path(place)
        async with made(directory, durable=not choice.quick) as bed:
            machine = this_machine(bed.cluster.describe())
            await seed(bed.dsns, 0, choice.scale.links)
            suite = Suite(
                bed, generator, choice.scale, choice.quick, not choice.quick, _say, choice.dashboards
            )
            found = await _scenarios(choice, suite)
            found.dashboards = choice.dashboards
        await _growth(choice, suite, directory, found)
    goals = goals_of(found)
    how = (
        f"{generator.name}, {choice.scale.runs} runs of {choice.scale.seconds:g} s each, alternating, medians; "
        f"{choice.scale.links:,} links; {(monotonic() - BEGAN_S) / 60:.0f} minutes in all."
    )
    if choice.quick:
        how += " A quick run: it shows that everything works, its figures say nothing."
    text = page(str(machine), goals, found, how)
    print(text)
    if choice.results is not None:
        _write(choice.results, text, str(machine), how, goals, found)
    return goals, found


async def _scenarios(choice: Choice, suite: Suite) -> Outcome:
    """Runs the scenarios that share one cluster of four shards."""
    found = Outcome()
    for scenario in SCENARIOS:
        if choice.has(scenario.name):
            found.results += await suite.run(scenario)
    if choice.has("memory"):
        found.worker_mib = await worker_mib(suite.bed, choice.scale.links)
    if choice.has("flood"):
        for per_second, sources in ((2_000, True),) if choice.quick else FLOODS:
            seconds = FLOOD_RUNS * choice.scale.seconds
            found.floods.append(
                await flood(suite.bed, choice.scale.links, per_second, seconds, sources=sources)
            )
            _say(f"flood: {found.floods[-1]}")
    if choice.has("reshard"):
        zipf = next(scenario for scenario in SCENARIOS if scenario.name == "zipf")
        found.moving = await redirects_while_moving(suite, zipf)
    return found


async def _growth(choice: Choice, suite: Suite, directory: Path, found: Outcome) -> None:
    if choice.has("links"):
        found.by_links = await by_links(suite, directory, (500,) if choice.quick else LINKS)
    if choice.has("shards"):
        found.by_shards = await by_shards(suite, directory, (2,) if choice.quick else SHARDS)


def _write(results: Path, text: str, machine: str, how: str, goals: list[Goal], found: Outcome) -> None:
    results.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": machine,
        "how": how,
        "goals": [goal.document() for goal in goals],
        **found.document(),
    }
    (results / "load.json").write_text(json.dumps(document, indent=2) + "\n")
    (results / "load.md").write_text(text)
    for file in draw(found, results, machine):
        _say(f"wrote {file}")


def _works(found: Outcome) -> bool:
    """Whether a quick run was correct: no errors, and every click counted."""
    exact = [goal for goal in goals_of(found) if goal.relation == "=" and goal.measured is not None]
    failed = [goal for goal in exact if not goal.reached]
    for goal in failed:
        print(f"benchmarks.load: {goal.what}: {goal.measured}", file=sys.stderr)
    return not failed


def _say(line: str) -> None:
    print(f"{monotonic() - BEGAN_S:6.0f} s  {line}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
