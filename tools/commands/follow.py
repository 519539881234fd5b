"""Follows a reshard: a live display on a terminal, a line per change in a pipe, or JSON lines."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Any

import click
from rich.console import Console
from rich.live import Live

from tools.cluster.fleet import Fleet
from tools.cluster.outcome import End, Outcome, end_of
from tools.cluster.publish import published_topologies
from tools.cluster.status import ClusterStatus, StatusReader
from tools.commands import render
from tools.commands.options import show

WATCH_S = 0.5
WATCH_JSON_S = 1.0


class Overtaken(Exception):
    """The change that a command has published and follows was cancelled or replaced."""


async def _never_over(found: ClusterStatus) -> Outcome:
    return Outcome.PUBLISHED


async def follow_status(
    fleet: Fleet,
    *,
    as_json: bool,
    document_of: Callable[[ClusterStatus], dict[str, Any]] = ClusterStatus.to_document,
    outcome_of: Callable[[ClusterStatus], Awaitable[Outcome]] = _never_over,
) -> None:
    """Shows the status until it is interrupted, or until the change that is followed has ended."""
    console = Console()
    live = Live(console=console, auto_refresh=False) if console.is_terminal and not as_json else None
    reader = StatusReader(fleet)
    last, shown = "", None
    with live or contextlib.nullcontext():
        while True:
            found = await reader.read()
            outcome = await outcome_of(found)
            line = render.status_line(found)
            if live:
                state = replace(found, age_s=0.0) if found.migrator_runs else found
                if state != shown:  # else only the age of a heartbeat differs, which is not displayed
                    live.update(render.status_view(found), refresh=True)
                shown = state
            elif as_json or line != last:
                show(as_json, line, document_of(found))
            last = line
            if outcome is not Outcome.PUBLISHED:
                return
            await asyncio.sleep(WATCH_JSON_S if as_json else WATCH_S)


async def follow_change(fleet: Fleet, what: str, version: int, *, as_json: bool) -> None:
    """Shows the status until the change published as topology `version` has ended, and then what became of it.

    JSON documents have a `change` too. Raises Overtaken unless the change has finished.
    """
    ends: dict[int, End | None] = {}  # by newest version
    now = Outcome.PUBLISHED

    async def outcome_of(found: ClusterStatus) -> Outcome:
        nonlocal now
        newest = found.topology_version
        if newest not in ends:
            ends[newest] = end_of(version, await published_topologies(fleet, await fleet.observe()))
        if end := ends[newest]:
            now = end.outcome
        elif found.settled:
            now = Outcome.FINISHED
        return now

    def document_of(found: ClusterStatus) -> dict[str, Any]:
        return {**found.to_document(), "change": {"topology_version": version, "outcome": now}}

    await follow_status(fleet, as_json=as_json, document_of=document_of, outcome_of=outcome_of)
    if now is not Outcome.FINISHED:
        by = next(end.by for end in ends.values() if end)
        raise Overtaken(f"{what} (topology {version}) was {now} by topology {by}")
    if not as_json:
        click.echo(f"finished: {what}")
