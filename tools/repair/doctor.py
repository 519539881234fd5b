"""Diagnoses the cluster: each problem with its remedy, and a fix where that is safe.

Theory. Every fix may run concurrently with a migrator or a service. Hand-offs that were interrupted are
finished by the same steps and tokens as ever. Of two owners the one with the higher epoch is right: epochs
grow by one with every decision, so the lower claim is from a shard that lost its last transactions. Rows of
slots that a shard never had are deleted under a lock on `slots` that blocks imports, and only if the snapshot
shows another shard that owns the slot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import asyncpg
from redis.exceptions import RedisError

from ring.ownership import Owner, SlotState
from snapurl.errors import ConfigError
from snapurl.model import MIGRATOR_SILENT_S
from snapurl.redis_client import redis_client, redis_fault
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.pool import ShardFailed
from snapurl.store.cluster.rejoin import Restarted, find_restarted
from snapurl.store.cluster.tables import sharded_tables
from tools.change.preflight import check_shards, missing_optional_rights
from tools.cluster.calls import smallints
from tools.cluster.fleet import Fleet
from tools.cluster.publish import propagate
from tools.cluster.rejoin import describe_restart, rejoin, remedy_for
from tools.cluster.snapshot import Snapshot
from tools.cluster.sql import SQL
from tools.cluster.status import read_migrator_status
from tools.cluster.text import slots_text
from tools.migrator.loop import LaneConnections, executor_for
from tools.migrator.schedule import Task, schedule
from tools.repair.consistency import rows_by_slot
from tools.transfer.compare import differences
from tools.transfer.executor import Refused

FIX = "snapurl-reshard doctor --fix"
AS_SAID = "do what that line says, then: snapurl-reshard doctor"
ROUNDS_MAX = 10
REDIS_S_MAX = 3.0
LOCK_MS = 2_000
DELETE_ROWS = 5_000

Fix = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """One problem, its remedy (mostly a command), and the fix if `--fix` can apply one."""

    kind: str
    problem: str
    remedy: str
    fix: Fix | None = field(default=None, repr=False)


async def diagnose(fleet: Fleet, snapshot: Snapshot) -> list[Diagnosis]:
    """Returns what is wrong, in the order in which to fix it."""
    found = [
        Diagnosis("silent", f"shard {name} {why}", f"bring {name} back, then: snapurl-reshard doctor")
        for name, why in snapshot.silent.items()
    ]
    found += await _check_redis(fleet)
    obstacles, _ = await check_shards(fleet, list(snapshot.rows))
    found += [Diagnosis("shard", line, AS_SAID) for line in obstacles]
    found += [
        Diagnosis("rights", line, AS_SAID)
        for line in await missing_optional_rights(fleet, list(snapshot.rows))
    ]
    try:
        return [
            *found,
            *await _check_restarts(fleet),
            *await _check_topology(fleet, snapshot),
            *await _check_two_owners(fleet, snapshot),
            *_check_no_owner(snapshot),
            *await _check_hand_offs(fleet, snapshot),
            *await _check_stray_rows(fleet, snapshot),
            *await _check_idle_transactions(fleet, snapshot),
        ]
    except asyncpg.InsufficientPrivilegeError:
        if not found:
            raise
        return found  # the missing right that prevents further checks is among them


async def _check_redis(fleet: Fleet) -> list[Diagnosis]:
    """Returns why Redis cannot be used. Without SNAPURL_REDIS_URL it is not asked: a migrator needs none."""
    if "redis_url" not in fleet.settings.model_fields_set:
        return []
    try:
        async with redis_client(fleet.settings, REDIS_S_MAX) as client:
            await client.ping()
    except (RedisError, OSError) as error:
        problem = f"Redis {redis_fault(error)}: clicks wait in the workers, limits count per worker"
        return [Diagnosis("redis", problem, "bring Redis back, then: snapurl-reshard doctor")]
    return []


async def _check_topology(fleet: Fleet, snapshot: Snapshot) -> list[Diagnosis]:
    behind = [
        name
        for name in snapshot.rows
        if (await fleet.fetch(name, SQL["newest_version"]))[0]["version"] != snapshot.topology.version
    ]
    problem = f"topology {snapshot.topology.version} is missing on {', '.join(behind)}"
    return [Diagnosis("topology", problem, FIX, lambda: propagate(fleet, snapshot))] if behind else []


async def _check_restarts(fleet: Fleet) -> list[Diagnosis]:
    """Returns the shards that have restarted and serve nothing until the restart is attested."""
    return [
        Diagnosis(
            "returned",
            f"shard {each.name} has restarted and serves nothing yet: {line}",
            remedy_for(each) or FIX,
            None if each.assessment.blockers else _fix_restart(fleet, each),
        )
        for each in await find_restarted(fleet.topology, fleet.fetch)
        for line in describe_restart(each)
    ]


def _fix_restart(fleet: Fleet, found: Restarted) -> Fix:
    async def fix() -> None:
        if reason := await rejoin(fleet, found):
            raise ConfigError(f"shard {found.name}: {reason}")

    return fix


# -- owners -------------------------------------------------------------------------------------------------------


async def _check_two_owners(fleet: Fleet, snapshot: Snapshot) -> list[Diagnosis]:
    pairs: defaultdict[tuple[str, str, bool], list[tuple[int, Owner, Owner]]] = defaultdict(list)
    for contest in snapshot.ownership.contested:
        winner, *losers = sorted(contest.claims, key=lambda claim: claim.epoch, reverse=True)
        for loser in losers:
            pairs[winner.shard, loser.shard, winner.epoch == loser.epoch].append(
                (contest.slot, winner, loser)
            )
    return [
        await _diagnose_contest(fleet, winner, loser, tied, claims)
        for (winner, loser, tied), claims in sorted(pairs.items(), key=lambda item: item[0])
    ]


async def _diagnose_contest(
    fleet: Fleet, winner: str, loser: str, tied: bool, claims: Sequence[tuple[int, Owner, Owner]]
) -> Diagnosis:
    slots = [slot for slot, _, _ in claims]
    epochs = [claim.epoch for _, claim, _ in claims]
    slot, right, wrong = claims[0]
    claim = f"slot {slot} is claimed by {loser}@{wrong.epoch} and by {winner}@{right.epoch}"
    if len(slots) > 1:
        claim += f", and so are {len(slots) - 1} more"
    ours, theirs = await fleet.control(winner), await fleet.control(loser)
    different = await differences(ours, theirs, await sharded_tables(ours), slots)
    rows = f"their rows differ ({'; '.join(different)})" if different else "their rows are the same"
    if tied:
        which = f"slot = ANY ({smallints(slots)})"
        sql = f"UPDATE slots SET state = 'released', peer = '<the other>', epoch = epoch + 1 WHERE {which}"
        how = f"compare their rows, then on the one to give way: {sql}"
        return Diagnosis("two-owners", f"{claim}, at the same epoch; {rows}", how)

    async def fix() -> None:
        async with theirs.transaction():
            await theirs.execute(f"SELECT handoff_lock_v1({smallints(slots)}, {LOCK_MS})")
            await theirs.execute(SQL["release_contested"], slots, winner, epochs)

    return Diagnosis("two-owners", f"{claim}: believe {winner}, the higher epoch; {rows}", FIX, fix)


def _check_no_owner(snapshot: Snapshot) -> list[Diagnosis]:
    if snapshot.silent or not snapshot.ownership.unowned:
        return []  # the silent shard may own them
    groups: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for slot in snapshot.ownership.unowned:
        last = max(
            (
                (row.epoch, name, row.peer or "")
                for name, rows in snapshot.by_slot.items()
                if (row := rows.get(slot)) is not None and row.state is SlotState.RELEASED
            ),
            default=(0, "", ""),
        )
        groups[last[1], last[2]].append(slot)
    return [_diagnose_unowned(source, target, slots) for (source, target), slots in sorted(groups.items())]


def _diagnose_unowned(source: str, target: str, slots: list[int]) -> Diagnosis:
    problem = f"no shard owns {slots_text(slots)}"
    if not source:
        problem += " or knows which one did: that shard has lost its tables; their links answer 503"
        return Diagnosis("no-owner", problem, "restore that shard from its newest backup")
    which = f"slot = ANY ({smallints(slots)})"
    sql = f"UPDATE slots SET state = 'owned', peer = NULL, epoch = epoch + 1 WHERE {which}"
    return Diagnosis(
        "no-owner",
        f"{problem}: {source} gave them to {target}, which has lost them; their links answer 503",
        f"restore {target} from its newest backup; if it is lost for good, use the old copy, on {source}: {sql}",
    )


# -- unfinished work ----------------------------------------------------------------------------------------------


async def _check_hand_offs(fleet: Fleet, snapshot: Snapshot) -> list[Diagnosis]:
    reported = {*snapshot.ownership.unowned, *(contest.slot for contest in snapshot.ownership.contested)}
    to_do = schedule(snapshot, excluded=reported)
    remedy = (
        "run doctor again in a moment; if the line stays, one of the two shards has lost transactions: "
        "restore it from its newest backup"
    )
    found = [Diagnosis("wrong", line, remedy) for line in to_do.wrong]
    _, age_s = await read_migrator_status(fleet, snapshot)
    if age_s is not None and age_s < MIGRATOR_SILENT_S:
        return found
    if slots := sum(len(task.batch.slots) for task in to_do.urgent):
        problem = f"the hand-off of {slots} slots was interrupted, and no migrator runs"
        remedy = f"snapurl-reshard run --until-settled, or {FIX}"
        found.append(Diagnosis("half-way", problem, remedy, lambda: finish_hand_offs(fleet)))
    if moves := sum(len(task.batch.slots) for task in to_do.moves):
        found.append(
            Diagnosis("idle", f"{moves} slots have to move, and no migrator runs", "snapurl-reshard run")
        )
    return found


async def finish_hand_offs(fleet: Fleet) -> None:
    """Finishes the hand-offs that have begun, and begins no other. Raises ConfigError."""
    lane = LaneConnections(fleet)
    try:
        for _ in range(ROUNDS_MAX):
            snapshot = await fleet.observe()
            tasks = schedule(snapshot).urgent
            if not tasks:
                return
            for task in tasks:
                for batch in task.batch.parts():
                    part = Task(batch, task.program)
                    await (await executor_for(part, snapshot, lane)).run(part.program)
    except (*LOST, ShardFailed, Refused, asyncpg.PostgresError) as error:
        raise ConfigError(f"a hand-off could not be finished: {error}") from error
    finally:
        lane.drop()
    raise ConfigError("new hand-offs keep starting: a migrator is running after all")


async def _check_stray_rows(fleet: Fleet, snapshot: Snapshot) -> list[Diagnosis]:
    """Returns rows in slots that the shard never owned: it has no row of `slots` for them."""
    found = []
    for name, slots in (await rows_by_slot(fleet, snapshot)).items():
        never_owned = [slot for slot in slots if slot not in snapshot.by_slot[name]]
        owned = [slot for slot in never_owned if snapshot.ownership.owners[slot] is not None]
        if owned:
            problem = f"shard {name} has rows of {slots_text(owned)} that it never owned"
            found.append(Diagnosis("strays", problem, FIX, _fix_stray_rows(fleet, name, owned)))
        if lost := sorted({*never_owned} - {*owned}):
            problem = (
                f"shard {name} has rows of {slots_text(lost)} that no shard owns: they may be the only copy"
            )
            found.append(Diagnosis("strays", problem, "first solve who owns these slots, as said above"))
    return found


def _fix_stray_rows(fleet: Fleet, name: str, slots: list[int]) -> Fix:
    async def fix() -> None:
        connection = await fleet.control(name)
        for table in await sharded_tables(connection):
            query = (
                f"DELETE FROM {table.name} WHERE ctid = ANY (ARRAY(SELECT t.ctid FROM {table.name} t"
                f" WHERE t.slot = ANY ({smallints(slots)})"
                f" AND NOT EXISTS (SELECT 1 FROM slots s WHERE s.slot = t.slot) LIMIT {DELETE_ROWS}))"
            )
            deleted = ""
            while deleted != "DELETE 0":
                async with connection.transaction():
                    await connection.execute(f"SET LOCAL lock_timeout = {LOCK_MS}")
                    await connection.execute("LOCK TABLE slots IN SHARE MODE")  # blocks imports
                    deleted = await connection.execute(query)

    return fix


async def _check_idle_transactions(fleet: Fleet, snapshot: Snapshot) -> list[Diagnosis]:
    found = []
    for name in snapshot.rows:
        for row in await fleet.fetch(name, SQL["stuck"]):
            problem = f"a transaction of {row['who']} on shard {name} has been idle for {row['age_s']:.0f} s"
            found.append(Diagnosis("stuck", problem, f"on {name}: SELECT pg_terminate_backend({row['pid']})"))
    return found
