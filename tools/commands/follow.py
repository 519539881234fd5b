"""Follows a reshard: a live display on a terminal, a line per change in a pipe, or JSON lines."""

from __future__ import annotations

import asyncio
import contextlib

from rich.console import Console
from rich.live import Live

from tools.cluster.fleet import Fleet
from tools.cluster.status import read_status
from tools.commands import render
from tools.commands.options import show

WATCH_S = 0.5
WATCH_JSON_S = 1.0


async def follow_status(fleet: Fleet, *, as_json: bool, until_settled: bool) -> None:
    """Shows the status until it is interrupted, or until everything is settled if `until_settled`."""
    console = Console()
    live = Live(console=console, refresh_per_second=4) if console.is_terminal and not as_json else None
    last = ""
    with live or contextlib.nullcontext():
        while True:
            found = await read_status(fleet)
            line = render.status_line(found)
            if live:
                live.update(render.status_view(found))
            elif as_json or line != last:
                show(as_json, line, found.to_document())
            last = line
            if until_settled and found.settled:
                return
            await asyncio.sleep(WATCH_JSON_S if as_json else WATCH_S)
