"""Checks the cluster: ownership against the ring, rows against ownership, slots with two owners or none."""

from __future__ import annotations

from collections import defaultdict

from ring.ownership import SlotState
from ring.plan import plan
from snapurl.store.cluster.rejoin import find_restarted
from snapurl.store.cluster.tables import Table, sharded_tables
from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot
from tools.cluster.status import in_hand_off
from tools.cluster.text import slots_text
from tools.transfer.compare import differences

SHOWN_MAX = 5


async def verify_cluster(fleet: Fleet, snapshot: Snapshot) -> list[str]:
    """Returns one line per deviation from a settled cluster; none if it is clean.

    Rows of released slots that wait for clean-up are no deviation.
    """
    found = [f"shard {name} {why}" for name, why in snapshot.silent.items()]
    found += [
        f"shard {each.name} has restarted and serves nothing yet: see `snapurl-reshard doctor`"
        for each in await find_restarted(fleet.topology, fleet.fetch)
    ]
    if left := plan(snapshot.ownership, snapshot.placement).slots:
        found.append(f"{left} slots are not where the ring wants them")
    if states := in_hand_off(snapshot):
        rows_in = " and ".join(f"{count} are {state}" for state, count in states.items())
        found.append(f"hand-offs are in progress: of the slots, {rows_in}")
    if snapshot.ownership.unowned:
        found.append(f"no shard owns {slots_text(snapshot.ownership.unowned)}")
    found += [
        f"slot {contest.slot} is claimed by "
        + " and ".join(f"{each.shard}@{each.epoch}" for each in contest.claims)
        for contest in snapshot.ownership.contested[:SHOWN_MAX]
    ]
    if (more := len(snapshot.ownership.contested) - SHOWN_MAX) > 0:
        found.append(f"{more} more slots are claimed by more than one shard")
    rows = await rows_by_slot(fleet, snapshot)
    for name, slots in rows.items():
        outside = [slot for slot in slots if not _may_hold(snapshot, name, slot)]
        if outside:
            found.append(f"shard {name} has rows of {slots_text(outside)} that it does not hold")
    found += await _check_duplicates(fleet, snapshot, rows)
    return found


async def rows_by_slot(fleet: Fleet, snapshot: Snapshot) -> dict[str, list[int]]:
    """Returns shard -> the slots of which it has any row, ascending."""
    found: dict[str, list[int]] = {}
    for name in snapshot.rows:
        tables = await sharded_tables(await fleet.control(name))
        union = " UNION ".join(f"SELECT DISTINCT slot FROM {table.name}" for table in tables)
        found[name] = sorted(row["slot"] for row in await fleet.fetch(name, union))
    return found


def _may_hold(snapshot: Snapshot, name: str, slot: int) -> bool:
    """Whether the shard may have rows of the slot: it holds, imports, or has released and not cleaned it."""
    row = snapshot.by_slot[name].get(slot)
    if row is None:
        return False
    owner = snapshot.ownership.owners[slot]
    return row.state is not SlotState.RELEASED or (owner is not None and owner.epoch >= row.epoch)


async def _check_duplicates(fleet: Fleet, snapshot: Snapshot, rows: dict[str, list[int]]) -> list[str]:
    """Returns one line per slot of which two shards have rows, with the differences."""
    shards: defaultdict[int, list[str]] = defaultdict(list)
    for name, slots in rows.items():
        for slot in slots:
            row = snapshot.by_slot[name].get(slot)
            if row is None or row.state is not SlotState.RELEASED:
                shards[slot].append(name)
    found: list[str] = []
    for slot, names in sorted(shards.items()):
        if len(names) > 1 and len(found) < SHOWN_MAX:
            first, second = await fleet.control(names[0]), await fleet.control(names[1])
            tables: tuple[Table, ...] = await sharded_tables(first)
            different = await differences(first, second, tables, [slot])
            found.append(
                f"slot {slot} has rows on {' and '.join(names)}: "
                + ("; ".join(different) or "they are the same")
            )
    return found
