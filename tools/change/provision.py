"""Provisions a shard: starts its server if it is local, migrates its database, and registers its identity."""

from __future__ import annotations

import asyncio
import dataclasses

from pydantic import SecretStr

from ring.topology import Topology
from snapurl.config import Settings, parse_shards
from snapurl.errors import ConfigError
from snapurl.local.access import LocalUser
from snapurl.local.start_requests import request_start
from snapurl.local.state import saved_settings
from snapurl.store.cluster.dsn import dsn_of
from snapurl.store.cluster.migrate import migrate_all
from snapurl.store.cluster.pool import CLUSTER, ShardFailed, lost_connection_of
from snapurl.store.cluster.shards import connect_once
from tools.change.request import Add
from tools.cluster.fleet import Fleet

LOCAL_START_S_MAX = 60.0


def configured_dsn(fleet: Fleet, name: str) -> str | None:
    """Returns the DSN of shard `name` from the settings, or from the topology if it is a draining shard."""
    for item in fleet.settings.shard_dsns:
        if item.name == name:
            return item.dsn
    if any(shard.name == name for shard in fleet.topology.shards):
        return dsn_of(fleet.settings, fleet.topology, name)
    return None


def require_local_cluster(settings: Settings, name: str) -> None:
    """Raises ConfigError unless SNAPURL_SHARDS is the local cluster, which can start one more server."""
    ours = saved_settings(settings.home, LocalUser.MIGRATOR).get("shards")
    if ours is None or ours != settings.shards.get_secret_value():
        raise ConfigError(
            f"say where the database of {name} is: --dsn postgresql://user:password@host:port/database"
        )


async def provision(fleet: Fleet, change: Add) -> Add:
    """Makes the database a shard without slots, and returns the change with its DSN. Raises ConfigError."""
    if change.dsn is None:
        change = dataclasses.replace(change, dsn=await _start_local_server(fleet.settings, change.name))
    assert change.dsn is not None
    others = [item for item in fleet.settings.shard_dsns if item.name != change.name]
    all_shards = " ".join([*(f"{item.name}={item.dsn}" for item in others), f"{change.name}={change.dsn}"])
    alone = fleet.settings.model_copy(update={"shards": SecretStr(f"{change.name}={change.dsn}")})
    await migrate_all(alone)
    fleet.settings = fleet.settings.model_copy(update={"shards": SecretStr(all_shards)})
    await register_shard(fleet, change.name, change.apply_to(fleet.topology))
    return change


async def _start_local_server(settings: Settings, name: str) -> str:
    try:
        async with asyncio.timeout(LOCAL_START_S_MAX):
            await request_start(settings.home, name)
    except TimeoutError:
        raise ConfigError(
            f"the server of {name} did not start within {LOCAL_START_S_MAX:.0f} s: see {settings.home / name}"
        ) from None
    saved = saved_settings(settings.home, LocalUser.MIGRATOR)["shards"]
    return next(item.dsn for item in parse_shards(saved) if item.name == name)


async def register_shard(fleet: Fleet, name: str, topology: Topology) -> None:
    """Writes the identity of shard `name` into its migrated database, unless it is already there.

    Raises ConfigError if the database is another shard or cannot be reached, and ShardFailed if it is
    lost meanwhile.
    """
    settings = fleet.settings
    try:
        connection = await connect_once(
            name, dsn_of(settings, topology, name), settings.statement_timeout_ms / 1000
        )
    except ShardFailed as error:
        raise ConfigError(f"shard {name} {error.reason}") from error
    try:
        with lost_connection_of(name):
            row = await connection.fetchrow(CLUSTER["identity"])
            if row is None:
                await connection.execute(CLUSTER["put_identity"], topology.cluster_id, name, "ready")
                return
        if row["cluster_id"] != topology.cluster_id:
            raise ConfigError(f"that database is shard {row['shard']} of another cluster")
        if row["shard"] != name:
            raise ConfigError(f"that database is shard {row['shard']} of this cluster already")
    finally:
        connection.terminate()
