"""The commands that change the goal: plan (which only looks), add, drain, weight, apply, pause, resume, cancel."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import click

from ring.topology import Topology
from snapurl.errors import ConfigError
from tools.change.estimate import Estimate, estimate
from tools.change.goal import before, carry_out, filled_in, publish_on_top
from tools.change.request import Add, ChangeRequest, Drain, Weight, goal_of, parse_changes
from tools.cluster import audit
from tools.cluster.fleet import Fleet
from tools.commands import render
from tools.commands.follow import follow
from tools.commands.options import as_json, confirm, disk_free, dry_run, show, watch, with_fleet, yes

# `-1` is a bad weight, not an unknown option; and --dsn belongs to the `add` it follows.
WORDS = {"ignore_unknown_options": True}

words = click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="CHANGE…")


@click.command("plan", context_settings=WORDS)
@words
@disk_free
@as_json
def plan(words: tuple[str, ...], disk_free: int | None, as_json: bool) -> None:
    """Show what changes would do, and what would stop them.

    \b
    snapurl-reshard plan add db4
    snapurl-reshard plan add db4 --dsn postgresql://… --weight 2 drain db1 weight db0 0.5
    """
    changes = parse_changes(words)

    async def work(fleet: Fleet) -> Estimate:
        return await _prospect(fleet, filled_in(fleet, changes), disk_free)

    found = with_fleet(work)
    show(as_json, render.estimate_lines(found), _document(found))
    if found.obstacles:
        raise ConfigError(f"this cannot be done now: {found.obstacles[0]}")


@click.command("apply", context_settings=WORDS)
@words
@disk_free
@dry_run
@yes
@watch
@as_json
def apply(words: tuple[str, ...], **how: Any) -> None:
    """Make several changes at once, written as for `plan`."""
    _change(parse_changes(words), **how)


@click.command("add")
@click.argument("name")
@click.option(
    "--dsn",
    help="Where its database is: postgresql://host:port/database, with the credentials of the first shard. "
    "Left out: as SNAPURL_SHARDS says, or one more server of the local cluster.",
)
@click.option("--weight", type=float, default=1.0, show_default=True)
@disk_free
@dry_run
@yes
@watch
@as_json
def add(name: str, dsn: str | None, weight: float, **how: Any) -> None:
    """Add a shard."""
    _change([Add(name, weight, dsn)], **how)


@click.command("drain")
@click.argument("name")
@disk_free
@dry_run
@yes
@watch
@as_json
def drain(name: str, **how: Any) -> None:
    """Have a shard give away all it holds; it may be switched off then."""
    _change([Drain(name)], **how)


@click.command("weight", context_settings=WORDS)
@click.argument("name")
@click.argument("weight", type=float)
@disk_free
@dry_run
@yes
@watch
@as_json
def weight(name: str, weight: float, **how: Any) -> None:
    """Change a shard's part of the ring."""
    _change([Weight(name, weight)], **how)


def _change(
    asked: list[ChangeRequest], *, disk_free: int | None, dry_run: bool, yes: bool, watch: bool, as_json: bool
) -> None:
    async def work(fleet: Fleet) -> Estimate:
        changes = filled_in(fleet, asked)
        found = await _prospect(fleet, changes, disk_free)
        if found.obstacles:
            raise ConfigError(f"nothing was changed: {found.obstacles[0]}")
        if not as_json:
            show(False, render.estimate_lines(found), {})
        if dry_run:
            return found
        confirm(yes, "Go ahead?")
        async with audit.audited(fleet, " ".join(map(str, changes))):
            goal = await carry_out(fleet, changes)
        return dataclasses.replace(found, goal=goal)

    found = with_fleet(work)
    how = "" if watch else "; follow it with `snapurl-reshard status --watch`"
    said = f"topology {found.goal.version} is published{how}"
    show(
        as_json,
        "nothing was changed (--dry-run)" if dry_run else said,
        {**_document(found), "dry_run": dry_run},
    )
    if watch and not dry_run:
        with_fleet(lambda fleet: follow(fleet, as_json=as_json, to_the_end=True))


async def _prospect(fleet: Fleet, changes: list[ChangeRequest], disk_free: int | None) -> Estimate:
    seen = await fleet.observe()
    return await estimate(fleet, seen, goal_of(seen.topology, changes), changes, disk_free=disk_free)


def _document(found: Estimate) -> dict[str, Any]:
    return {
        "topology_version": found.goal.version,
        "shards": [dataclasses.asdict(shard) for shard in found.shards],
        "slots_to_move": found.slots_to_move,
        "rows_to_move": found.rows_to_move,
        "rows_per_s": found.rows_per_s,
        "seconds": found.seconds,
        "obstacles": found.obstacles,
        "notes": found.notes,
    }


# -- the goal as a whole ------------------------------------------------------------------------------------------


@click.command("pause")
@dry_run
@yes
@as_json
def pause(**how: Any) -> None:
    """Begin no further moves; those under way are finished."""
    _set_goal("pause", "Pause resharding?", _paused, **how)


@click.command("resume")
@dry_run
@yes
@as_json
def resume(**how: Any) -> None:
    """Go on after a pause."""
    _set_goal("resume", "Go on with resharding?", _resumed, **how)


@click.command("cancel")
@dry_run
@yes
@as_json
def cancel(**how: Any) -> None:
    """Go back to the topology before, moving back what has moved."""
    _set_goal("cancel", "Go back to the topology before?", _cancelled, **how)


async def _paused(_fleet: Fleet, now: Topology) -> Topology:
    if now.paused:
        raise ConfigError("resharding is paused already")
    return now.with_paused(True)


async def _resumed(_fleet: Fleet, now: Topology) -> Topology:
    if not now.paused:
        raise ConfigError("resharding is not paused")
    return now.with_paused(False)


async def _cancelled(fleet: Fleet, _now: Topology) -> Topology:
    return await before(fleet, await fleet.observe())


def _set_goal(
    what: str,
    question: str,
    make: Callable[[Fleet, Topology], Awaitable[Topology]],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    async def work(fleet: Fleet) -> Topology:
        goal = await make(fleet, (await fleet.observe()).topology)
        if dry_run:
            return goal
        confirm(yes, question)
        async with audit.audited(fleet, what):
            return await publish_on_top(fleet, lambda now: make(fleet, now))

    goal = with_fleet(work)
    if dry_run:
        said = f"topology {goal.version} would be published; nothing was changed (--dry-run)"
    else:
        said = f"topology {goal.version} is published" + (": resharding is paused" if goal.paused else "")
    shards = {shard.name: {"weight": shard.weight, "draining": shard.draining} for shard in goal.shards}
    document = {"topology_version": goal.version, "paused": goal.paused, "shards": shards, "dry_run": dry_run}
    show(as_json, said, document)


COMMANDS = (plan, add, drain, weight, apply, pause, resume, cancel)
