"""What is done about a shard that comes back with a past, where nothing is lost by it; `ring/restarts.py` has the
theory.

Imports from it that may be under way are taken back, slots that it has given away and forgotten are given
up, and then it is vouched for. What it gives up it could not have written since: its rows are older than
those of the owner, and go with the rows of other released slots.
"""

from __future__ import annotations

import logging

import asyncpg

from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.pool import CLUSTER, ShardFailed
from snapurl.store.cluster.rejoin import Restarted, attest, find_restarted, notify_peers
from tools.cluster.calls import call
from tools.cluster.fleet import Fleet
from tools.cluster.tables import SQL
from tools.cluster.text import slots_text

log = logging.getLogger("snapurl.returned")


async def rejoin_all(fleet: Fleet) -> list[str]:
    """Mends every shard that has started anew; one line per shard that has to wait. Raises ShardFailed."""
    return [
        f"shard {found.name} has started anew and serves nothing yet: {why}"
        for found in await find_restarted(fleet.topology, fleet.fetch)
        if (why := await rejoin(fleet, found))
    ]


async def rejoin(fleet: Fleet, found: Restarted) -> str:
    """Has the shard serve again without the slots that it has lost; why not, if not. Raises ShardFailed."""
    assessment = found.assessment
    if assessment.replaced:
        fleet.try_other_host(found.name)
    if assessment.blockers or assessment.clean:
        return await attest(found, fleet.fetch)
    try:
        for other, moves in assessment.imports.items():
            slots, epochs = zip(*moves, strict=True)
            await call(await fleet.control(other), "handoff_retract_v1", slots, epochs, found.name)
        if why := await notify_peers(found, fleet.fetch):
            return why
        return await _give_up(fleet, found)
    except (*LOST, ShardFailed) as error:
        raise ShardFailed(found.name, "was lost while it was seen to", sent=True) from error
    except asyncpg.PostgresError as error:
        if getattr(error, "sqlstate", "") != "SN001":
            raise
        return f"a hand-off was decided meanwhile: look again ({error})"


async def _give_up(fleet: Fleet, found: Restarted) -> str:
    lost = found.assessment.lost
    connection = await fleet.control(found.name)
    async with connection.transaction():
        if lost:
            columns = (
                [each.slot for each in lost],
                [each.peer for each in lost],
                [each.epoch for each in lost],
            )
            await connection.execute(SQL["give_up"], *columns)
        if not await connection.fetchval(CLUSTER["attest"], found.started):
            return "its server was replaced while it was looked at"
    for line in described(found):
        log.warning("shard %s came back with a past: %s", found.name, line)
    return ""


def described(found: Restarted) -> list[str]:
    """What is to be told of it, one line per thing."""
    assessment = found.assessment
    if assessment.blockers:
        return list(assessment.blockers)
    lines = []
    if assessment.lost:
        owners = ", ".join(sorted({each.peer for each in assessment.lost}))
        slots = slots_text([each.slot for each in assessment.lost])
        lines.append(f"it believes to have {slots}, which {owners} has at a higher epoch: they are given up")
    for other, moves in assessment.imports.items():
        slots = slots_text([slot for slot, _ in moves])
        lines.append(f"its hand-off of {slots} to {other} may be one that it has forgotten: it is taken back")
    return lines or ["nobody has vouched for it yet, and nothing speaks against it"]


def command_for(found: Restarted) -> str:
    """What an operator has to do about the doubts; empty if there are none."""
    if not found.assessment.blockers:
        return ""
    doubt = found.assessment.blockers[0]
    if "timeline" in doubt:
        return (
            f"let the DSN of {found.name} lead to the newer server; if that is gone and this one is to be "
            f"{found.name} from now on: on every other shard, DELETE FROM peer_logs WHERE shard = '{found.name}'"
        )
    if "claimed by" in doubt:
        return "decide whose rows count: see two-owners"
    return "bring the silent shards back, or restore them, then: snapurl-reshard doctor"
