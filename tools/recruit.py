"""Gets a database ready to become a shard: started if it is to be local, migrated, and given its identity."""

from __future__ import annotations

import asyncio
import dataclasses

from pydantic import SecretStr

from snapurl.config import parse_shards
from snapurl.errors import ConfigError
from snapurl.local.cluster import remembered
from snapurl.local.wishes import make_wish
from snapurl.store.migrate import migrate_all
from tools.changes import Add
from tools.enlist import enlist
from tools.fleet import Fleet

LOCAL_START_S_MAX = 60.0


async def recruit(fleet: Fleet, change: Add) -> Add:
    """The change with its DSN; its database is a shard without a slot then. Raises ConfigError."""
    if change.dsn is None:
        change = dataclasses.replace(change, dsn=await _local(fleet, change.name))
    assert change.dsn is not None
    others = [item for item in fleet.settings.shard_dsns if item.name != change.name]
    listed = " ".join(f"{item.name}={item.dsn}" for item in others) + f" {change.name}={change.dsn}"
    alone = fleet.settings.model_copy(update={"shards": SecretStr(f"{change.name}={change.dsn}")})
    await migrate_all(alone)
    fleet.settings = fleet.settings.model_copy(update={"shards": SecretStr(listed)})
    await enlist(fleet, change.name, change.applied(fleet.topology))
    return change


async def _local(fleet: Fleet, name: str) -> str:
    home = fleet.settings.home
    if not remembered(home):
        raise ConfigError(
            f"say where the database of {name} is with --dsn: there is no local cluster in {home}"
        )
    async with asyncio.timeout(LOCAL_START_S_MAX):
        await make_wish(home, name)
    return next(item.dsn for item in parse_shards(remembered(home)["shards"]) if item.name == name)
