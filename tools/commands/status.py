"""The commands that only read: status, verify, history."""

from __future__ import annotations

import dataclasses
import sys

import click

from tools.cluster import audit
from tools.cluster.fleet import Fleet
from tools.cluster.publish import published_topologies
from tools.cluster.status import is_settled, read_status
from tools.commands import render
from tools.commands.follow import follow_status
from tools.commands.options import as_json, show, watch, with_fleet
from tools.repair.consistency import verify_cluster


@click.command("status")
@watch
@as_json
def status(watch: bool, as_json: bool) -> None:
    """Show reshard progress."""
    if watch:
        with_fleet(lambda fleet: follow_status(fleet, as_json=as_json))
        return
    found = with_fleet(read_status)
    show(as_json, render.status_lines(found), found.to_document())


@click.command("verify")
@as_json
def verify(as_json: bool) -> None:
    """Check that slots and rows are in place.

    The exit code is 1 if anything is wrong.
    """

    async def work(fleet: Fleet) -> list[str]:
        return await verify_cluster(fleet, await fleet.observe())

    found = with_fleet(work)
    clean = "clean: every slot has one owner, and each row is on the owner of its slot"
    show(as_json, "\n".join(found) or clean, {"wrong": found})
    if found:
        sys.exit(1)


@click.command("history")
@click.option(
    "--rows", type=click.IntRange(1, audit.ROWS_MAX), default=50, show_default=True, help="Entries."
)
@as_json
def history(rows: int, as_json: bool) -> None:
    """Show who changed what, newest first.

    Of a change of the topology it says whether it is published and slots still move, has finished, was cancelled,
    or was replaced by a further change.
    """

    async def work(fleet: Fleet) -> list[audit.AuditEntry]:
        snapshot = await fleet.observe()
        topologies = await published_topologies(fleet, snapshot)
        settled = is_settled(snapshot)
        found = await audit.read_history(fleet, rows)
        return [audit.resolved(entry, topologies, settled=settled) for entry in found]

    found = with_fleet(work)
    lines = [f"{entry.at:%Y-%m-%d %H:%M:%S} {entry.who}: {entry.what} ({entry.said})" for entry in found]
    document = {"entries": [dataclasses.asdict(entry) for entry in found]}
    show(as_json, "\n".join(lines) or "nothing was ever changed", document)


COMMANDS = (status, verify, history)
