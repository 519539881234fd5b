"""What a change would do, before it is done: slots, rows and bytes per shard, time, and what would stop it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from ring.placement import place
from ring.plan import plan
from ring.topology import Topology
from tools.change.preflight import of_disk, of_newcomer, of_shards, out_of_sight
from tools.change.request import Add, ChangeRequest
from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot
from tools.cluster.tables import SQL, sharded_tables
from tools.transfer.copy import pipe

SAMPLE_ROWS_MIN = 1_000
SAMPLE_ROWS_MAX = 100_000
SAMPLE_S = 0.4
SLOTS_PER_S = 1_000  # what the steps of a hand-off cost, however few rows there are


@dataclass(frozen=True, slots=True)
class ShardEstimate:
    """One shard now and afterwards; rows and bytes afterwards are estimates."""

    name: str
    slots: int
    slots_after: int
    rows: int
    rows_after: int
    bytes: int
    bytes_after: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """`rows_per_s` was measured now, 0 if there is nothing to measure with; `obstacles` would stop the change."""

    goal: Topology
    shards: tuple[ShardEstimate, ...]
    slots_to_move: int
    rows_to_move: int
    rows_per_s: float
    obstacles: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """How long it will take at the measured rate; None if that is not known."""
        if self.rows_to_move and not self.rows_per_s:
            return None
        rows_s = self.rows_to_move / self.rows_per_s if self.rows_to_move else 0.0
        return rows_s + self.slots_to_move / SLOTS_PER_S


async def estimate(
    fleet: Fleet,
    seen: Snapshot,
    goal: Topology,
    changes: Sequence[ChangeRequest],
    *,
    disk_free: int | None = None,
) -> Estimate:
    """Looks at every shard, and at the databases that are to become one. Changes nothing."""
    sizes: dict[str, tuple[int, int]] = {}
    for name in seen.rows:
        row = (await fleet.fetch(name, SQL["size"]))[0]
        sizes[name] = (row["rows"], row["bytes"])
    left = plan(seen.ownership, place(goal))
    shards, rows_to_move = _shards(seen, goal, sizes)
    obstacles = [f"shard {name} {why}" for name, why in seen.silent.items()]
    notes = [*_notes(seen), *await out_of_sight(fleet, list(seen.rows))]
    found, newest_major = await of_shards(fleet, list(seen.rows))
    obstacles += found
    for change in changes:
        if isinstance(change, Add):
            found, worth_knowing = await of_newcomer(fleet, change, newest_major)
            obstacles += found
            notes += worth_knowing
    arriving = {shard.name: shard.bytes_after - shard.bytes for shard in shards}
    found, worth_knowing = of_disk(fleet.settings, arriving, disk_free)
    rate = await _rate(fleet, sizes) if rows_to_move else 0.0
    return Estimate(
        goal,
        tuple(shards),
        left.slots,
        rows_to_move,
        rate,
        tuple(dict.fromkeys(obstacles + found)),
        tuple(notes + worth_knowing),
    )


def _notes(seen: Snapshot) -> list[str]:
    notes = []
    if left := plan(seen.ownership, seen.placement).slots:
        notes.append(f"a reshard is under way ({left} slots left): this replaces its goal")
    if seen.topology.paused:
        notes.append("resharding is paused: nothing will move before `snapurl-reshard resume`")
    if seen.ownership.unowned and not seen.silent:
        notes.append(f"{len(seen.ownership.unowned)} slots have no owner: see `snapurl-reshard doctor`")
    return notes


def _shards(
    seen: Snapshot, goal: Topology, sizes: dict[str, tuple[int, int]]
) -> tuple[list[ShardEstimate], int]:
    before = Counter(owner.shard for owner in seen.ownership.owners if owner)
    after = Counter(place(goal))
    gains: defaultdict[str, float] = defaultdict(float)
    moved = 0.0
    for route in plan(seen.ownership, place(goal)).routes:
        rows, size = sizes.get(route.source, (0, 0))
        part = len(route.slots) / max(1, before[route.source])
        moved += rows * part
        gains[f"{route.target}:rows"] += rows * part
        gains[f"{route.source}:rows"] -= rows * part
        gains[f"{route.target}:bytes"] += size * part
        gains[f"{route.source}:bytes"] -= size * part
    names = sorted({*sizes, *(shard.name for shard in goal.shards)})
    found = [
        ShardEstimate(
            name=name,
            slots=before[name],
            slots_after=after[name],
            rows=sizes.get(name, (0, 0))[0],
            rows_after=round(sizes.get(name, (0, 0))[0] + gains[f"{name}:rows"]),
            bytes=sizes.get(name, (0, 0))[1],
            bytes_after=round(sizes.get(name, (0, 0))[1] + gains[f"{name}:bytes"]),
        )
        for name in names
    ]
    return found, round(moved)


async def _rate(fleet: Fleet, sizes: dict[str, tuple[int, int]]) -> float:
    """Rows per second from the fullest shard into a temporary table of another, with its indexes, measured now.

    A first thousand rows says how many fit into SAMPLE_S.
    """
    names = sorted(sizes, key=lambda name: sizes[name][0], reverse=True)
    if len(names) < 2:
        return 0.0
    rate = await _sample(fleet, names[0], names[1], SAMPLE_ROWS_MIN)
    rows = min(int(rate * SAMPLE_S), SAMPLE_ROWS_MAX)
    return await _sample(fleet, names[0], names[1], rows) if rows > SAMPLE_ROWS_MIN else rate


async def _sample(fleet: Fleet, from_shard: str, to_shard: str, rows: int) -> float:
    source, target = await fleet.control(from_shard), await fleet.control(to_shard)
    table = next(table for table in await sharded_tables(source) if table.name == "links")
    query = f"SELECT {table.column_list} FROM links LIMIT {rows}"
    try:
        async with target.transaction():
            await target.execute("CREATE TEMPORARY TABLE sample (LIKE links INCLUDING ALL) ON COMMIT DROP")
            began = time.monotonic()
            copied = await pipe(source, target, query, "sample", table)
            return copied / (time.monotonic() - began)
    except asyncpg.PostgresError:
        return 0.0  # it is only an estimate that is missing then
