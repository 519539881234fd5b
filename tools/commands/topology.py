"""The commands that change the topology: add, drain, weight, apply, pause, resume, cancel; and plan, a dry run."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable
from typing import Any

import click

from ring.topology import Topology
from snapurl.errors import ConfigError
from tools.change.estimate import Estimate, estimate_change
from tools.change.goal import previous_goal, publish_changes, publish_next, with_dsns
from tools.change.request import Add, ChangeRequest, Drain, Weight, goal_of, parse_changes
from tools.cluster import audit
from tools.cluster.fleet import Fleet
from tools.commands import render
from tools.commands.follow import follow_change
from tools.commands.options import as_json, confirm, disk_free, dry_run, show, watch, with_fleet, yes

# `-1` is a bad weight, not an unknown option; and --dsn belongs to the `add` it follows.
RAW_ARGUMENTS = {"ignore_unknown_options": True}

changes = click.argument("changes", nargs=-1, type=click.UNPROCESSED, metavar="CHANGE…")


@click.command("plan", context_settings=RAW_ARGUMENTS)
@changes
@disk_free
@as_json
def plan(changes: tuple[str, ...], disk_free: int | None, as_json: bool) -> None:
    """Show what changes would do, and what prevents them.

    \b
    snapurl-reshard plan add db4
    snapurl-reshard plan add db4 --dsn postgresql://… --weight 2 drain db1 weight db0 0.5
    """
    requested = parse_changes(changes)

    async def work(fleet: Fleet) -> Estimate:
        return await _estimate(fleet, with_dsns(fleet, requested), disk_free)

    found = with_fleet(work)
    show(as_json, render.estimate_lines(found), _document(found))
    if found.obstacles:
        raise ConfigError(f"this cannot be done now: {found.obstacles[0]}")


@click.command("apply", context_settings=RAW_ARGUMENTS)
@changes
@disk_free
@dry_run
@yes
@watch
@as_json
def apply(changes: tuple[str, ...], **flags: Any) -> None:
    """Make several changes at once, written as for `plan`."""
    _make_changes(parse_changes(changes), **flags)


@click.command("add")
@click.argument("name")
@click.option(
    "--dsn",
    help="DSN of its database; without a user, with the credentials of the first shard. "
    "Default: the one in SNAPURL_SHARDS, or one more server of the local cluster.",
)
@click.option("--weight", type=float, default=1.0, show_default=True, help="Share of the ring.")
@disk_free
@dry_run
@yes
@watch
@as_json
def add(name: str, dsn: str | None, weight: float, **flags: Any) -> None:
    """Add a shard."""
    _make_changes([Add(name, weight, dsn)], **flags)


@click.command("drain")
@click.argument("name")
@disk_free
@dry_run
@yes
@watch
@as_json
def drain(name: str, **flags: Any) -> None:
    """Move everything off a shard, so that it may be switched off."""
    _make_changes([Drain(name)], **flags)


@click.command("weight", context_settings=RAW_ARGUMENTS)
@click.argument("name")
@click.argument("weight", type=float)
@disk_free
@dry_run
@yes
@watch
@as_json
def weight(name: str, weight: float, **flags: Any) -> None:
    """Change a shard's share of the ring."""
    _make_changes([Weight(name, weight)], **flags)


def _make_changes(
    requested: list[ChangeRequest],
    *,
    disk_free: int | None,
    dry_run: bool,
    yes: bool,
    watch: bool,
    as_json: bool,
) -> None:
    what = " ".join(map(str, requested))

    async def work(fleet: Fleet) -> Estimate:
        changes = with_dsns(fleet, requested)
        found = await _estimate(fleet, changes, disk_free)
        if found.obstacles:
            raise ConfigError(f"nothing was changed: {found.obstacles[0]}")
        if not as_json:
            show(False, render.estimate_lines(found), {})
        if dry_run:
            return found
        confirm(yes, "Continue?")
        async with audit.audited(fleet, what) as record:
            goal = await publish_changes(fleet, changes)
            record.publish(goal.version)
        return dataclasses.replace(found, goal=goal)

    found = with_fleet(work)
    hint = "" if watch else "; follow it with `snapurl-reshard status --watch`"
    done = f"topology {found.goal.version} is published{hint}"
    show(
        as_json,
        "nothing was changed (--dry-run)" if dry_run else done,
        {**_document(found), "dry_run": dry_run},
    )
    if watch and not dry_run:
        with_fleet(lambda fleet: follow_change(fleet, what, found.goal.version, as_json=as_json))


async def _estimate(fleet: Fleet, changes: list[ChangeRequest], disk_free: int | None) -> Estimate:
    snapshot = await fleet.observe()
    return await estimate_change(
        fleet, snapshot, goal_of(snapshot.topology, changes), changes, disk_free=disk_free
    )


def _document(found: Estimate) -> dict[str, Any]:
    return {
        "topology_version": found.goal.version,
        "shards": [dataclasses.asdict(shard) for shard in found.shards],
        "slots_to_move": found.slots_to_move,
        "rows_to_move": found.rows_to_move,
        "rows_per_s": found.rows_per_s,
        "slots_per_s": found.slots_per_s,
        "seconds": found.seconds,
        "obstacles": found.obstacles,
        "notes": found.notes,
    }


# -- the whole topology -------------------------------------------------------------------------------------------


@click.command("pause")
@dry_run
@yes
@as_json
def pause(**flags: Any) -> None:
    """Start no further moves; moves in progress are finished."""
    _publish_goal("pause", "Pause resharding?", _paused, **flags)


@click.command("resume")
@dry_run
@yes
@as_json
def resume(**flags: Any) -> None:
    """Resume resharding after a pause."""
    _publish_goal("resume", "Resume resharding?", _resumed, **flags)


@click.command("cancel")
@dry_run
@yes
@as_json
def cancel(**flags: Any) -> None:
    """Return to the previous topology.

    What has moved moves back.
    """
    _publish_goal("cancel", "Return to the previous topology?", _cancelled, **flags)


async def _paused(_fleet: Fleet, now: Topology) -> Topology:
    if now.paused:
        raise ConfigError("resharding is paused already")
    return now.with_paused(True)


async def _resumed(_fleet: Fleet, now: Topology) -> Topology:
    if not now.paused:
        raise ConfigError("resharding is not paused")
    return now.with_paused(False)


async def _cancelled(fleet: Fleet, _now: Topology) -> Topology:
    return await previous_goal(fleet, await fleet.observe())


def _publish_goal(
    command: str,
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
        async with audit.audited(fleet, command) as record:
            goal = await publish_next(fleet, lambda now: make(fleet, now))
            if command == "cancel":
                record.publish(goal.version)
            return goal

    goal = with_fleet(work)
    if dry_run:
        done = f"topology {goal.version} would be published; nothing was changed (--dry-run)"
    else:
        done = f"topology {goal.version} is published" + (": resharding is paused" if goal.paused else "")
    shards = {shard.name: {"weight": shard.weight, "draining": shard.draining} for shard in goal.shards}
    document = {"topology_version": goal.version, "paused": goal.paused, "shards": shards, "dry_run": dry_run}
    show(as_json, done, document)


COMMANDS = (plan, add, drain, weight, apply, pause, resume, cancel)
