"""`snapurl-reshard`: the operator's command. Each sub-command calls one function and prints what came of it."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import signal
import sys
from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import Any, NoReturn, TypeVar

import asyncpg
import click
from rich.console import Console
from rich.live import Live

from ring.errors import RingError
from ring.handoff import Step
from ring.plan import plan
from ring.topology import Topology
from snapurl import logs
from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError, SnapURLError
from snapurl.local.cluster import remembered
from snapurl.store.pool import ShardFailed
from tools import audit, render
from tools.attempt import Attempt, Ends
from tools.changes import Add, Change, Drain, Weight, goal_of, parse_changes
from tools.cleanup import dead_slots
from tools.examine import examine, verify_cluster
from tools.fleet import Fleet
from tools.manifest import SQL, sharded_tables
from tools.migrator import Migrator, Options
from tools.progress import Status
from tools.prospect import Prospect, prospect
from tools.publish import Overtaken, publish
from tools.recruit import recruit
from tools.throttle import Throttle

T = TypeVar("T")
WATCH_S = 0.5
PUBLISH_ATTEMPTS = 3

console = Console()
as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
yes = click.option("--yes", is_flag=True, help="Do not ask.")
watch = click.option("--watch", is_flag=True, help="Follow it to the end.")
disk_free = click.option("--disk-free", type=int, help="Bytes free on each shard that gets more.")


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="snapurl")
def cli() -> None:
    """Add, drain and re-weight shards while traffic runs."""


# -- changes ------------------------------------------------------------------------------------------------------


@cli.command("plan", context_settings={"ignore_unknown_options": True})
@click.argument("words", nargs=-1, type=click.UNPROCESSED, metavar="CHANGE…")
@disk_free
@as_json
def plan_(words: tuple[str, ...], disk_free: int | None, as_json: bool) -> None:
    """Show what changes would do: `plan add db4`, `plan drain db1 weight db0 2`."""
    changes = parse_changes(words)

    async def work(fleet: Fleet) -> Prospect:
        return await _prospect(fleet, changes, disk_free)

    found = _with_fleet(work)
    _print(as_json, render.prospect_lines(found), _prospect_json(found))
    if found.obstacles:
        raise ConfigError(f"this cannot be done now: {found.obstacles[0]}")


@cli.command()
@click.argument("name")
@click.option("--dsn", help="Where its database is; left out: one more server of the local cluster.")
@click.option("--weight", type=float, default=1.0, show_default=True)
@disk_free
@dry_run
@yes
@watch
@as_json
def add(name: str, dsn: str | None, weight: float, **how: Any) -> None:
    """Add a shard."""
    _change([Add(name, weight, dsn)], **how)


@cli.command()
@click.argument("name")
@disk_free
@dry_run
@yes
@watch
@as_json
def drain(name: str, **how: Any) -> None:
    """Have a shard give away all it holds; it may be switched off then."""
    _change([Drain(name)], **how)


@cli.command()
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
    changes: list[Change], *, disk_free: int | None, dry_run: bool, yes: bool, watch: bool, as_json: bool
) -> None:
    async def work(fleet: Fleet) -> Prospect:
        found = await _prospect(fleet, changes, disk_free)
        if not as_json:
            render.show(console, render.prospect_lines(found))
        if found.obstacles:
            raise ConfigError(f"nothing was changed: {found.obstacles[0]}")
        if dry_run:
            return found
        _confirm(yes, "Go ahead?")
        async with audit.audited(fleet, " ".join(map(str, changes))):
            filled = [
                await recruit(fleet, change) if isinstance(change, Add) else change for change in changes
            ]
            goal = await _publish_changes(fleet, filled)
        return dataclasses.replace(found, goal=goal)

    found = _with_fleet(work)
    said = f"topology {found.goal.version} is published; follow it with `snapurl-reshard status --watch`"
    _print(as_json, "nothing was changed (--dry-run)" if dry_run else said, _prospect_json(found))
    if watch and not dry_run:
        _watch(as_json)


async def _publish_changes(fleet: Fleet, changes: list[Change]) -> Topology:
    """Publishes the changes on top of whatever is the goal by then: the migrator may just have let a shard go."""
    for attempt in range(1, PUBLISH_ATTEMPTS + 1):
        goal = goal_of((await fleet.observe()).topology, changes)
        try:
            await publish(fleet, goal)
        except Overtaken:
            if attempt == PUBLISH_ATTEMPTS:
                raise
            continue
        return goal
    raise AssertionError("unreachable")


async def _prospect(fleet: Fleet, changes: list[Change], disk_free: int | None) -> Prospect:
    seen = await fleet.observe()
    stand_ins = [
        dataclasses.replace(change, dsn=change.dsn or f"postgresql://127.0.0.1:5432/{change.name}")
        if isinstance(change, Add)
        else change
        for change in changes
    ]
    return await prospect(fleet, seen, goal_of(seen.topology, stand_ins), changes, disk_free=disk_free)


def _prospect_json(found: Prospect) -> dict[str, Any]:
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


@cli.command()
@dry_run
@yes
@as_json
def pause(**how: Any) -> None:
    """Begin no further moves; those under way are finished."""
    _set_goal("pause", lambda fleet, now: _paused(now, True), **how)


@cli.command()
@dry_run
@yes
@as_json
def resume(**how: Any) -> None:
    """Go on after a pause."""
    _set_goal("resume", lambda fleet, now: _paused(now, False), **how)


async def _paused(now: Topology, paused: bool) -> Topology:
    if now.paused == paused:
        raise ConfigError("resharding is paused already" if paused else "resharding is not paused")
    return now.with_paused(paused)


@cli.command()
@dry_run
@yes
@as_json
def cancel(**how: Any) -> None:
    """Go back to the topology before, moving back what has moved."""
    _set_goal("cancel", _before, **how)


async def _before(fleet: Fleet, now: Topology) -> Topology:
    seen = await fleet.observe()
    if not plan(seen.ownership, seen.placement).slots:
        raise ConfigError("there is nothing to cancel: every slot is where the ring wants it")
    rows = await fleet.fetch(sorted(seen.rows)[0], SQL["topologies"])
    for row in rows:
        before = Topology.from_json(row["document"])
        back = now.back_to(before)
        if before.version < now.version and back.shards != now.shards:
            return back
    raise ConfigError("there is no topology to go back to")


def _set_goal(
    what: str,
    make: Callable[[Fleet, Topology], Awaitable[Topology]],
    *,
    dry_run: bool,
    yes: bool,
    as_json: bool,
) -> None:
    async def work(fleet: Fleet) -> Topology:
        goal = await make(fleet, (await fleet.observe()).topology)
        if not dry_run:
            _confirm(yes, f"{what.capitalize()}?")
            async with audit.audited(fleet, what):
                await publish(fleet, goal)
        return goal

    goal = _with_fleet(work)
    said = "nothing was changed (--dry-run)" if dry_run else f"topology {goal.version} is published"
    _print(as_json, said, {"topology_version": goal.version, "paused": goal.paused, "dry_run": dry_run})


# -- the work -----------------------------------------------------------------------------------------------------


@cli.command()
@click.option("--max-rows-per-second", type=click.FloatRange(min=0), default=0.0, help="0: no limit.")
@click.option("--p99-ms-max", type=click.FloatRange(min=1), default=100.0, show_default=True)
@click.option("--standby-lag-s-max", type=click.FloatRange(min=0), default=10.0, show_default=True)
@click.option("--grace-s", type=click.FloatRange(min=0), default=30.0, show_default=True)
@click.option("--until-settled", is_flag=True, help="End when nothing is left to do.")
def run(
    max_rows_per_second: float,
    p99_ms_max: float,
    standby_lag_s_max: float,
    grace_s: float,
    until_settled: bool,
) -> None:
    """Run a migrator. Several may run: one works, another takes over within 5 s of its death."""
    settings = _settings()
    logs.configure(settings.log_level)
    throttle = Throttle(max_rows_per_second, p99_ms_max, standby_lag_s_max)
    migrator = Migrator(settings, Options(grace_s, throttle))

    async def work() -> None:
        stop = asyncio.Event()
        for signum in (signal.SIGTERM, signal.SIGINT):
            asyncio.get_running_loop().add_signal_handler(signum, stop.set)
        await migrator.run(stop, until_settled=until_settled)

    asyncio.run(work())


@cli.command()
@watch
@as_json
def status(watch: bool, as_json: bool) -> None:
    """Show how far it is."""
    if watch:
        _watch(as_json)
        return
    found, age_s, left = _with_fleet(_status)
    _print(as_json, render.status_line(found, age_s), _status_json(found, age_s, left))


async def _status(fleet: Fleet) -> tuple[Status, float | None, int]:
    """What the newest migrator says, how old that is, and the slots left as seen just now."""
    seen = await fleet.observe()
    left = plan(seen.ownership, seen.placement).slots
    newest: tuple[float, str] | None = None
    for name in seen.rows:
        for row in await fleet.fetch(name, SQL["migrator"]):
            if newest is None or row["age_s"] < newest[0]:
                newest = (row["age_s"], row["status"])
    if newest is None:
        return Status(topology_version=seen.topology.version, slots_left=left), None, left
    return dataclasses.replace(Status.from_json(newest[1]), slots_left=left), newest[0], left


def _status_json(found: Status, age_s: float | None, left: int) -> dict[str, Any]:
    return {**dataclasses.asdict(found), "slots_left": left, "migrator_age_s": age_s}


def _watch(as_json: bool) -> None:
    """Follows the reshard to its end: a live display on a terminal, a line now and then in a pipe."""

    async def work(fleet: Fleet) -> None:
        live = Live(console=console, refresh_per_second=4) if console.is_terminal and not as_json else None
        with live or _nothing():
            while True:
                found, age_s, left = await _status(fleet)
                if live:
                    live.update(render.status_view(found, age_s))
                else:
                    _print(as_json, render.status_line(found, age_s), _status_json(found, age_s, left))
                if not left and age_s is not None and found.state in ("idle", "cleaning"):
                    return
                await asyncio.sleep(WATCH_S)

    _with_fleet(work)


@cli.command()
@as_json
def verify(as_json: bool) -> None:
    """Compare ownership with the ring, and the rows with ownership."""

    async def work(fleet: Fleet) -> list[str]:
        return await verify_cluster(fleet, await fleet.observe())

    found = _with_fleet(work)
    _print(
        as_json,
        "\n".join(found) or "clean: every slot has one owner, and each row is in its slot's",
        {"wrong": found},
    )
    if found:
        sys.exit(1)


@cli.command()
@click.option("--grace-s", type=click.FloatRange(min=0), default=30.0, show_default=True)
@dry_run
@yes
@as_json
def cleanup(grace_s: float, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the rows of slots that were given away more than the grace period ago."""

    async def look(fleet: Fleet) -> tuple[int, int]:
        batches, waiting = await dead_slots(fleet, await fleet.observe(), grace_s)
        return sum(len(batch.slots) for batch in batches), waiting

    ready, waiting = _with_fleet(look)
    if ready and not dry_run:
        _confirm(yes, f"Delete the rows of {ready} released slots?")

        async def work(fleet: Fleet) -> None:
            async with audit.audited(fleet, "cleanup"):
                await clean_all(fleet, grace_s)

        _with_fleet(work)
    verb = "would be cleaned" if dry_run else "cleaned"
    _print(
        as_json,
        f"{ready} slots {verb}, {waiting} are within the grace period",
        {"slots": ready, "waiting": waiting},
    )


async def clean_all(fleet: Fleet, grace_s: float) -> None:
    """Deletes what `dead_slots` finds."""
    batches, _ = await dead_slots(fleet, await fleet.observe(), grace_s)
    for batch in batches:
        source = await fleet.control(batch.source)
        await Attempt(batch, Ends(source, None, await sharded_tables(source))).run((Step.CLEAN,))


@cli.command()
@click.option("--fix", is_flag=True, help="Mend what can be mended.")
@as_json
def doctor(fix: bool, as_json: bool) -> None:
    """Name what is wrong, and the command that mends it."""

    async def work(fleet: Fleet) -> list[dict[str, Any]]:
        shown = []
        for finding in await examine(fleet, await fleet.observe()):
            mended = False
            if fix and finding.fix is not None:
                async with audit.audited(fleet, f"doctor --fix: {finding.what}"):
                    await finding.fix()
                mended = True
            shown.append({"what": finding.what, "command": finding.command, "mended": mended})
        return shown

    found = _with_fleet(work)
    lines = [f"{item['what']}\n    {'mended' if item['mended'] else item['command']}" for item in found]
    _print(as_json, "\n".join(lines) or "nothing is wrong", {"findings": found})
    if any(not item["mended"] for item in found):
        sys.exit(1)


@cli.command()
@click.option("--rows", type=click.IntRange(1, audit.ROWS_MAX), default=50, show_default=True)
@as_json
def history(rows: int, as_json: bool) -> None:
    """Show who did what, newest first."""

    async def work(fleet: Fleet) -> list[audit.Entry]:
        return await audit.history(fleet, rows)

    found = _with_fleet(work)
    lines = [f"{entry.at:%Y-%m-%d %H:%M:%S} {entry.who}: {entry.what} ({entry.outcome})" for entry in found]
    _print(
        as_json,
        "\n".join(lines) or "nothing was ever changed",
        {"entries": [dataclasses.asdict(each) for each in found]},
    )


# -- around the commands ------------------------------------------------------------------------------------------


def _settings() -> Settings:
    """Without SNAPURL_SHARDS, those of the local cluster in SNAPURL_HOME. Raises ConfigError."""
    settings = load_settings()
    if not settings.shards.get_secret_value() and (local := remembered(settings.home)):
        settings = load_settings(**local)
    _ = settings.shard_dsns
    return settings


def _with_fleet(work: Callable[[Fleet], Awaitable[T]]) -> T:
    async def run() -> T:
        fleet = await Fleet.connect(_settings())
        try:
            return await work(fleet)
        finally:
            await fleet.close()

    return asyncio.run(run())


def _confirm(yes: bool, question: str) -> None:
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nothing was changed: say --yes where nobody can be asked")
    if not click.confirm(question):
        raise ConfigError("nothing was changed")


def _print(as_json: bool, text: Any, document: dict[str, Any]) -> None:
    if as_json:
        click.echo(json.dumps(document, default=_plain))
    else:
        render.show(console, text)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)


class _nothing:  # noqa: N801  # a context that does nothing
    def __enter__(self) -> None:
        return None

    def __exit__(self, *_: object) -> None:
        return None


def main() -> NoReturn:
    """The entry point: turns refusals into one line and an exit code."""
    try:
        cli()
    except (ConfigError, RingError) as error:
        _fail(str(error), 2)
    except (SnapURLError, ShardFailed) as error:
        _fail(str(error), 1)
    except asyncpg.PostgresError as error:
        _fail(f"a shard refused: {error}", 1)
    sys.exit(0)


def _fail(line: str, code: int) -> NoReturn:
    click.echo(f"snapurl-reshard: {' '.join(line.split())}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
