"""Looks for what is wrong: ownership beside the ring, rows where none belong, slots with two owners or none."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from ring.ownership import SlotState
from ring.plan import plan
from tools.agenda import agenda
from tools.calls import smallints
from tools.fleet import Fleet, Seen
from tools.manifest import SQL, Table, sharded_tables
from tools.publish import spread
from tools.verify import differences

SHOWN_MAX = 5
MIGRATOR_SILENT_S = 5.0


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong, the command that mends it, and the mending itself where `--fix` can do it."""

    what: str
    command: str
    fix: Callable[[], Awaitable[None]] | None = field(default=None, repr=False)


async def verify_cluster(fleet: Fleet, seen: Seen) -> list[str]:
    """One line per thing in which the cluster is not as it should be when nothing moves; empty if it is clean.

    Rows of slots that were given away and wait for clean-up are as they should be.
    """
    found = [f"shard {name} {why}" for name, why in seen.silent.items()]
    if left := plan(seen.ownership, seen.placement).slots:
        found.append(f"{left} slots are not where the ring wants them")
    if seen.ownership.unowned:
        found.append(f"no shard has {_slots(seen.ownership.unowned)}")
    found += [
        f"slot {contest.slot} is claimed by "
        + " and ".join(f"{each.shard}@{each.epoch}" for each in contest.claims)
        for contest in seen.ownership.contested[:SHOWN_MAX]
    ]
    rows = await rows_by_slot(fleet, seen)
    for name, slots in rows.items():
        outside = [slot for slot in slots if not _may_have(seen, name, slot)]
        if outside:
            found.append(f"shard {name} has rows of {_slots(outside)} that it does not hold")
    found += await _doubles(fleet, seen, rows)
    return found


async def rows_by_slot(fleet: Fleet, seen: Seen) -> dict[str, list[int]]:
    """Shard -> the slots of which it has any row, ascending."""
    found: dict[str, list[int]] = {}
    for name in seen.rows:
        tables = await sharded_tables(await fleet.control(name))
        union = " UNION ".join(f"SELECT DISTINCT slot FROM {table.name}" for table in tables)
        found[name] = sorted(row["slot"] for row in await fleet.fetch(name, union))
    return found


def _may_have(seen: Seen, name: str, slot: int) -> bool:
    """Whether rows of the slot may be here: held, on their way here, or given away and not cleaned yet."""
    row = seen.by_slot[name].get(slot)
    if row is None:
        return False
    owner = seen.ownership.owners[slot]
    return row.state is not SlotState.RELEASED or (owner is not None and owner.epoch >= row.epoch)


async def _doubles(fleet: Fleet, seen: Seen, rows: dict[str, list[int]]) -> list[str]:
    """Slots of which two shards have rows: whether these are at least the same."""
    shards: defaultdict[int, list[str]] = defaultdict(list)
    for name, slots in rows.items():
        for slot in slots:
            row = seen.by_slot[name].get(slot)
            if row is None or row.state is not SlotState.RELEASED:
                shards[slot].append(name)
    found: list[str] = []
    for slot, names in sorted(shards.items()):
        if len(names) > 1 and len(found) < SHOWN_MAX:
            first, second = await fleet.control(names[0]), await fleet.control(names[1])
            tables: tuple[Table, ...] = await sharded_tables(first)
            different = await differences(first, second, tables, [slot])
            found.append(
                f"slot {slot} has rows on {' and '.join(names)}: " + ("; ".join(different) or "the same ones")
            )
    return found


async def examine(fleet: Fleet, seen: Seen) -> list[Finding]:
    """What is wrong, each with the exact command that mends it."""
    found = [
        Finding(f"shard {name} {why}", "bring it back, then look again") for name, why in seen.silent.items()
    ]
    found += await _topologies(fleet, seen)
    found += _contested(fleet, seen)
    if seen.ownership.unowned and not seen.silent:
        found.append(
            Finding(
                f"no shard has {_slots(seen.ownership.unowned)}",
                "restore the shard that had them from its backup; until then their links answer 503",
            )
        )
    found += await _half_way(fleet, seen)
    found += await _strays(fleet, seen)
    found += await _stuck(fleet, seen)
    return found


async def _topologies(fleet: Fleet, seen: Seen) -> list[Finding]:
    behind = []
    for name in seen.rows:
        rows = await fleet.fetch(name, "SELECT max(version) AS version FROM topology")
        if rows[0]["version"] != seen.topology.version:
            behind.append(name)
    if not behind:
        return []

    async def fix() -> None:
        await spread(fleet, seen)

    return [
        Finding(
            f"topology {seen.topology.version} is not on {', '.join(behind)}",
            "snapurl-reshard doctor --fix",
            fix,
        )
    ]


def _contested(fleet: Fleet, seen: Seen) -> list[Finding]:
    found = []
    for contest in seen.ownership.contested:
        ranked = sorted(contest.claims, key=lambda claim: claim.epoch, reverse=True)
        winner, losers = ranked[0], ranked[1:]
        if winner.epoch == losers[0].epoch:
            both = f"{winner.shard} and {losers[0].shard}"
            what = f"slot {contest.slot} is owned by {both} at one epoch, {winner.epoch}"
            found.append(Finding(what, "compare their rows by hand: nothing tells which one to believe"))
            continue

        async def fix(slot: int = contest.slot, winner: object = winner, losers: object = losers) -> None:
            for loser in losers:  # type: ignore[attr-defined]
                await fleet.fetch(loser.shard, SQL["surrender"], slot, winner.shard, winner.epoch)  # type: ignore[attr-defined]

        both = f"{losers[0].shard}@{losers[0].epoch} and by {winner.shard}@{winner.epoch}"
        what = f"slot {contest.slot} is claimed by {both}"
        found.append(Finding(f"{what}: believe the higher epoch", "snapurl-reshard doctor --fix", fix))
    return found


async def _half_way(fleet: Fleet, seen: Seen) -> list[Finding]:
    to_do = agenda(seen, slots_per_batch=64)
    found = [
        Finding(line, "look again in a moment; if it stays, restore the shard that lost its past")
        for line in to_do.wrong
    ]
    slots = sum(len(task.batch.slots) for task in to_do.urgent)
    if (slots or to_do.moves) and not await migrator_works(fleet, seen):
        what = f"{slots} slots stand half-way and {to_do.slots_left} have to move, but no migrator runs"
        found.append(Finding(what, "snapurl-reshard run"))
    return found


async def migrator_works(fleet: Fleet, seen: Seen) -> bool:
    """Whether some migrator gave a sign of life within MIGRATOR_SILENT_S."""
    for name in seen.rows:
        for row in await fleet.fetch(name, SQL["migrator"]):
            if row["age_s"] < MIGRATOR_SILENT_S:
                return True
    return False


async def _strays(fleet: Fleet, seen: Seen) -> list[Finding]:
    """Rows of slots of which a shard has no row in `slots`: it never owned them."""
    found = []
    for name, slots in (await rows_by_slot(fleet, seen)).items():
        strays = [slot for slot in slots if slot not in seen.by_slot[name]]
        if not strays:
            continue

        async def fix(name: str = name, strays: tuple[int, ...] = tuple(strays)) -> None:
            connection = await fleet.control(name)
            async with connection.transaction():
                for table in await sharded_tables(connection):
                    await connection.execute(
                        f"DELETE FROM {table.name} t WHERE slot = ANY ({smallints(strays)})"
                        " AND NOT EXISTS (SELECT 1 FROM slots s WHERE s.slot = t.slot)"
                    )

        found.append(
            Finding(
                f"shard {name} has rows of {_slots(strays)} that it never owned",
                "snapurl-reshard doctor --fix",
                fix,
            )
        )
    return found


async def _stuck(fleet: Fleet, seen: Seen) -> list[Finding]:
    found = []
    for name in seen.rows:
        for row in await fleet.fetch(name, SQL["stuck"]):
            what = f"a transaction of {row['who']} on shard {name} has been idle for {row['age_s']:.0f} s"
            found.append(Finding(what, f"on {name}: SELECT pg_terminate_backend({row['pid']})"))
        prepared = (await fleet.fetch(name, SQL["server"]))[0]["prepared"]
        if prepared:
            what = f"shard {name} has {prepared} prepared transactions, which may hold the fence"
            found.append(Finding(what, f"on {name}: ROLLBACK PREPARED for each in pg_prepared_xacts"))
    return found


def _slots(slots: list[int] | tuple[int, ...]) -> str:
    first = ", ".join(map(str, slots[:SHOWN_MAX]))
    return f"{len(slots)} slots ({first}{', …' if len(slots) > SHOWN_MAX else ''})"
