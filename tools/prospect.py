"""What a change would do, before it is done: slots, rows and bytes per shard, time, and what would stop it."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from ring.placement import place
from ring.plan import plan
from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.store.migrate import load_migrations
from snapurl.store.pool import CLUSTER, ShardFailed
from snapurl.store.shards import connect_once
from tools.changes import Add, Change
from tools.copy import pipe
from tools.fleet import Fleet, Seen
from tools.manifest import SQL, sharded_tables

POSTGRES_MIN = 140_000
SAMPLE_ROWS = 20_000
SPARE = 1.2  # what arrives takes this much more room than it took where it came from


@dataclass(frozen=True, slots=True)
class ShardProspect:
    """One shard now and afterwards; rows and bytes afterwards are estimates."""

    name: str
    slots: int
    slots_after: int
    rows: int
    rows_after: int
    bytes: int
    bytes_after: int


@dataclass(frozen=True, slots=True)
class Prospect:
    """`rows_per_s` was measured now, 0 if there is nothing to measure with; `obstacles` would stop the change."""

    goal: Topology
    shards: tuple[ShardProspect, ...]
    slots_to_move: int
    rows_to_move: int
    rows_per_s: float
    obstacles: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def seconds(self) -> float | None:
        """How long it will take at the measured rate; None if that is not known."""
        return self.rows_to_move / self.rows_per_s if self.rows_per_s else None


async def prospect(
    fleet: Fleet, seen: Seen, goal: Topology, changes: Sequence[Change], *, disk_free: int | None = None
) -> Prospect:
    """Looks at every shard, and at the databases that are to become one. Changes nothing."""
    sizes: dict[str, tuple[int, int]] = {}
    for name in seen.rows:
        row = (await fleet.fetch(name, SQL["size"]))[0]
        sizes[name] = (row["rows"], row["bytes"])
    left = plan(seen.ownership, place(goal))
    shards, rows_to_move = _shards(seen, goal, sizes)
    obstacles = [f"shard {name} {why}" for name, why in seen.silent.items()]
    notes: list[str] = []
    if under_way := plan(seen.ownership, seen.placement).slots:
        notes.append(f"a reshard is under way ({under_way} slots left): this replaces its goal")
    for name in seen.rows:
        obstacles += await _server_obstacles(await fleet.control(name), name)
    for change in changes:
        if isinstance(change, Add):
            obstacles += await _newcomer_obstacles(fleet, change)
    arriving = {shard.name: shard.bytes_after - shard.bytes for shard in shards}
    obstacles += _disk(fleet, arriving, disk_free, notes)
    rate = await _rate(fleet, seen) if rows_to_move else 0.0
    return Prospect(goal, tuple(shards), left.slots, rows_to_move, rate, tuple(obstacles), tuple(notes))


def _shards(seen: Seen, goal: Topology, sizes: dict[str, tuple[int, int]]) -> tuple[list[ShardProspect], int]:
    before = Counter(owner.shard for owner in seen.ownership.owners if owner)
    after = Counter(place(goal))
    gains: Counter[str] = Counter()
    moved = 0.0
    for route in plan(seen.ownership, place(goal)).routes:
        rows, size = sizes.get(route.source, (0, 0))
        part = len(route.slots) / max(1, before[route.source])
        moved += rows * part
        gains[f"{route.target}:rows"] += round(rows * part)
        gains[f"{route.source}:rows"] -= round(rows * part)
        gains[f"{route.target}:bytes"] += round(size * part)
        gains[f"{route.source}:bytes"] -= round(size * part)
    names = sorted({*sizes, *(shard.name for shard in goal.shards)})
    found = [
        ShardProspect(
            name=name,
            slots=before[name],
            slots_after=after[name],
            rows=sizes.get(name, (0, 0))[0],
            rows_after=sizes.get(name, (0, 0))[0] + gains[f"{name}:rows"],
            bytes=sizes.get(name, (0, 0))[1],
            bytes_after=sizes.get(name, (0, 0))[1] + gains[f"{name}:bytes"],
        )
        for name in names
    ]
    return found, round(moved)


async def _server_obstacles(connection: Any, name: str) -> list[str]:
    row = await connection.fetchrow(SQL["server"])
    found = []
    if row["version"] < POSTGRES_MIN:
        found.append(f"shard {name} runs PostgreSQL {row['version'] // 10_000}: 14 or newer is needed")
    if row["prepared"]:
        found.append(
            f"shard {name} has {row['prepared']} prepared transactions, which hold the fence: "
            "end them (COMMIT PREPARED or ROLLBACK PREPARED)"
        )
    return found


async def _newcomer_obstacles(fleet: Fleet, change: Add) -> list[str]:
    """What is wrong with a database that is to become a shard."""
    if change.dsn is None:
        return []
    timeout_s = fleet.settings.statement_timeout_ms / 1000
    try:
        connection = await connect_once(change.name, change.dsn, timeout_s)
    except ShardFailed as error:
        return [f"shard {change.name} {error.reason}"]
    except ConfigError as error:
        return [error.detail]
    try:
        found = await _server_obstacles(connection, change.name)
        return found + await _foreign(connection, fleet, change.name)
    finally:
        await connection.close()


async def _foreign(connection: Any, fleet: Fleet, name: str) -> list[str]:
    try:
        row = await connection.fetchrow(CLUSTER["identity"])
        applied = {item["version"]: item["checksum"] for item in await connection.fetch(SQL["applied"])}
    except asyncpg.UndefinedTableError:
        may_create = (await connection.fetchrow(SQL["server"]))["may_create"]
        return [] if may_create else [f"the user of shard {name} may not create tables there"]
    if row is not None and row["cluster_id"] != fleet.topology.cluster_id:
        return [f"that database is shard {row['shard']} of another cluster"]
    if row is not None and row["shard"] != name:
        return [f"that database is shard {row['shard']} of this cluster already"]
    known = {item.version: item.checksum for item in load_migrations()}
    if applied != known:
        word = "older" if max(applied, default=0) < max(known) else "newer"
        return [
            f"shard {name} has {word} tables than this program: run `snapurl migrate` of the same version there"
        ]
    return []


def _disk(fleet: Fleet, arriving: dict[str, int], disk_free: int | None, notes: list[str]) -> list[str]:
    coming = {name: int(size * SPARE) for name, size in arriving.items() if size > 0}
    if disk_free is None and (fleet.settings.home / "cluster.json").exists():
        free = os.statvfs(fleet.settings.home)
        disk_free = free.f_bavail * free.f_frsize
        coming = {"the local disk": sum(coming.values())} if coming else {}
    if disk_free is None:
        if coming:
            notes.append("free disk space cannot be asked for over SQL: give it with --disk-free BYTES")
        return []
    return [
        f"{name} would get {size:,} bytes and has {disk_free:,} free"
        for name, size in coming.items()
        if size > disk_free
    ]


async def _rate(fleet: Fleet, seen: Seen) -> float:
    """Rows per second from one shard into a temporary table of another, with its indexes, measured now."""
    names = sorted(seen.rows)
    source, target = await fleet.control(names[0]), await fleet.control(names[-1])
    table = next(table for table in await sharded_tables(source) if table.name == "links")
    query = f"SELECT {table.column_list} FROM links LIMIT {SAMPLE_ROWS}"
    began = time.monotonic()
    async with target.transaction():
        await target.execute("CREATE TEMPORARY TABLE sample (LIKE links INCLUDING ALL) ON COMMIT DROP")
        rows = await pipe(source, target, query, "sample", table) if len(names) > 1 else 0
    return rows / (time.monotonic() - began)
