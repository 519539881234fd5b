"""The commands that repair: cleanup, doctor."""

from __future__ import annotations

import sys
from typing import Any

import click

from snapurl.store.cluster.tables import sharded_tables
from tools.cluster import audit
from tools.cluster.fleet import Fleet
from tools.commands.options import as_json, confirm, dry_run, grace_s, show, with_fleet, yes
from tools.migrator.cleanup import cleanup_tasks
from tools.transfer.executor import Executor, ShardPair


@click.command("cleanup")
@grace_s
@dry_run
@yes
@as_json
def cleanup(grace_s: float, dry_run: bool, yes: bool, as_json: bool) -> None:
    """Delete the rows of released slots.

    Only of those released longer ago than the grace period; `run` does it too.
    """

    async def work(fleet: Fleet) -> tuple[int, int, int]:
        tasks, waiting = await cleanup_tasks(fleet, await fleet.observe(), grace_s)
        ready = sum(len(task.batch.slots) for task in tasks)
        rows = 0
        if ready and not dry_run:
            confirm(yes, f"Delete the rows of {ready} released slots?")
            async with audit.audited(fleet, f"cleanup --grace-s {grace_s:g}"):
                for batch, program in ((part, task.program) for task in tasks for part in task.batch.parts()):
                    source = await fleet.control(batch.source)
                    executor = Executor(batch, ShardPair(source, None, await sharded_tables(source)))
                    await executor.run(program)
                    rows += executor.rows
        return ready, waiting, rows

    ready, waiting, rows = with_fleet(work)
    done = (
        f"{ready} slots would be cleaned (--dry-run)" if dry_run else f"{rows} rows of {ready} slots deleted"
    )
    document = {"slots": ready, "rows": rows, "waiting": waiting, "dry_run": dry_run}
    show(as_json, f"{done}; {waiting} slots wait for the grace period or their new owner", document)


@click.command("doctor")
@click.option("--fix", is_flag=True, help="Fix what can be fixed without risk.")
@dry_run
@yes
@as_json
def doctor(fix: bool, dry_run: bool, yes: bool, as_json: bool) -> None:
    """List problems and their remedies.

    The exit code is 1 while there are any.
    """

    from tools.repair.doctor import diagnose

    async def work(fleet: Fleet) -> list[dict[str, Any]]:
        found = await diagnose(fleet, await fleet.observe())
        fixable = [each for each in found if each.fix is not None]
        if fix and fixable and not dry_run:
            if not as_json:
                show(False, "\n".join(f"will fix: {each.problem}" for each in fixable), {})
            confirm(yes, "Continue?")
        shown: list[dict[str, Any]] = []
        for each in found:
            fixed = False
            if fix and each.fix is not None and not dry_run:
                async with audit.audited(fleet, f"doctor --fix: {each.problem}"):
                    await each.fix()
                fixed = True
            shown.append(
                {
                    "kind": each.kind,
                    "what": each.problem,
                    "command": each.remedy,
                    "fixable": each.fix is not None,
                    "mended": fixed,
                }
            )
        return shown

    found = with_fleet(work)
    lines = [f"{item['what']}\n    {'fixed' if item['mended'] else item['command']}" for item in found]
    show(as_json, "\n".join(lines) or "nothing is wrong", {"findings": found})
    if any(not item["mended"] for item in found):
        sys.exit(1)


COMMANDS = (cleanup, doctor)
