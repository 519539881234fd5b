"""How fast `add` moves rows, compared with psql piping the same rows to psql with binary COPY.

The pipe is the reference: it neither verifies rows nor serves requests, and it writes into tables with the same
indexes on the same server. It runs once with the sources in sequence and once with all in parallel; the faster
counts. Each round adds a shard on a new server and drains it again.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any

import asyncpg

from benchmarks.bed import Bed
from benchmarks.moves.operator import Moved, follow, migrating, reshard
from benchmarks.programs import BenchmarkFailed
from benchmarks.seeding import settle
from ring.placement import place
from ring.topology import Shard
from snapurl.config import load_settings
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.dsn import address_of
from snapurl.store.cluster.migrate import migrate_all
from snapurl.store.cluster.shards import read_topology

SCRATCH = "scratch"
_COLUMNS = (
    "slot, code, version, url, title, tags, redirect_status, created_at, expires_at, deleted_at, owner, token, "
    "change_token"
)


@dataclass(frozen=True, slots=True)
class Round:
    """One round: rows per second of the pipe (in sequence and in parallel) and of the move."""

    rows: int
    pipe_in_turn: float
    pipe_at_once: float
    added: Moved
    drained: Moved

    @property
    def ratio(self) -> float:
        return self.added.rows_per_s / max(self.pipe_in_turn, self.pipe_at_once)

    def document(self) -> dict[str, Any]:
        return {
            "rows": self.rows,
            "pipe_rows_per_s": {"in_turn": self.pipe_in_turn, "at_once": self.pipe_at_once},
            "add": self.added.document(),
            "drain": self.drained.document(),
            "ratio": self.ratio,
        }


@dataclass(frozen=True, slots=True)
class Speed:
    rounds: tuple[Round, ...]

    @property
    def ratio(self) -> float:
        """Returns the median over the rounds of rows per second of `add` divided by those of the pipe."""
        return median(item.ratio for item in self.rounds)

    def document(self) -> dict[str, Any]:
        return {"rounds": [item.document() for item in self.rounds], "ratio": self.ratio}


async def measure_speed(bed: Bed, rounds: int, options: Sequence[str] = ()) -> Speed:
    """Runs rounds of pipe, add and drain over the links of `bed`. `options` go to the migrator."""
    if shutil.which("psql") is None:
        raise BenchmarkFailed("psql is not on PATH: install PostgreSQL's client programs (postgresql-client)")
    return Speed(tuple([await _round(bed, f"x{number}", options) for number in range(rounds)]))


async def _round(bed: Bed, name: str, options: Sequence[str]) -> Round:
    dsn = await bed.cluster.add_shard(name)
    moving = await _moving(bed, name, dsn)
    scratch = await _make_scratch(bed.cluster, name)
    rows, in_turn_s = await _pipe(bed, moving, scratch, at_once=False)
    _, at_once_s = await _pipe(bed, moving, scratch, at_once=True)
    await _drop_scratch(bed.cluster, name)
    await _settle_all(bed)
    async with migrating(bed, *options):
        added = await follow(bed, ["add", name, "--dsn", dsn], name)
    if added.rows != rows:
        raise BenchmarkFailed(f"{added.rows} rows were moved, but {rows} should have been")
    await reshard(bed, "verify")
    await _settle_all(bed)
    async with migrating(bed, *options):
        drained = await follow(bed, ["drain", name], name)
    await reshard(bed, "verify")
    await bed.cluster.shard(name).stop()
    await _settle_all(bed)
    return Round(rows, rows / in_turn_s, rows / at_once_s, added, drained)


async def _moving(bed: Bed, name: str, dsn: str) -> dict[str, list[int]]:
    """Returns, per source, the slots that the new shard will get from it."""
    topology = await read_topology(bed.settings)
    after = place(topology.with_shard(Shard(name, 1.0, address_of(dsn))))
    moving: dict[str, list[int]] = {member: [] for member in bed.members}
    for slot, (source, target) in enumerate(zip(place(topology), after, strict=True)):
        if target == name:
            moving[source].append(slot)
    return moving


async def _make_scratch(cluster: LocalCluster, name: str) -> str:
    """Creates a second database on the new shard's server, with the same tables and indexes. Returns its DSN."""
    await _execute(cluster.shard(name).dsn("postgres"), f"CREATE DATABASE {SCRATCH}")
    dsn = cluster.shard(name).dsn(SCRATCH)
    await migrate_all(load_settings(shards=f"scratch={dsn}"))
    return dsn


async def _drop_scratch(cluster: LocalCluster, name: str) -> None:
    await _execute(cluster.shard(name).dsn("postgres"), f"DROP DATABASE {SCRATCH} WITH (FORCE)", "CHECKPOINT")


async def _pipe(bed: Bed, moving: dict[str, list[int]], scratch: str, *, at_once: bool) -> tuple[int, float]:
    """Pipes the rows of all sources into the emptied scratch table. Returns the number of rows and the seconds."""
    await _execute(scratch, "TRUNCATE links", "CHECKPOINT")
    began = time.monotonic()
    if at_once:
        await asyncio.gather(*(_psql(bed.dsns[name], scratch, slots) for name, slots in moving.items()))
    else:
        for name, slots in moving.items():
            await _psql(bed.dsns[name], scratch, slots)
    took_s = time.monotonic() - began
    connection = await asyncpg.connect(scratch)
    try:
        return await connection.fetchval("SELECT count(*) FROM links"), took_s
    finally:
        await connection.close()


async def _psql(source: str, target: str, slots: list[int]) -> None:
    which = "{" + ",".join(map(str, slots)) + "}"
    export = f"COPY (SELECT {_COLUMNS} FROM links WHERE slot = ANY ('{which}')) TO STDOUT (FORMAT binary)"
    take = f"COPY links ({_COLUMNS}) FROM STDIN (FORMAT binary)"
    pipeline = 'set -o pipefail; psql -qX "$0" -c "$1" | psql -qX "$2" -c "$3"'
    process = await asyncio.create_subprocess_exec("bash", "-c", pipeline, source, export, target, take)
    if await process.wait() != 0:
        raise BenchmarkFailed("psql | psql failed; what it said stands above")


async def _settle_all(bed: Bed) -> None:
    for dsn in bed.dsns.values():
        connection = await asyncpg.connect(dsn)
        try:
            await settle(connection)
        finally:
            await connection.close()


async def _execute(dsn: str, *statements: str) -> None:
    connection = await asyncpg.connect(dsn)
    try:
        for statement in statements:
            await connection.execute(statement)
    finally:
        await connection.close()
