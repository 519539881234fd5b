"""What is wrong with the cluster, the exact command that mends each thing, and the mending where it is safe.

Theory. Every mending here may meet a migrator or a service at work. Hand-offs that stand half-way are finished by
the same steps and tokens as ever. Of two owners the higher epoch is right: epochs grow by one with every decision,
so the lower claim is from a shard that lost its last transactions. Rows of slots that a shard never had are deleted
under a lock on `slots` that lets no import begin, and only while another shard is seen to own the slot.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field

import asyncpg

from ring.ownership import Owner, SlotState
from snapurl.errors import ConfigError
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.pool import ShardFailed
from snapurl.store.cluster.rejoin import Restarted, find_restarted
from tools.change.preflight import of_shards, out_of_sight
from tools.cluster.calls import smallints
from tools.cluster.fleet import Fleet
from tools.cluster.publish import propagate
from tools.cluster.rejoin import command_for, described, rejoin
from tools.cluster.snapshot import Snapshot
from tools.cluster.status import MIGRATOR_SILENT_S, heard
from tools.cluster.tables import SQL, sharded_tables
from tools.cluster.text import slots_text
from tools.migrator.loop import LaneConnections, executor_for
from tools.migrator.schedule import Task, schedule
from tools.repair.consistency import rows_by_slot
from tools.transfer.compare import differences
from tools.transfer.executor import Refused

FIX = "snapurl-reshard doctor --fix"
ROUNDS_MAX = 10
LOCK_MS = 2_000
DELETE_ROWS = 5_000

Fix = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, the command that mends it, and the mending itself where `--fix` can do it."""

    kind: str
    what: str
    command: str
    fix: Fix | None = field(default=None, repr=False)


async def diagnose(fleet: Fleet, seen: Snapshot) -> list[Finding]:
    """What is wrong, in the order in which it should be mended."""
    found = [
        Finding("silent", f"shard {name} {why}", f"bring {name} back, then: snapurl-reshard doctor")
        for name, why in seen.silent.items()
    ]
    obstacles, _ = await of_shards(fleet, list(seen.rows))
    found += [
        Finding("shard", line, "do what that line says, then: snapurl-reshard doctor") for line in obstacles
    ]
    found += [
        Finding("rights", line, "do what that line says, then: snapurl-reshard doctor")
        for line in await out_of_sight(fleet, list(seen.rows))
    ]
    try:
        return [
            *found,
            *await _returned(fleet),
            *await _topology(fleet, seen),
            *await _two_owners(fleet, seen),
            *_no_owner(seen),
            *await _in_hand_off(fleet, seen),
            *await _strays(fleet, seen),
            *await _stuck(fleet, seen),
        ]
    except asyncpg.InsufficientPrivilegeError:
        if not found:
            raise
        return found  # what keeps us from looking further is the first thing to mend


async def _topology(fleet: Fleet, seen: Snapshot) -> list[Finding]:
    behind = [
        name
        for name in seen.rows
        if (await fleet.fetch(name, SQL["newest_version"]))[0]["version"] != seen.topology.version
    ]
    what = f"topology {seen.topology.version} is not on {', '.join(behind)}"
    return [Finding("topology", what, FIX, lambda: propagate(fleet, seen))] if behind else []


async def _returned(fleet: Fleet) -> list[Finding]:
    """Shards that have started anew and serve nothing until somebody has vouched for them."""
    return [
        Finding(
            "returned",
            f"shard {each.name} has started anew and serves nothing: {line}",
            command_for(each) or FIX,
            None if each.assessment.blockers else _mending(fleet, each),
        )
        for each in await find_restarted(fleet.topology, fleet.fetch)
        for line in described(each)
    ]


def _mending(fleet: Fleet, found: Restarted) -> Fix:
    async def fix() -> None:
        if why := await rejoin(fleet, found):
            raise ConfigError(f"shard {found.name}: {why}")

    return fix


# -- owners -------------------------------------------------------------------------------------------------------


async def _two_owners(fleet: Fleet, seen: Snapshot) -> list[Finding]:
    pairs: defaultdict[tuple[str, str, bool], list[tuple[int, Owner, Owner]]] = defaultdict(list)
    for contest in seen.ownership.contested:
        winner, *losers = sorted(contest.claims, key=lambda claim: claim.epoch, reverse=True)
        for loser in losers:
            pairs[winner.shard, loser.shard, winner.epoch == loser.epoch].append(
                (contest.slot, winner, loser)
            )
    return [
        await _contest(fleet, winner, loser, tied, claims)
        for (winner, loser, tied), claims in sorted(pairs.items(), key=lambda item: item[0])
    ]


async def _contest(
    fleet: Fleet, winner: str, loser: str, tied: bool, claims: Sequence[tuple[int, Owner, Owner]]
) -> Finding:
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
        return Finding("two-owners", f"{claim}, at the same epoch; {rows}", how)

    async def fix() -> None:
        async with theirs.transaction():
            await theirs.execute(f"SELECT handoff_lock_v1({smallints(slots)}, {LOCK_MS})")
            await theirs.execute(SQL["surrender"], slots, winner, epochs)

    return Finding("two-owners", f"{claim}: believe {winner}, the higher epoch; {rows}", FIX, fix)


def _no_owner(seen: Snapshot) -> list[Finding]:
    if seen.silent or not seen.ownership.unowned:
        return []  # whoever is silent may have them
    trails: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for slot in seen.ownership.unowned:
        last = max(
            (
                (row.epoch, name, row.peer or "")
                for name, rows in seen.by_slot.items()
                if (row := rows.get(slot)) is not None and row.state is SlotState.RELEASED
            ),
            default=(0, "", ""),
        )
        trails[last[1], last[2]].append(slot)
    return [_trail(giver, taker, slots) for (giver, taker), slots in sorted(trails.items())]


def _trail(giver: str, taker: str, slots: list[int]) -> Finding:
    what = f"no shard owns {slots_text(slots)}"
    if not giver:
        what += " or knows who does: the shard that had them lost its tables; until then they answer 503"
        return Finding("no-owner", what, "restore that shard from its newest backup")
    which = f"slot = ANY ({smallints(slots)})"
    sql = f"UPDATE slots SET state = 'owned', peer = NULL, epoch = epoch + 1 WHERE {which}"
    return Finding(
        "no-owner",
        f"{what}: {giver} gave them to {taker}, which has lost them; until then they answer 503",
        f"restore {taker} from its newest backup; if it is lost for good, take the old copy, on {giver}: {sql}",
    )


# -- work left lying ----------------------------------------------------------------------------------------------


async def _in_hand_off(fleet: Fleet, seen: Snapshot) -> list[Finding]:
    told = {*seen.ownership.unowned, *(contest.slot for contest in seen.ownership.contested)}
    to_do = schedule(seen, busy=told)
    again = (
        "look again in a moment; if it stays, one of the two lost its past: restore it from its newest backup"
    )
    found = [Finding("wrong", line, again) for line in to_do.wrong]
    _, age_s = await heard(fleet, seen)
    if age_s is not None and age_s < MIGRATOR_SILENT_S:
        return found
    if slots := sum(len(task.batch.slots) for task in to_do.urgent):
        what = f"{slots} slots stand half-way in a hand-off, and no migrator runs"
        found.append(
            Finding("half-way", what, f"snapurl-reshard run --until-settled, or {FIX}", lambda: finish(fleet))
        )
    if moves := sum(len(task.batch.slots) for task in to_do.moves):
        found.append(
            Finding("idle", f"{moves} slots have to move, and no migrator runs", "snapurl-reshard run")
        )
    return found


async def finish(fleet: Fleet) -> None:
    """Brings the hand-offs that stand half-way to their ends, and begins no other. Raises ConfigError."""
    bench = LaneConnections(fleet)
    try:
        for _ in range(ROUNDS_MAX):
            seen = await fleet.observe()
            tasks = schedule(seen).urgent
            if not tasks:
                return
            for task in tasks:
                for batch in task.batch.parts():
                    part = Task(batch, task.program)
                    await (await executor_for(part, seen, bench)).run(part.program)
    except (*LOST, ShardFailed, Refused, asyncpg.PostgresError) as error:
        raise ConfigError(f"a hand-off could not be finished: {error}") from error
    finally:
        bench.drop()
    raise ConfigError("hand-offs keep beginning while they are finished: some migrator runs after all")


async def _strays(fleet: Fleet, seen: Snapshot) -> list[Finding]:
    """Rows of slots of which a shard has no row in `slots`: it never owned them."""
    found = []
    for name, slots in (await rows_by_slot(fleet, seen)).items():
        strays = [slot for slot in slots if slot not in seen.by_slot[name]]
        owned = [slot for slot in strays if seen.ownership.owners[slot] is not None]
        if owned:
            what = f"shard {name} has rows of {slots_text(owned)} that it never owned"
            found.append(Finding("strays", what, FIX, _deleting(fleet, name, owned)))
        if lost := sorted({*strays} - {*owned}):
            what = f"shard {name} has rows of {slots_text(lost)} that nobody owns: they may be the only copy"
            found.append(Finding("strays", what, "first find the owner of these slots, as told above"))
    return found


def _deleting(fleet: Fleet, name: str, slots: list[int]) -> Fix:
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
                    await connection.execute("LOCK TABLE slots IN SHARE MODE")  # no import begins meanwhile
                    deleted = await connection.execute(query)

    return fix


async def _stuck(fleet: Fleet, seen: Snapshot) -> list[Finding]:
    found = []
    for name in seen.rows:
        for row in await fleet.fetch(name, SQL["stuck"]):
            what = f"a transaction of {row['who']} on shard {name} has been idle for {row['age_s']:.0f} s"
            found.append(Finding("stuck", what, f"on {name}: SELECT pg_terminate_backend({row['pid']})"))
    return found
