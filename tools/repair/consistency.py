"""Looks for what is wrong: ownership beside the ring, rows where none belong, slots with two owners or none."""

from __future__ import annotations

from collections import defaultdict

from ring.ownership import SlotState
from ring.plan import plan
from snapurl.store.cluster.rejoin import find_restarted
from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot
from tools.cluster.status import in_hand_off
from tools.cluster.tables import Table, sharded_tables
from tools.cluster.text import slots_text
from tools.transfer.compare import differences

SHOWN_MAX = 5


async def verify_cluster(fleet: Fleet, seen: Snapshot) -> list[str]:
    """One line per thing in which the cluster is not as it should be when nothing moves; empty if it is clean.

    Rows of slots that were given away and wait for clean-up are as they should be.
    """
    found = [f"shard {name} {why}" for name, why in seen.silent.items()]
    found += [
        f"shard {each.name} has started anew and serves nothing yet: see `snapurl-reshard doctor`"
        for each in await find_restarted(fleet.topology, fleet.fetch)
    ]
    if left := plan(seen.ownership, seen.placement).slots:
        found.append(f"{left} slots are not where the ring wants them")
    if states := in_hand_off(seen):
        rows_in = " and ".join(f"{count} are {state}" for state, count in states.items())
        found.append(f"hand-offs are under way: of the slots, {rows_in}")
    if seen.ownership.unowned:
        found.append(f"no shard has {slots_text(seen.ownership.unowned)}")
    found += [
        f"slot {contest.slot} is claimed by "
        + " and ".join(f"{each.shard}@{each.epoch}" for each in contest.claims)
        for contest in seen.ownership.contested[:SHOWN_MAX]
    ]
    if (more := len(seen.ownership.contested) - SHOWN_MAX) > 0:
        found.append(f"{more} more slots are claimed by more than one shard")
    rows = await rows_by_slot(fleet, seen)
    for name, slots in rows.items():
        outside = [slot for slot in slots if not _may_have(seen, name, slot)]
        if outside:
            found.append(f"shard {name} has rows of {slots_text(outside)} that it does not hold")
    found += await _doubles(fleet, seen, rows)
    return found


async def rows_by_slot(fleet: Fleet, seen: Snapshot) -> dict[str, list[int]]:
    """Shard -> the slots of which it has any row, ascending."""
    found: dict[str, list[int]] = {}
    for name in seen.rows:
        tables = await sharded_tables(await fleet.control(name))
        union = " UNION ".join(f"SELECT DISTINCT slot FROM {table.name}" for table in tables)
        found[name] = sorted(row["slot"] for row in await fleet.fetch(name, union))
    return found


def _may_have(seen: Snapshot, name: str, slot: int) -> bool:
    """Whether rows of the slot may be here: held, on their way here, or given away and not cleaned yet."""
    row = seen.by_slot[name].get(slot)
    if row is None:
        return False
    owner = seen.ownership.owners[slot]
    return row.state is not SlotState.RELEASED or (owner is not None and owner.epoch >= row.epoch)


async def _doubles(fleet: Fleet, seen: Snapshot, rows: dict[str, list[int]]) -> list[str]:
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
