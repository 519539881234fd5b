"""Publishes a topology to every shard: the one way in which a goal changes.

The first shard in order of name decides: its primary key lets exactly one topology have a version, so of two
operators at once one is told that the other was faster. All shards must be reachable before anything is written.
A publication that is killed half-way is completed by the migrator, which copies the highest version to all.
"""

from __future__ import annotations

import asyncpg

from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.store.cluster.pool import CLUSTER, lost_connection_of
from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot


class Overtaken(ConfigError):
    """Another topology of that version was published first."""


async def publish(fleet: Fleet, topology: Topology) -> None:
    """Makes `topology` the goal. Raises ConfigError or ShardFailed, with nothing changed, if it cannot."""
    for shard in topology.shards:
        await fleet.fetch(shard.name, "SELECT 1")
    first, *others = sorted(shard.name for shard in topology.shards if shard.name in _known(fleet))
    connection = await fleet.control(first)
    try:
        with lost_connection_of(first):
            await connection.execute(
                "INSERT INTO topology (version, document) VALUES ($1, $2)",
                topology.version,
                topology.to_json(),
            )
    except asyncpg.UniqueViolationError:
        raise Overtaken(
            f"somebody else has just published topology {topology.version}: look at it and try again"
        ) from None
    for name in (*others, *(shard.name for shard in topology.shards if shard.name not in _known(fleet))):
        await fleet.fetch(name, CLUSTER["put_topology"], topology.version, topology.to_json())
    fleet.topology = topology


async def propagate(fleet: Fleet, seen: Snapshot) -> None:
    """Gives the newest topology to every shard that answers."""
    for name in seen.rows:
        await fleet.fetch(name, CLUSTER["put_topology"], seen.topology.version, seen.topology.to_json())


def _known(fleet: Fleet) -> frozenset[str]:
    return frozenset(shard.name for shard in fleet.topology.shards)
