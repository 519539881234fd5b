"""Makes an empty database a shard of the cluster: its identity and the topology, but no slot."""

from __future__ import annotations

from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.store.pool import CLUSTER, ShardFailed
from snapurl.store.shards import connect_once, dsn_of
from tools.fleet import Fleet


async def enlist(fleet: Fleet, name: str, topology: Topology) -> None:
    """Writes the identity of shard `name` into its migrated database, unless it is there already.

    Raises ConfigError if the database is another shard, or not reachable.
    """
    settings = fleet.settings
    try:
        connection = await connect_once(
            name, dsn_of(settings, topology, name), settings.statement_timeout_ms / 1000
        )
    except ShardFailed as error:
        raise ConfigError(f"shard {name} {error.reason}") from error
    try:
        row = await connection.fetchrow(CLUSTER["identity"])
        if row is None:
            await connection.execute(CLUSTER["put_identity"], topology.cluster_id, name, "ready")
            return
        if row["cluster_id"] != topology.cluster_id:
            raise ConfigError(f"that database is shard {row['shard']} of another cluster")
        if row["shard"] != name:
            raise ConfigError(f"that database is shard {row['shard']} of this cluster already")
    finally:
        await connection.close()
