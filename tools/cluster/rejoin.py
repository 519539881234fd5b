"""Rejoins restarted shards where no data is lost by it; `ring/restarts.py` has the theory.

Imports from the shard that may be under way are retracted, slots that it gave away and no longer knows of are
released, and then the restart is attested. Nothing acknowledged is lost: the shard served none of these slots
since, so its rows are older than the owner's. They are deleted like the rows of other released slots.
"""

from __future__ import annotations

import logging

import asyncpg

from ring.restarts import BlockerKind
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.pool import CLUSTER, ShardFailed
from snapurl.store.cluster.rejoin import Restarted, attest, find_restarted, notify_peers
from tools.cluster.calls import call
from tools.cluster.fleet import Fleet
from tools.cluster.sql import SQL
from tools.cluster.text import slots_text

log = logging.getLogger("snapurl.rejoin")


async def rejoin_all(fleet: Fleet) -> list[str]:
    """Rejoins every restarted shard that can; returns one line for each that cannot yet. Raises ShardFailed."""
    return [
        f"shard {found.name} has restarted and serves nothing yet: {reason}"
        for found in await find_restarted(fleet.topology, fleet.fetch)
        if (reason := await rejoin(fleet, found))
    ]


async def rejoin(fleet: Fleet, found: Restarted) -> str:
    """Has the shard serve again, without the slots that it has lost.

    Returns why it cannot yet; empty once it has rejoined. Raises ShardFailed.
    """
    assessment = found.assessment
    if assessment.replaced:
        fleet.try_other_host(found.name)
    if assessment.blockers or assessment.clean:
        return await attest(found, fleet.fetch)
    try:
        for other, moves in assessment.imports.items():
            slots, epochs = zip(*moves, strict=True)
            await call(await fleet.control(other), "handoff_retract_v1", slots, epochs, found.name)
        if reason := await notify_peers(found, fleet.fetch):
            return reason
        return await _release_lost_and_attest(fleet, found)
    except (*LOST, ShardFailed) as error:
        raise ShardFailed(found.name, "was lost while it rejoined", sent=True) from error
    except asyncpg.PostgresError as error:
        if getattr(error, "sqlstate", "") != "SN001":
            raise
        return f"a hand-off was decided meanwhile: try again ({error})"


async def _release_lost_and_attest(fleet: Fleet, found: Restarted) -> str:
    lost = found.assessment.lost
    connection = await fleet.control(found.name)
    async with connection.transaction():
        if lost:
            columns = (
                [each.slot for each in lost],
                [each.peer for each in lost],
                [each.epoch for each in lost],
            )
            await connection.execute(SQL["release_lost"], *columns)
        if not await connection.fetchval(CLUSTER["attest"], found.started):
            return "its server was replaced meanwhile"
    for line in describe_restart(found):
        log.warning("shard %s has restarted in an older state: %s", found.name, line)
    return ""


def describe_restart(found: Restarted) -> list[str]:
    """Returns what keeps the shard from serving, one line per thing."""
    assessment = found.assessment
    if assessment.blockers:
        return [blocker.reason for blocker in assessment.blockers]
    lines = []
    if assessment.lost:
        owners = ", ".join(sorted({each.peer for each in assessment.lost}))
        slots = slots_text([each.slot for each in assessment.lost])
        lines.append(f"it claims {slots}, which {owners} has at a higher epoch: it releases them")
    for other, moves in assessment.imports.items():
        slots = slots_text([slot for slot, _ in moves])
        lines.append(f"its hand-off of {slots} to {other} may be one that it has forgotten: it is taken back")
    return lines or ["its restart is not attested yet, and nothing blocks that"]


def remedy_for(found: Restarted) -> str:
    """Returns what an operator has to do about the first blocker; empty if there is none."""
    if not found.assessment.blockers:
        return ""
    match found.assessment.blockers[0].kind:
        case BlockerKind.REPLACED_SERVER:
            return (
                f"point the DSN of {found.name} at the newer server; if that is gone and this one is to replace "
                f"it: on every other shard, DELETE FROM peer_logs WHERE shard = '{found.name}'"
            )
        case BlockerKind.SAME_EPOCH:
            return "decide whose rows count: see two-owners"
        case BlockerKind.SILENT_SHARDS:
            return "bring the silent shards back, or restore them, then: snapurl-reshard doctor"
