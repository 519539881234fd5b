"""`python -m benchmarks.profile` (`make profile`): the CPU time of a request by part of the code, path by path.

A sampler profiles one worker while scenarios of the load suite run. Sampling slows the worker down, so its shares
are multiplied by the CPU time per request of a run without it. A sample belongs to the innermost matching part; C
code and system calls belong to the Python function that calls them.

`--beside FILE` shows another run's figures (its JSON) in the same table, for instance those of an earlier version.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.accounting import children
from benchmarks.bed import Bed, made
from benchmarks.load.generators import Wrk, find_wrk
from benchmarks.load.measure import Sender, measure, warm_up
from benchmarks.load.scenarios import SCENARIOS, Scale, Scenario
from benchmarks.load.subjects import Conditions, Subject, snapurl
from benchmarks.machine import this_machine
from benchmarks.programs import BenchmarkFailed, start
from benchmarks.seeding import seed

RESULTS = Path(__file__).parent / "results"
PATHS = ("hot", "warm", "cold", "create", "bulk")
SCALE = Scale(links=100_000, draws=1_000, seconds=8.0, warm_up_s=3.0, runs=1)
RATE_HZ = 250
LEAST_US = 0.5  # parts below this in every path are summed up as others
HOW_TO_INSTALL = "py-spy is not installed (the extra `bench`)"

# Part -> pattern of its frames; the first match counts. Frames that match none belong to the caller.
PARTS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("PostgreSQL client (asyncpg)", ("asyncpg/",)),
    ("Redis client (redis-py)", ("redis/",)),
    # Sanic recompiles some of its functions; those have their name in place of a file name.
    ("event loop, sockets (uvloop)", ("uvloop/", "asyncio/runners.py", "(send:")),
    (
        "HTTP (Sanic)",
        (
            "sanic/",
            "(connection_task:",
            "(handle_request:",
            "(http1_request_header:",
            "(http1_response_header:",
        ),
    ),
    ("bodies (pydantic, JSON)", ("pydantic/", "pydantic_core", "json/", "_json")),
    ("limits", ("limits/", "snapurl/limits.py", "http/rate_limits.py")),
    (
        "metrics, traces, logs",
        ("prometheus_client/", "snapurl/telemetry/", "logging/"),
    ),
    ("fast path", ("http/fastpath/",)),
    ("caches", ("snapurl/cache/",)),
    ("clicks", ("snapurl/clicks/",)),
    ("store and router", ("snapurl/store/", "ring/", "tenacity/")),
    ("HTTP, ours", ("snapurl/http/",)),
    ("links, codes, URLs", ("snapurl/",)),
    ("asyncio, contextlib, uuid, …", ("asyncio/", "contextlib", "uuid", "secrets", "random", "urllib/")),
)
OTHERS = "others"


@dataclass(frozen=True, slots=True)
class Profile:
    """One path: CPU microseconds of the worker per request (bulk: per link), in total and by part."""

    path: str
    us: float
    parts: Mapping[str, float]

    def document(self) -> dict[str, Any]:
        return {"path": self.path, "us": self.us, "parts": dict(self.parts)}


def part_of(stack: Sequence[str]) -> str:
    """Returns the part that a stack of frames, outermost first, belongs to."""
    for frame in reversed(stack):
        for part, change_stamps in PARTS:
            if any(mark in frame for mark in change_stamps):
                return part
    return OTHERS


def shares(collapsed: str) -> dict[str, float]:
    """Returns the share of the samples per part, from lines `frame;frame;frame count`."""
    counts: Counter[str] = Counter()
    for line in collapsed.splitlines():
        stack, _, count = line.rpartition(" ")
        counts[part_of(stack.split(";"))] += int(count)
    total = counts.total()
    if not total:
        raise BenchmarkFailed("the sampler has seen nothing")
    return {part: count / total for part, count in counts.items()}


async def profile(bed: Bed, scenario: Scenario, generator: Wrk, sampler: str) -> Profile:
    """Profiles one scenario with one worker. Raises BenchmarkFailed."""
    shape = scenario.shape(SCALE)
    sender = Sender(generator)
    async with snapurl(bed, Conditions(1, (), scenario.settings, SCALE.links)) as subject:
        await warm_up(bed, subject, sender, shape, SCALE.warm_up_s)
        await scenario.prepare(bed)
        first = 50_000  # paths that the warm-up has not requested
        bare = await measure(bed, subject, sender, shape, SCALE.seconds / 2, first)
        await scenario.prepare(bed)
        sampling = asyncio.create_task(_sampled(bed, subject, sampler))
        await measure(bed, subject, sender, shape, SCALE.seconds, first)
        found = shares(await sampling)
    us = bare.cpu["service"] * 1000 / scenario.per_request
    return Profile(scenario.name, us, {part: share * us for part, share in found.items()})


async def _sampled(bed: Bed, subject: Subject, sampler: str) -> str:
    """Returns the sampler's output for the worker under load."""
    (worker,) = children(subject.groups["service"][0])
    await asyncio.sleep(0.5)
    seconds = SCALE.seconds - 2
    file = bed.directory / "stacks"
    argv = [
        *(sampler, "record", "--pid", str(worker), "--nonblocking", "--format", "raw", "--full-filenames"),
        *("--rate", str(RATE_HZ), "--duration", f"{seconds:.0f}", "--output", str(file)),
    ]
    program = await start("py-spy", argv, bed.log("py-spy"))
    try:
        await program.ended(seconds + 30)
    finally:
        await program.stop()
    return file.read_text()


def table(profiles: Sequence[Profile], beside: Sequence[Profile], named: str) -> str:
    """Returns a table with parts as rows and paths as columns. With `beside`, a cell is `then → now`."""
    earlier = {item.path: item for item in beside}
    names = [part for part, _ in PARTS] + [OTHERS]
    seen = [
        name for name in names if any(item.parts.get(name, 0) >= LEAST_US for item in (*profiles, *beside))
    ]
    title = f"CPU us of the worker per request{f' ({named} → now)' if beside else ''}"
    lines = [
        f"| {title} | {' | '.join(item.path for item in profiles)} |",
        "|---|" + "---|" * len(profiles),
        *(_row(name, [_cell(item, earlier.get(item.path), name) for item in profiles]) for name in seen),
        _row("**all**", [_cell(item, earlier.get(item.path), None) for item in profiles]),
    ]
    return "\n".join(lines)


def _row(name: str, cells: Sequence[str]) -> str:
    return f"| {name} | {' | '.join(cells)} |"


def _cell(now: Profile, then: Profile | None, part: str | None) -> str:
    """Returns the microseconds of a part, or of all parts if it is None."""
    texts = [f"{item.us if part is None else item.parts.get(part, 0.0):.1f}" for item in (then, now) if item]
    return " → ".join(texts)


def read(file: Path) -> list[Profile]:
    """Reads the profiles from the JSON file of an earlier run."""
    return [Profile(**item) for item in json.loads(file.read_text())["profiles"]]


async def run(paths: Sequence[str]) -> tuple[str, list[Profile]]:
    """Returns the machine and a profile of each path. Raises BenchmarkFailed."""
    beside_python = Path(sys.executable).parent / "py-spy"
    sampler = str(beside_python) if beside_python.exists() else shutil.which("py-spy")
    if sampler is None:
        raise BenchmarkFailed(HOW_TO_INSTALL)
    generator = find_wrk()
    found = []
    with tempfile.TemporaryDirectory(prefix="snapurl-profile-") as place:
        async with made(Path(place)) as bed:
            machine = str(this_machine(bed.cluster.describe()))
            await seed(bed.dsns, 0, SCALE.links)
            for scenario in SCENARIOS:
                if scenario.name in paths:
                    found.append(await profile(bed, scenario, generator, sampler))
                    print(f"{scenario.name}: {found[-1].us:.1f} us per request", flush=True)
    return machine, found


def main(words: list[str] | None = None) -> int:
    """Runs the command. Returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.profile", description=__doc__)
    parser.add_argument("--only", default=",".join(PATHS), help="these paths, by commas")
    parser.add_argument("--beside", type=Path, help="JSON of another run, to be shown in the same table")
    parser.add_argument("--named", default="before", help="what that run is called")
    parser.add_argument("--results", type=Path, default=RESULTS, help="a directory (benchmarks/results)")
    options = parser.parse_args(words)
    try:
        beside = read(options.beside) if options.beside else []
        machine, found = asyncio.run(run(options.only.split(",")))
    except (BenchmarkFailed, OSError) as error:
        print(f"benchmarks.profile: {error}", file=sys.stderr)
        return 2
    text = table(found, beside, options.named)
    print(text)
    options.results.mkdir(parents=True, exist_ok=True)
    document = {"machine": machine, "profiles": [item.document() for item in found]}
    (options.results / "profile.json").write_text(json.dumps(document, indent=2) + "\n")
    (options.results / "profile.md").write_text(f"# Where the time goes\n\n{machine}\n\n{text}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
