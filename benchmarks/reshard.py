"""`python -m benchmarks.reshard`: measures how fast slots move, and what visitors notice.

Starts a new local cluster with seeded links, and writes reshard.json and reshard.md. The exit code is 1 if a goal
is missed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
import tempfile
from pathlib import Path

from benchmarks.bed import made
from benchmarks.goals import Goal, figure, goal_table
from benchmarks.machine import Machine, this_machine
from benchmarks.moves.operator import Moved
from benchmarks.moves.speed import Speed, measure_speed
from benchmarks.moves.traffic import Rates, Traffic, measure_traffic
from benchmarks.programs import BenchmarkFailed
from benchmarks.seeding import seed
from snapurl.errors import ConfigError, SnapURLError

RESULTS = Path(__file__).parent / "results"


def main() -> int:
    """Runs the command. Returns the exit code."""
    options = _options()
    try:
        goals = asyncio.run(run(options))
    except (BenchmarkFailed, ConfigError, SnapURLError) as error:
        print(f"benchmarks.reshard: {error}", file=sys.stderr)
        return 2
    return 0 if options.quick or all(goal.reached for goal in goals) else 1


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.reshard", description=__doc__)
    parser.add_argument("--only", choices=["speed", "traffic"], help="measure only this")
    parser.add_argument("--links", type=int, default=1_000_000, help="links in the cluster (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="of pipe, add and drain (%(default)s)")
    parser.add_argument("--redirects", type=float, default=500, help="per second (%(default)s)")
    parser.add_argument("--creates", type=float, default=40, help="per second (%(default)s)")
    parser.add_argument(
        "--still-s", type=float, default=10, help="seconds without a move, thrice (%(default)s)"
    )
    parser.add_argument(
        "--run-option", action="append", default=[], help="for `snapurl-reshard run`; repeatable"
    )
    parser.add_argument(
        "--quick", action="store_true", help="see that it works: few links, goals do not count"
    )
    parser.add_argument(
        "--results", type=Path, help="where the results go (benchmarks/results; of a quick run: nowhere)"
    )
    options = parser.parse_args()
    if options.quick:
        options.links, options.rounds, options.still_s = 5_000, 1, 1.0
        options.redirects, options.creates = 100, 10
    elif options.results is None:
        options.results = RESULTS
    return options


async def run(options: argparse.Namespace) -> list[Goal]:
    """Measures what `options` select and reports it. Returns the goals. Raises BenchmarkFailed, ConfigError."""
    speed: Speed | None = None
    traffic: Traffic | None = None
    with tempfile.TemporaryDirectory(prefix="snapurl-bench-") as directory:
        async with made(Path(directory), durable=not options.quick) as bed:
            machine = this_machine(bed.cluster.describe())
            await seed(bed.dsns, 0, options.links)
            if options.only != "traffic":
                speed = await measure_speed(bed, options.rounds, options.run_option)
            if options.only != "speed":
                rates = Rates(options.redirects, options.creates, options.still_s)
                traffic = await measure_traffic(bed, options.links, rates, options.run_option)
    goals = [*(_speed_goals(speed) if speed else []), *(_traffic_goals(traffic) if traffic else [])]
    text = _report(machine, options, goals, speed, traffic)
    print(text)
    if options.results is not None:
        document = {
            "machine": str(machine),
            "links": options.links,
            "quick": options.quick,
            "goals": [goal.document() for goal in goals],
            "speed": speed.document() if speed else None,
            "traffic": traffic.document() if traffic else None,
        }
        options.results.mkdir(parents=True, exist_ok=True)
        (options.results / "reshard.md").write_text(text)
        (options.results / "reshard.json").write_text(json.dumps(document, indent=2) + "\n")
    return goals


def _speed_goals(speed: Speed) -> list[Goal]:
    return [Goal("rows/s moved by `add`, verified / psql piped to psql (median)", ">=", 0.6, speed.ratio)]


def _traffic_goals(traffic: Traffic) -> list[Goal]:
    lost = max(0, traffic.created - traffic.found)
    return [
        Goal("failed requests during `add` and `drain`", "=", 0, traffic.failed.total()),
        Goal("write pause, p99 of the worse of both", "<=", 50, traffic.pause_ms_p99, " ms"),
        Goal("write pause, longest", "<=", 250, traffic.pause_ms_max, " ms"),
        Goal("redirect p99 while slots move / without", "<=", 2, traffic.slowdown),
        Goal("acknowledged creates that no shard holds", "=", 0, lost),
        Goal("clicks counted / redirects answered", "=", 1, traffic.counted / max(1, traffic.redirected)),
    ]


def _report(
    machine: Machine,
    options: argparse.Namespace,
    goals: list[Goal],
    speed: Speed | None,
    traffic: Traffic | None,
) -> str:
    parts = ["# Resharding", f"{options.links:,} links, four shards. {machine}.", goal_table(goals)]
    if speed:
        parts.append(_speed_table(speed))
    if traffic:
        parts.append(_traffic_table(traffic, options))
    if options.quick:
        parts.append("A quick run: it shows that everything works, its figures say nothing.")
    return "\n\n".join(parts) + "\n"


def _speed_table(speed: Speed) -> str:
    lines = [
        "## Speed",
        "",
        "| round | rows | pipe, in turn | pipe, at once | `add` | ratio | `drain` |",
        "|---|---|---|---|---|---|---|",
    ]
    for number, item in enumerate(speed.rounds, 1):
        rates = (item.pipe_in_turn, item.pipe_at_once, item.added.rows_per_s)
        cells = " | ".join(f"{figure(rate)} rows/s" for rate in rates)
        drained = f"{figure(item.drained.rows_per_s)} rows/s"
        lines.append(f"| {number} | {item.rows:,} | {cells} | {item.ratio:.2f} | {drained} |")
    return "\n".join(lines)


def _traffic_table(traffic: Traffic, options: argparse.Namespace) -> str:
    lines = [
        "## Traffic",
        "",
        f"{figure(options.redirects)} redirects/s and {figure(options.creates)} creates/s, two workers.",
        "",
        *(_moved_line(moved) for moved in (traffic.added, traffic.drained)),
        "",
        "| requests | while | count | p50 ms | p99 ms | max ms |",
        "|---|---|---|---|---|---|",
    ]
    for kind, phases in traffic.latencies.items():
        for phase, item in phases.items():
            cells = " | ".join(figure(value) for value in (item.p50_ms, item.p99_ms, item.max_ms))
            lines.append(f"| {kind} | {phase} | {item.count:,} | {cells} |")
    if traffic.failed:
        lines += ["", f"Failed: {', '.join(f'{count} x {what}' for what, count in traffic.failed.items())}."]
    return "\n".join(lines)


def _moved_line(moved: Moved) -> str:
    pauses = moved.pauses
    return (
        f"- `{moved.what}`: {moved.slots:,} slots and {moved.rows:,} rows in {moved.seconds:.1f} s "
        f"({figure(moved.rows_per_s)} rows/s); {pauses.count} pauses, p50 {figure(pauses.p50_ms)} ms, "
        f"p99 {figure(pauses.p99_ms)} ms, longest {figure(pauses.max_ms)} ms"
    )


if __name__ == "__main__":
    sys.exit(main())
