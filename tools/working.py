"""The commands that work on the shards: run, cleanup, doctor."""

from __future__ import annotations

import sys
from typing import Any

import click
import uvloop

from ring.handoff import Step
from snapurl import logs, traces
from snapurl.errors import ConfigError
from snapurl.metrics import serve_metrics
from snapurl.probe import Address
from snapurl.supervise import stop_signals
from tools import audit
from tools.attempt import Attempt, Ends
from tools.cleanup import dead_slots
from tools.console import as_json, confirm, dry_run, settings, show, with_fleet, yes
from tools.doctor import examine
from tools.fleet import Fleet
from tools.manifest import sharded_tables
from tools.migrator import Migrator, Options
from tools.throttle import LANES, Throttle

grace_s = click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Age at which rows of slots that were given away may be deleted.",
)


@click.command("run")
@click.option(
    "--max-rows-per-second", type=click.FloatRange(min=0), default=0.0, help="Copied at most; 0: no limit."
)
@click.option(
    "--p99-ms-max",
    type=click.FloatRange(min=1),
    default=100.0,
    show_default=True,
    help="Slower while the shards' p99 is above it.",
)
@click.option(
    "--standby-lag-s-max",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Slower while a standby lags by more.",
)
@click.option(
    "--service-url",
    metavar="URL",
    help="Where the HTTP service answers, such as http://api:8000, for --service-p99-ms-max.",
)
@click.option(
    "--service-p99-ms-max",
    type=click.FloatRange(min=1),
    default=100.0,
    show_default=True,
    help="Slower while the p99 of small requests to --service-url is above it.",
)
@click.option(
    "--lanes",
    type=click.IntRange(1, 8),
    help=f"Batches that move at a time: {LANES}, or with --service-url 1: small ones, with a rest after each.",
)
@grace_s
@click.option("--until-settled", is_flag=True, help="End when nothing is left to do.")
@click.option(
    "--metrics-port",
    type=click.IntRange(0, 65_535),
    default=0,
    help="Serve metrics there; 0: do not.",
)
@click.option(
    "--metrics-host",
    default="127.0.0.1",
    show_default=True,
    help="Address for --metrics-port; 0.0.0.0: all of them.",
)
@click.option("--json", "as_json", is_flag=True, help="Log JSON on a terminal too.")
def run(
    max_rows_per_second: float,
    p99_ms_max: float,
    standby_lag_s_max: float,
    service_url: str | None,
    service_p99_ms_max: float,
    lanes: int | None,
    grace_s: float,
    until_settled: bool,
    metrics_port: int,
    metrics_host: str,
    as_json: bool,
) -> None:
    """Run a migrator. Several may run: one works, another takes over within 5 s of its death.

    SIGTERM and SIGINT end it after the batches in hand; whatever ends it, the next one goes on from there.
    """
    found = settings()
    try:
        service = Address.of_url(service_url) if service_url else None
    except ValueError as error:
        raise ConfigError(f"--service-url: {service_url!r} {error}") from None
    logs.configure(found.log_level, "json" if as_json else found.log_format)
    traces.configure("migrator")
    serve_metrics(metrics_port, metrics_host)
    lanes = lanes or (1 if service else LANES)
    throttle = Throttle(max_rows_per_second, p99_ms_max, standby_lag_s_max, service_p99_ms_max, lanes)
    migrator = Migrator(found, Options(grace_s, throttle, service))

    async def work() -> None:
        async with stop_signals() as stop:
            await migrator.run(stop, until_settled=until_settled)

    try:
        uvloop.run(work())
    finally:
        traces.end()


@click.command("cleanup")
@grace_s
@dry_run
@yes
@as_json
def cleanup(grace_s: float, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the rows of slots that were given away more than the grace period ago; `run` does it too."""

    async def work(fleet: Fleet) -> tuple[int, int, int]:
        batches, waiting = await dead_slots(fleet, await fleet.observe(), grace_s)
        ready = sum(len(batch.slots) for batch in batches)
        rows = 0
        if ready and not dry_run:
            confirm(yes, f"Delete the rows of {ready} slots that were given away?")
            async with audit.audited(fleet, f"cleanup --grace-s {grace_s:g}"):
                for batch in (part for each in batches for part in each.parts()):
                    source = await fleet.control(batch.source)
                    attempt = Attempt(batch, Ends(source, None, await sharded_tables(source)))
                    await attempt.run((Step.CLEAN,))
                    rows += attempt.rows
        return ready, waiting, rows

    ready, waiting, rows = with_fleet(work)
    done = (
        f"{ready} slots would be cleaned (--dry-run)" if dry_run else f"{ready} slots cleaned of {rows} rows"
    )
    document = {"slots": ready, "rows": rows, "waiting": waiting, "dry_run": dry_run}
    show(as_json, f"{done}, {waiting} wait for the grace period or their new owner", document)


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Mend what can be mended.")
@dry_run
@yes
@as_json
def doctor(fix: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Name what is wrong, and the command that mends it; exit code 1 while anything is."""

    async def work(fleet: Fleet) -> list[dict[str, Any]]:
        found = await examine(fleet, await fleet.observe())
        fixable = [finding for finding in found if finding.fix is not None]
        if fix and fixable and not dry_run:
            if not as_json:
                show(False, "\n".join(f"will mend: {finding.what}" for finding in fixable), {})
            confirm(yes, "Go ahead?")
        shown = []
        for finding in found:
            item: dict[str, Any] = {"kind": finding.kind, "what": finding.what, "command": finding.command}
            mended = fix and finding.fix is not None and not dry_run
            if mended and finding.fix is not None:
                async with audit.audited(fleet, f"doctor --fix: {finding.what}"):
                    await finding.fix()
            shown.append({**item, "fixable": finding.fix is not None, "mended": mended})
        return shown

    found = with_fleet(work)
    lines = [f"{item['what']}\n    {'mended' if item['mended'] else item['command']}" for item in found]
    show(as_json, "\n".join(lines) or "nothing is wrong", {"findings": found})
    if any(not item["mended"] for item in found):
        sys.exit(1)


COMMANDS = (run, cleanup, doctor)
