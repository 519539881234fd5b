"""Plots of the results: requests per second compared with the peers, CPU time by group, and growth."""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.load.outcome import Outcome
from benchmarks.load.sample import Result

COLOURS = {
    "SnapURL": "#2563eb",
    "nginx": "#16a34a",
    "plain Sanic": "#94a3b8",
    "Sanic + Redis GET": "#64748b",
    "Flask stack": "#d97706",
}
GROUPS = {"service": "#2563eb", "consumer": "#7c3aed", "postgres": "#16a34a", "redis": "#dc2626"}


def draw(found: Outcome, directory: Path, machine: str) -> list[Path]:
    """Writes the plots as SVG and returns the files; writes nothing if matplotlib is not installed."""
    try:
        plots: Any = importlib.import_module("matplotlib.figure")
        importlib.import_module("matplotlib").rcParams["svg.hashsalt"] = "snapurl"
    except ImportError:
        return []
    made = []
    if found.results:
        made.append(_save(_rates(plots, found.results), directory / "rates.svg", machine))
        made.append(_save(_costs(plots, found.results), directory / "cpu.svg", machine))
    if found.by_links or found.by_shards:
        made.append(_save(_growth(plots, found), directory / "growth.svg", machine))
    return made


def _save(figure: Any, file: Path, machine: str) -> Path:
    figure.text(0.01, 0.005, machine, fontsize=5, color="#64748b")
    figure.savefig(file, metadata={"Date": None})
    return file


def _rates(plots: Any, results: Sequence[Result]) -> Any:
    """Draws one bar per scenario and subject, on a logarithmic scale."""
    figure = plots.Figure(figsize=(9, 0.32 * len(results) + 1.4), layout="constrained")
    axes = figure.subplots()
    names = [f"{item.scenario}: {item.subject}" for item in results]
    rates = [item.rate * item.per_request for item in results]
    bars = axes.barh(names, rates, color=[COLOURS.get(item.subject, "#2563eb") for item in results])
    axes.bar_label(bars, [f" {rate:,.0f}" for rate in rates], fontsize=8)
    axes.set_xscale("log")
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.set_xlabel("requests per second (bulk: links per second), median; logarithmic")
    return figure


def _costs(plots: Any, results: Sequence[Result]) -> Any:
    """Draws the CPU time of a request by group of processes, in microseconds."""
    figure = plots.Figure(figsize=(9, 0.32 * len(results) + 1.4), layout="constrained")
    axes = figure.subplots()
    names = [f"{item.scenario}: {item.subject}" for item in results]
    left = [0.0] * len(results)
    for group, colour in GROUPS.items():
        costs = [item.cpu[group] * 1000 / item.per_request for item in results]
        axes.barh(names, costs, left=left, color=colour, label=group)
        left = [before + cost for before, cost in zip(left, costs, strict=True)]
    axes.bar_label(axes.containers[-1], [f" {cost:,.0f}" for cost in left], fontsize=8)
    axes.set_xscale("symlog", linthresh=10)
    axes.margins(x=0.15)
    axes.invert_yaxis()
    axes.legend(fontsize=8)
    axes.set_xlabel("CPU microseconds per request (bulk: per link), median; linear to 10, then logarithmic")
    return figure


def _growth(plots: Any, found: Outcome) -> Any:
    figure = plots.Figure(figsize=(9, 3.4), layout="constrained")
    by_links, by_shards = figure.subplots(1, 2)
    if found.by_links:
        by_links.plot(
            list(found.by_links), [item.rate for item in found.by_links.values()], "o-", color="#2563eb"
        )
        by_links.set_xscale("log")
        by_links.set_ylim(bottom=0)
    by_links.set_xlabel("links")
    by_links.set_ylabel("requests per second (Zipf)")
    for name in ("zipf", "cold", "create"):
        rates = {shards: results[name].rate for shards, results in found.by_shards.items() if name in results}
        if rates:
            by_shards.plot(list(rates), list(rates.values()), "o-", label=name)
    if found.by_shards:
        by_shards.set_yscale("log")
        by_shards.set_xscale("log", base=2)
        by_shards.legend(fontsize=8)
    by_shards.set_xlabel("shards on the same cores")
    return figure
