"""Publishes a topology to every shard: the only way to change the goal.

The shard whose name sorts first decides: its primary key admits one topology per version, so of two operators
who publish at once, one gets a VersionConflict. All shards must be reachable before anything is written. If a
publication is interrupted, the migrator completes it: it copies the highest version to all shards.
"""

from __future__ import annotations

import asyncio

import asyncpg

from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.store.cluster.pool import CLUSTER, lost_connection_of
from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot
from tools.cluster.sql import SQL


class VersionConflict(ConfigError):
    """Another topology of that version was published first."""


async def publish(fleet: Fleet, topology: Topology) -> None:
    """Makes `topology` the goal. Raises ConfigError or ShardFailed if it cannot; then nothing was changed."""
    for shard in topology.shards:
        await fleet.fetch(shard.name, "SELECT 1")
    first, *others = sorted(shard.name for shard in topology.shards if shard.name in _shard_names(fleet))
    connection = await fleet.control(first)
    try:
        with lost_connection_of(first):
            await connection.execute(
                "INSERT INTO topology (version, document) VALUES ($1, $2)",
                topology.version,
                topology.to_json(),
            )
    except asyncpg.UniqueViolationError:
        raise VersionConflict(
            f"another operator has just published topology {topology.version}: check `snapurl-reshard status`, "
            "then try again"
        ) from None
    for name in (
        *others,
        *(shard.name for shard in topology.shards if shard.name not in _shard_names(fleet)),
    ):
        await fleet.fetch(name, CLUSTER["put_topology"], topology.version, topology.to_json())
    fleet.adopt(topology)


async def published_topologies(fleet: Fleet, snapshot: Snapshot) -> dict[int, Topology]:
    """Returns version -> topology, from all shards: a recently added one does not have the older topologies."""
    results = await asyncio.gather(*(fleet.fetch(name, SQL["topologies"]) for name in snapshot.rows))
    documents = {row["document"] for rows in results for row in rows}
    return {topology.version: topology for topology in map(Topology.from_json, documents)}


async def propagate(fleet: Fleet, snapshot: Snapshot) -> None:
    """Copies the newest topology to every shard that answers."""
    for name in snapshot.rows:
        await fleet.fetch(
            name, CLUSTER["put_topology"], snapshot.topology.version, snapshot.topology.to_json()
        )


def _shard_names(fleet: Fleet) -> frozenset[str]:
    return frozenset(shard.name for shard in fleet.topology.shards)
