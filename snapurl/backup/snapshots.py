"""Snapshots of all shards that together have each slot exactly once, also while slots move.

Theory. A backup reads each shard in one REPEATABLE READ snapshot, which has the shard's `slots` as of the same
instant as its links. So each snapshot says of itself which slots it has. The snapshots are taken one after
another; between two of them a slot may go from a source to a target, in a hand-off whose order is: the source
closes (no more writes), the target commits (owned, at the next epoch), the source releases.

Which snapshot has a slot is what `ring/ownership.py` says of the rows together: among those that hold it, the one
at the highest epoch.

- *Both hold it.* The source was read before it released, the target after its commit. The target has all that the
  source had when it closed, and the higher epoch: it is taken, and the source's rows are not. So no row comes
  twice.
- *Neither holds it.* The target was read before its commit, the source after its release. Then the snapshot of
  the target is taken anew: the target has committed before the source released, so a newer snapshot holds the
  slot, or says to whom it went. This is repeated, ROUNDS_MAX times at most, before any row is read.
- *An earlier owner alone, closed, of a slot that others have had since.* One of these says that it has given the
  slot away at a higher epoch: then the snapshot of the one to whom is taken anew, as if nobody held it.
- *The source alone, closed.* It has all that was ever acknowledged before the target's commit, which is later
  than the target's snapshot.

No acknowledged write is lost. Let a write be acknowledged before the backup begins. Whichever shard did it was
the only one that could. If the snapshot that is taken for the slot is one of that shard, it is later than the
write. If it is one of a later owner, that owner has copied the write before its commit. It cannot be one of an
earlier owner: that one had closed the slot before the write, and the snapshots are all later than the write; so
the writer, or who came after it, holds the slot in its own snapshot at a higher epoch. Rows that a shard still
has of slots it gave away, or that are on their way to it, belong to slots for which its snapshot is not taken.

What is not consistent. There is no one instant: snapshots are milliseconds apart, more if one is repeated. Of two
writes to different shards during that time the later may be in the backup and the earlier not: a link of an
account that was made just before it, or one side of a rename. A write during that time is in the backup or is
not. Within a shard everything is of one instant: a link, its history, its clicks and the sums of its groups
agree.

A shard whose server has restarted and is not attested may be old, and of two owners at one epoch nobody knows
which is right: both are refused. So is a shard that does not answer: a backup has all slots, or there is none.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from ring.ownership import Ownership, SlotRow, SlotState, merge
from ring.topology import Topology
from snapurl.backup.archive import BackupRefused
from snapurl.backup.decisions import KEPT, undecided
from snapurl.config import Settings
from snapurl.store.cluster.dsn import dsn_of
from snapurl.store.cluster.pool import ShardFailed, check_identity, statement_errors_of
from snapurl.store.cluster.shards import close_quietly, connect_once, read_topology
from snapurl.store.cluster.tables import Table, sharded_tables
from snapurl.store.queries import load_queries

SQL = load_queries("backup", package="snapurl.backup")
ROUNDS_MAX = 100
APPLICATION = "snapurl-backup"


@dataclass(slots=True)
class ShardSnapshot:
    """A connection to a shard whose transaction is one snapshot, and what it said of itself."""

    name: str
    connection: Any
    topology: Topology
    slots: tuple[SlotRow, ...]
    schema: int


@dataclass(frozen=True, slots=True)
class ClusterSnapshot:
    """One snapshot per shard. `slots` are those for which a shard's snapshot is taken, ascending."""

    topology: Topology
    shards: Mapping[str, ShardSnapshot]
    slots: Mapping[str, Sequence[int]]
    tables: tuple[Table, ...]
    schema: int


@asynccontextmanager
async def shard_connections(settings: Settings) -> AsyncIterator[tuple[Topology, dict[str, Any]]]:
    """Yields the topology and a connection to each of its shards, which write rows as text in one way everywhere.

    Raises BackupRefused if a shard does not answer, ConfigError.
    """
    topology = await read_topology(settings)
    timeout_s = settings.statement_timeout_ms / 1000
    found: dict[str, Any] = {}
    try:
        for shard in topology.shards:
            dsn = dsn_of(settings, topology, shard.name)
            found[shard.name] = await connect_once(shard.name, dsn, timeout_s, application=APPLICATION)
            with statement_errors_of(shard.name):
                await found[shard.name].execute(SQL["session"])
                check_identity(
                    shard.name, topology.cluster_id, await found[shard.name].fetchrow(SQL["identity"])
                )
        yield topology, found
    except ShardFailed as error:
        raise BackupRefused(f"{error}: every shard is needed") from error
    finally:
        await asyncio.gather(*(close_quietly(connection, timeout_s) for connection in found.values()))


async def take_snapshots(topology: Topology, connections: Mapping[str, Any]) -> ClusterSnapshot:
    """Begins a snapshot at each shard, and takes those anew of which slots are missing.

    Raises BackupRefused, ShardFailed. The transactions last as long as the connections.
    """
    shards: dict[str, ShardSnapshot] = {}
    again = set(connections)
    for _ in range(ROUNDS_MAX):
        for name in sorted(again):
            shards[name] = await _begin(name, connections[name])
        newest = max((each.topology for each in shards.values()), key=lambda each: each.version)
        if strange := {shard.name for shard in newest.shards} - connections.keys():
            raise BackupRefused(f"shard {min(strange)} has just been added: begin again")
        ownership = merge({name: each.slots for name, each in shards.items()})
        again = late_shards(ownership, shards)
        if not again:
            return await _cluster(newest, shards, ownership)
    raise BackupRefused("slots move too fast: `snapurl-reshard pause`, and begin again")


def late_shards(ownership: Ownership, shards: Mapping[str, ShardSnapshot]) -> set[str]:
    """Returns the shards whose snapshots are too old to have what was given to them. Raises BackupRefused."""
    for contest in ownership.contested:  # at two epochs: the source was read before it gave the slot away
        if len({claim.epoch for claim in contest.claims}) < len(contest.claims):
            raise BackupRefused(
                f"more than one shard claims slot {contest.slot}: see `snapurl-reshard doctor`"
            )
    given: dict[int, SlotRow] = {}
    for each in shards.values():
        for row in each.slots:
            if row.state is SlotState.RELEASED:
                given[row.slot] = max(given.get(row.slot, row), row, key=lambda one: one.epoch)
    late: set[str] = set()
    for slot, owner in enumerate(ownership.owners):
        released = given.get(slot)
        if released is not None and (owner is None or owner.epoch < released.epoch):
            late.add(str(released.peer))
        elif owner is None:
            raise BackupRefused(f"no shard holds slot {slot}: see `snapurl-reshard doctor`")
    return late


async def _begin(name: str, connection: Any) -> ShardSnapshot:
    with statement_errors_of(name):
        if connection.is_in_transaction():
            await connection.execute("ROLLBACK")
        await connection.execute("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
        head = await connection.fetchrow(SQL["head"])
        rows = await connection.fetch(SQL["slots"])
    if not head["attested"]:
        raise BackupRefused(f"the server of shard {name} has restarted and is not attested yet: begin again")
    slots = tuple(map(SlotRow.of, rows))
    return ShardSnapshot(name, connection, Topology.from_json(head["document"]), slots, head["schema"])


async def _cluster(
    topology: Topology, shards: Mapping[str, ShardSnapshot], ownership: Ownership
) -> ClusterSnapshot:
    slots: dict[str, list[int]] = {name: [] for name in shards}
    for slot, owner in enumerate(ownership.owners):
        assert owner is not None, "a slot without an owner is refused before"
        slots[owner.shard].append(slot)
    schemas = {each.schema for each in shards.values()}
    if len(schemas) > 1:
        raise BackupRefused("the shards have different migrations: run `snapurl migrate`")
    tables = {name: await kept_tables(name, each.connection) for name, each in shards.items()}
    if len(set(tables.values())) > 1:
        raise BackupRefused("the shards have different tables: run `snapurl migrate`")
    return ClusterSnapshot(topology, shards, slots, next(iter(tables.values())), schemas.pop())


async def kept_tables(name: str, connection: Any) -> tuple[Table, ...]:
    """Returns the tables that a backup keeps, in the order of a restore. Raises BackupRefused."""
    with statement_errors_of(name):
        all_tables = [row["name"] for row in await connection.fetch(SQL["tables"])]
        sharded = {table.name: table for table in await sharded_tables(connection)}
    if strange := undecided(all_tables):
        raise BackupRefused(f"this release does not know the table {strange[0]} of shard {name}")
    if missing := KEPT.keys() - sharded.keys():
        raise BackupRefused(f"shard {name} has no table {min(missing)}: run `snapurl migrate`")
    return tuple(sharded[table] for table in KEPT)


def rows_query(table: Table, slots: Sequence[int], only: str = "") -> str:
    """Returns the query of a table's rows of some slots, in the order of a backup; `only` is one more condition."""
    listed = ",".join(map(str, slots))
    return (
        f"SELECT {table.column_list} FROM {table.name}"  # noqa: S608 - names from the catalogue, and numbers
        f" WHERE slot = ANY ('{{{listed}}}'::smallint[]) AND slot BETWEEN {slots[0]} AND {slots[-1]}{only}"
        f" ORDER BY {table.key_list}"
    )
