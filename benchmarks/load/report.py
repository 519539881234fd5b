"""The results as a Markdown page. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.goals import Goal, figure, goal_table
from benchmarks.load.flood import Flood
from benchmarks.load.outcome import Outcome
from benchmarks.load.sample import Result
from benchmarks.load.scenarios import SCENARIOS

NOTE = (
    "The load generator, the server, PostgreSQL and Redis share the cores, so that a request costs all of them and "
    "ratios within one run say more than figures. One-worker scenarios keep the server to one core and the "
    "generator to another, all others to none. Latencies are of a generator that asks as fast as it is answered: "
    "they say how long the queue is at full load. CPU is counted on until the last click is counted."
)

FLOOD_NOTE = (
    "Clicks, Zipf over all links, as a worker records them, at a steady rate and without the requests, for which "
    "there would be no core left. Lag is the age of the oldest click that no shard has counted."
)


def page(machine: str, goals: Sequence[Goal], found: Outcome, how: str) -> str:
    """Returns the whole page. `how` describes the load generator and the duration."""
    parts = ["# Load", f"{machine}. {how}", NOTE, "## Goals", goal_table(goals), *_tables(found)]
    return "\n\n".join(parts) + "\n"


def _tables(found: Outcome) -> list[str]:
    parts: list[str] = []
    if found.results:
        parts += ["## Scenarios", scenario_table(found.results), _legend(found.results)]
    if found.worker_mib:
        empty, full = found.worker_mib
        parts.append(
            f"A worker is {empty:.0f} MiB with nothing cached, {full:.0f} MiB with all links cached."
        )
    if found.floods:
        parts += ["## A flood of clicks", FLOOD_NOTE, flood_table(found.floods)]
    if found.moving:
        parts += ["## While a shard is added", _moving(found)]
    if found.by_links:
        rows = {f"{count:,} links": item for count, item in found.by_links.items()}
        parts += ["## Growing: links (Zipf, two workers)", _growth(rows)]
    if found.by_shards:
        rows = {
            f"{count} shard{'s' if count > 1 else ''}, {name}": item
            for count, results in found.by_shards.items()
            for name, item in results.items()
        }
        parts += ["## Growing: shards (two workers)", _growth(rows)]
    return parts


def scenario_table(results: Sequence[Result]) -> str:
    """Returns a table with one row per scenario and subject."""
    head = (
        "| scenario | of | workers | requests/s | p50 ms | p99 ms | p99.9 ms | errors | CPU s per 1,000: service | "
        "clicks | PostgreSQL | Redis | memory MiB: service | PostgreSQL | Redis |"
    )
    return "\n".join([head, "|" + "---|" * 15, *map(_row, results)])


def flood_table(floods: Sequence[Flood]) -> str:
    """Returns a table with one row per flood."""
    head = (
        "| clicks/s | their sources | counted / recorded | lag s: first half | second half | most | entries in "
        "Redis, most | consumer MiB: at half | at the end | CPU us per click: consumer | PostgreSQL | Redis |"
    )
    rows = [
        f"| {figure(item.per_second)} | {'told' if item.sources else 'not told'} | "
        f"{item.counted / item.recorded:g} | {item.lag_s[0]:.1f} | {item.lag_s[1]:.1f} | {item.lag_max_s:.1f} | "
        f"{item.entries_max} | "
        f"{item.consumer_mib[0]:.0f} | {item.consumer_mib[1]:.0f} | "
        + " | ".join(f"{item.cpu_us[name]:.1f}" for name in ("consumer", "postgres", "redis"))
        + " |"
        for item in floods
    ]
    return "\n".join([head, "|" + "---|" * 12, *rows])


def _row(item: Result) -> str:
    errors = sum(item.errors.values())
    cells = [
        item.scenario,
        item.subject,
        str(item.workers),
        figure(item.rate)
        + (f" ({figure(item.rate * item.per_request)} links/s)" if item.per_request > 1 else ""),
        *(f"{item.latency(name):.2f}" for name in ("p50_ms", "p99_ms", "p999_ms")),
        f"{errors:,}",
        *(f"{item.cpu[name]:.4f}" for name in ("service", "consumer", "postgres", "redis")),
        *(f"{item.memory_mib[name]:.0f}" for name in ("service", "postgres", "redis")),
    ]
    return f"| {' | '.join(cells)} |"


def _legend(results: Sequence[Result]) -> str:
    shown = {item.scenario for item in results}
    lines = [f"- {item.name}: {item.what}" for item in SCENARIOS if item.name in shown]
    if "missing" in shown:
        lines.append("- the errors of `missing` are its 404 answers, which is what is asked for")
    return "\n".join(lines)


def _moving(found: Outcome) -> str:
    assert found.moving is not None
    added, pauses = found.moving.added, found.moving.added.pauses
    return "\n".join(
        [
            scenario_table([found.moving.still, found.moving.moving]),
            "",
            f"{added.slots:,} slots and {added.rows:,} rows moved in {added.seconds:.1f} s beside it; write pauses "
            f"p99 {figure(pauses.p99_ms)} ms, longest {figure(pauses.max_ms)} ms.",
        ]
    )


def _growth(rows: dict[str, Result]) -> str:
    lines = [
        "| with | requests/s | p99 ms | CPU s per 1,000: service | PostgreSQL |",
        "|---|---|---|---|---|",
    ]
    for name, item in rows.items():
        cpu = f"{item.cpu['service']:.4f} | {item.cpu['postgres']:.4f}"
        lines.append(f"| {name} | {figure(item.rate)} | {item.latency('p99_ms'):.2f} | {cpu} |")
    return "\n".join(lines)
