"""The operator's part: runs a migrator and `snapurl-reshard` commands, and reads their effect from the shards."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

import asyncpg

from benchmarks.bed import Bed
from benchmarks.programs import BenchmarkFailed, Program, running, start
from tools.cluster.fleet import Fleet
from tools.cluster.migrator_status import MigratorStatus, Pauses
from tools.cluster.sql import SQL
from tools.cluster.status import ClusterStatus, read_status

T = TypeVar("T")

MOVE_S_MAX = 600.0
POLL_S = 0.2
HEARTBEATS_S = 1.2  # the migrator reports its progress within this time
GRACE_S = 1.0
_NO_END = "the migrator did not come to an end"

# When the new goal was published, and when its first and last slot got a new owner, by the clock of the machine
# that all shards run on. Polling intervals therefore do not affect the figures.
_PUBLISHED = "SELECT extract(epoch FROM published_at)::float8 FROM topology WHERE version = $1"
_NEW_OWNERS = """
SELECT count(*), extract(epoch FROM min(changed_at))::float8 AS first,
       extract(epoch FROM max(changed_at))::float8 AS last
  FROM slots WHERE state = 'owned' AND changed_at > to_timestamp($1)
"""
_LEFT_BEHIND = """
SELECT EXISTS (SELECT 1 FROM links WHERE slot = ANY (ARRAY(SELECT slot FROM slots WHERE state = 'released')))
"""


@dataclass(frozen=True, slots=True)
class Moved:
    """One completed change of the goal.

    Times count from its publication: `seconds` until the last slot is served by its new owner, including
    verification; `first_s` until the first batch; `cleaned_s` until the last old row is deleted, including the
    grace period. Pauses are pauses of writes.
    """

    what: str
    slots: int
    rows: int
    seconds: float
    first_s: float
    cleaned_s: float
    pauses: Pauses

    @property
    def rows_per_s(self) -> float:
        return self.rows / self.seconds

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "rows_per_s": self.rows_per_s}


@asynccontextmanager
async def migrating(bed: Bed, *options: str) -> AsyncIterator[Program]:
    """Runs a migrator that holds the lease."""
    argv = [sys.executable, "-m", "tools.cli", "run", "--grace-s", str(GRACE_S), *options]
    async with running("migrator", argv, bed.log("migrator"), environ=bed.environ()) as program:
        await _until(bed, lambda now: now.age_s is not None and now.age_s < 1)
        yield program


async def reshard(bed: Bed, *words: str) -> str:
    """Runs `snapurl-reshard` with these arguments to its end. Returns its output."""
    log = bed.log("reshard")
    log.unlink(missing_ok=True)
    argv = [sys.executable, "-m", "tools.cli", *words]
    program = await start(f"snapurl-reshard {words[0]}", argv, log, environ=bed.environ())
    try:
        await program.ended(MOVE_S_MAX)
    finally:
        await program.stop()
    return log.read_text()


async def follow(
    bed: Bed, words: Sequence[str], shard: str, mark: Callable[[str], None] = lambda what: None
) -> Moved:
    """Runs the command (`add` or `drain` of `shard`) and waits until slots and rows are where they belong.

    Calls `mark` with "moving" when the command starts, "cleaning" when the slots have moved, "checking" when their
    old rows are deleted, and "still" at the end.
    """
    draining = words[0] == "drain"
    rows = await bed.fetchval(shard, "SELECT count(*) FROM links") if draining else 0
    mark("moving")
    version = json.loads(await reshard(bed, *words, "--yes", "--json"))["topology_version"]
    await _until_migrator(bed, lambda says: says.topology_version >= version and not says.slots_left)
    mark("cleaning")
    await _until_migrator(
        bed, lambda says: says.topology_version >= version and says.state == "idle" and not says.orphans
    )
    mark("checking")
    cleaned = await bed.fetchval(bed.members[0], "SELECT extract(epoch FROM clock_timestamp())::float8")
    await _until(bed, lambda now: now.topology_version >= version and now.settled)
    published = await bed.fetchval(bed.members[0], _PUBLISHED, version)
    if not draining:
        rows = await bed.fetchval(shard, "SELECT count(*) FROM links")
        bed.members.append(shard)
    found = [await bed.fetchrow(name, _NEW_OWNERS, published) for name in bed.members]
    found = [row for row in found if row["count"]]
    await _until_clean(bed, shard if draining else None)
    mark("still")
    await asyncio.sleep(HEARTBEATS_S)
    pauses = (await _look(bed)).migrator.pauses
    if draining:
        bed.members.remove(shard)
    return Moved(
        what=f"{words[0]} {shard}",
        slots=sum(row["count"] for row in found),
        rows=rows,
        seconds=max(row["last"] for row in found) - published,
        first_s=min(row["first"] for row in found) - published,
        cleaned_s=cleaned - published,
        pauses=pauses,
    )


async def _until_clean(bed: Bed, drained: str | None) -> None:
    await _until(bed, lambda now: drained is None or all(shard.name != drained for shard in now.shards))

    async def left_behind() -> list[bool]:
        return [await bed.fetchval(name, _LEFT_BEHIND) for name in bed.members]

    await _poll(left_behind, lambda found: not any(found), lambda _: "the old rows were not deleted")


async def _look(bed: Bed) -> ClusterStatus:
    fleet = await Fleet.connect(bed.settings, "snapurl-benchmark")
    try:
        return await read_status(fleet)
    finally:
        await fleet.close()


async def _until_migrator(bed: Bed, condition: Callable[[MigratorStatus], bool]) -> None:
    """Like `_until`, but queries only the migrator, which hardly disturbs a measurement of visitors."""
    connection = await asyncpg.connect(bed.cluster.dsns[bed.members[0]])

    async def ask() -> MigratorStatus:
        (newest,) = await connection.fetch(SQL["migrator"])
        return MigratorStatus.from_json(newest["status"])

    try:
        await _poll(ask, condition, lambda says: f"{_NO_END}: {says.last_error or says}")
    finally:
        await connection.close()


async def _until(bed: Bed, condition: Callable[[ClusterStatus], bool]) -> None:
    fleet = await Fleet.connect(bed.settings, "snapurl-benchmark")
    try:
        await _poll(
            lambda: read_status(fleet), condition, lambda now: f"{_NO_END}: {now.migrator.last_error or now}"
        )
    finally:
        await fleet.close()


async def _poll(
    read: Callable[[], Awaitable[T]], condition: Callable[[T], bool], complaint: Callable[[T], str]
) -> None:
    """Polls until `condition` holds. Raises BenchmarkFailed with the complaint after MOVE_S_MAX."""
    deadline = asyncio.get_running_loop().time() + MOVE_S_MAX
    while not condition(found := await read()):
        if asyncio.get_running_loop().time() > deadline:
            raise BenchmarkFailed(complaint(found))
        await asyncio.sleep(POLL_S)
