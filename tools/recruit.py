"""Gets a database ready to become a shard: started if it is to be local, migrated, and given its identity."""

from __future__ import annotations

import asyncio
import dataclasses

from pydantic import SecretStr

from snapurl.config import Settings, parse_shards
from snapurl.errors import ConfigError
from snapurl.local.cluster import remembered
from snapurl.local.wishes import make_wish
from snapurl.store.migrate import migrate_all
from snapurl.store.shards import dsn_of
from tools.changes import Add
from tools.enlist import enlist
from tools.fleet import Fleet

LOCAL_START_S_MAX = 60.0


def known_dsn(fleet: Fleet, name: str) -> str | None:
    """Where shard `name` is, from the settings or, for one that is draining and comes back, from the topology."""
    for item in fleet.settings.shard_dsns:
        if item.name == name:
            return item.dsn
    if any(shard.name == name for shard in fleet.topology.shards):
        return dsn_of(fleet.settings, fleet.topology, name)
    return None


def local_only(settings: Settings, name: str) -> None:
    """Raises ConfigError unless the shards are those of the local cluster, which can start one more server."""
    ours = remembered(settings.home).get("shards")
    if ours is None or ours != settings.shards.get_secret_value():
        raise ConfigError(
            f"say where the database of {name} is: --dsn postgresql://user:password@host:port/database"
        )


async def recruit(fleet: Fleet, change: Add) -> Add:
    """The change with its DSN; its database is a shard without a slot then. Raises ConfigError."""
    if change.dsn is None:
        change = dataclasses.replace(change, dsn=await _local(fleet.settings, change.name))
    assert change.dsn is not None
    others = [item for item in fleet.settings.shard_dsns if item.name != change.name]
    listed = " ".join([*(f"{item.name}={item.dsn}" for item in others), f"{change.name}={change.dsn}"])
    alone = fleet.settings.model_copy(update={"shards": SecretStr(f"{change.name}={change.dsn}")})
    await migrate_all(alone)
    fleet.settings = fleet.settings.model_copy(update={"shards": SecretStr(listed)})
    await enlist(fleet, change.name, change.applied(fleet.topology))
    return change


async def _local(settings: Settings, name: str) -> str:
    try:
        async with asyncio.timeout(LOCAL_START_S_MAX):
            await make_wish(settings.home, name)
    except TimeoutError:
        raise ConfigError(
            f"the server of {name} did not start within {LOCAL_START_S_MAX:.0f} s: see {settings.home / name}"
        ) from None
    return next(item.dsn for item in parse_shards(remembered(settings.home)["shards"]) if item.name == name)
