"""Estimates a change before it is made: slots, rows and bytes per shard, time, and what prevents it."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import asyncpg

from ring.placement import place
from ring.plan import plan
from ring.topology import Topology
from snapurl.model import MIGRATOR_SILENT_S
from snapurl.store.cluster.tables import sharded_tables
from tools.change.preflight import check_disk, check_new_shard, check_shards, missing_optional_rights
from tools.change.request import Add, ChangeRequest
from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot
from tools.cluster.sql import SQL
from tools.cluster.status import read_migrator_status
from tools.transfer.copy import pipe

SAMPLE_ROWS_MIN = 1_000
SAMPLE_ROWS_MAX = 100_000
SAMPLE_S = 0.4
SLOTS_PER_S = 1_000  # how fast slots move that have no rows


@dataclass(frozen=True, slots=True)
class ShardEstimate:
    """One shard before and after the change; rows and bytes after it are estimates."""

    name: str
    slots: int
    slots_after: int
    rows: int
    rows_after: int
    bytes: int
    bytes_after: int


@dataclass(frozen=True, slots=True)
class Estimate:
    """`rows_per_s` was measured just now, 0 if it could not be; `obstacles` prevent the change.

    `slots_per_s` is the last pace of the migrator that runs, 0 if that is not known. `is_sparing` says whether it
    spares a service.
    """

    goal: Topology
    shards: tuple[ShardEstimate, ...]
    slots_to_move: int
    rows_to_move: int
    rows_per_s: float
    obstacles: tuple[str, ...]
    notes: tuple[str, ...]
    slots_per_s: float = 0.0
    is_sparing: bool = False

    @property
    def seconds(self) -> float | None:
        """Returns how long the change takes at the migrator's pace; without one, how long it takes at least.

        None if neither that nor the rate of rows is known.
        """
        if self.slots_per_s:
            return self.slots_to_move / self.slots_per_s
        if self.rows_to_move and not self.rows_per_s:
            return None
        rows_s = self.rows_to_move / self.rows_per_s if self.rows_to_move else 0.0
        return rows_s + self.slots_to_move / SLOTS_PER_S


async def estimate_change(
    fleet: Fleet,
    snapshot: Snapshot,
    goal: Topology,
    changes: Sequence[ChangeRequest],
    *,
    disk_free: int | None = None,
) -> Estimate:
    """Reads every shard, and the databases that are to become one. Changes nothing."""
    sizes: dict[str, tuple[int, int]] = {}
    for name in snapshot.rows:
        row = (await fleet.fetch(name, SQL["size"]))[0]
        sizes[name] = (row["rows"], row["bytes"])
    left = plan(snapshot.ownership, place(goal))
    shards, rows_to_move = _estimate_shards(snapshot, goal, sizes)
    obstacles = [f"shard {name} {why}" for name, why in snapshot.silent.items()]
    notes = [*_notes(snapshot), *await missing_optional_rights(fleet, list(snapshot.rows))]
    found, newest_major = await check_shards(fleet, list(snapshot.rows))
    obstacles += found
    for change in changes:
        if isinstance(change, Add):
            found, more_notes = await check_new_shard(fleet, change, newest_major)
            obstacles += found
            notes += more_notes
    arriving = {shard.name: shard.bytes_after - shard.bytes for shard in shards}
    found, more_notes = check_disk(fleet.settings, arriving, disk_free)
    rate = await _measure_rate(fleet, sizes) if rows_to_move else 0.0
    migrator, age_s = await read_migrator_status(fleet, snapshot)
    runs = age_s is not None and age_s < MIGRATOR_SILENT_S
    return Estimate(
        goal,
        tuple(shards),
        left.slots,
        rows_to_move,
        rate,
        tuple(dict.fromkeys(obstacles + found)),
        tuple(notes + more_notes),
        migrator.slots_per_s if runs else 0.0,
        runs and migrator.is_sparing,
    )


def _notes(snapshot: Snapshot) -> list[str]:
    notes = []
    if left := plan(snapshot.ownership, snapshot.placement).slots:
        notes.append(f"a reshard is in progress ({left} slots left): this replaces its goal")
    if snapshot.topology.paused:
        notes.append("resharding is paused: nothing will move before `snapurl-reshard resume`")
    if snapshot.ownership.unowned and not snapshot.silent:
        notes.append(f"{len(snapshot.ownership.unowned)} slots have no owner: see `snapurl-reshard doctor`")
    return notes


def _estimate_shards(
    snapshot: Snapshot, goal: Topology, sizes: dict[str, tuple[int, int]]
) -> tuple[list[ShardEstimate], int]:
    before = Counter(owner.shard for owner in snapshot.ownership.owners if owner)
    after = Counter(place(goal))
    rows_gained: defaultdict[str, float] = defaultdict(float)
    bytes_gained: defaultdict[str, float] = defaultdict(float)
    rows_moved = 0.0
    for transfer in plan(snapshot.ownership, place(goal)).transfers:
        rows, size = sizes.get(transfer.source, (0, 0))
        part = len(transfer.slots) / max(1, before[transfer.source])
        rows_moved += rows * part
        rows_gained[transfer.target] += rows * part
        rows_gained[transfer.source] -= rows * part
        bytes_gained[transfer.target] += size * part
        bytes_gained[transfer.source] -= size * part
    names = sorted({*sizes, *(shard.name for shard in goal.shards)})
    found = [
        ShardEstimate(
            name=name,
            slots=before[name],
            slots_after=after[name],
            rows=sizes.get(name, (0, 0))[0],
            rows_after=round(sizes.get(name, (0, 0))[0] + rows_gained[name]),
            bytes=sizes.get(name, (0, 0))[1],
            bytes_after=round(sizes.get(name, (0, 0))[1] + bytes_gained[name]),
        )
        for name in names
    ]
    return found, round(rows_moved)


async def _measure_rate(fleet: Fleet, sizes: dict[str, tuple[int, int]]) -> float:
    """Measures rows per second from the fullest shard into an indexed temporary table of another one.

    The rate of the first SAMPLE_ROWS_MIN rows decides how many rows are measured, so that it takes about
    SAMPLE_S.
    """
    names = sorted(sizes, key=lambda name: sizes[name][0], reverse=True)
    if len(names) < 2:
        return 0.0
    rate = await _measure_copy(fleet, names[0], names[1], SAMPLE_ROWS_MIN)
    rows = min(int(rate * SAMPLE_S), SAMPLE_ROWS_MAX)
    return await _measure_copy(fleet, names[0], names[1], rows) if rows > SAMPLE_ROWS_MIN else rate


async def _measure_copy(fleet: Fleet, from_shard: str, to_shard: str, rows: int) -> float:
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
        return 0.0  # then the estimate has no time
