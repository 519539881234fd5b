"""A cluster of four shards with a fifth to add, and a migrator that runs until nothing is left to do."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from ring.topology import Shard
from snapurl.config import Settings
from snapurl.store.cluster.dsn import address_of
from tests.integration.store.conftest import Store, direct, new_link, ready, store
from tests.integration.store.test_bootstrap import with_shards
from tests.support.databases import Databases
from tests.support.waits import unless_hung
from tools.change.provision import register_shard
from tools.cluster.fleet import Fleet
from tools.cluster.publish import publish
from tools.migrator.loop import Migrator, Options

__all__ = ["Store", "direct", "new_link", "ready", "store"]


@pytest.fixture
async def fifth(
    fresh_shards: dict[str, str], databases: Databases, request: pytest.FixtureRequest
) -> AsyncIterator[str]:
    """Yields the DSN of a database for a shard db4 on the server of db0, empty unless the test uses `five`."""
    address, _, beside = fresh_shards["db0"].rpartition("/")
    name = f"five_{beside}"
    migrated = "five" in request.fixturenames
    await (databases.clone_migrated(name, ["db0"]) if migrated else databases.create(name, ["db0"]))
    yield f"{address}/{name}"
    await databases.drop(name, ["db0"])


@pytest.fixture
def five(ready: Settings, fifth: str) -> Settings:
    """Returns settings that also have the DSN of db4, whose database is migrated but not in the topology yet."""
    dsns = {item.name: item.dsn for item in ready.shard_dsns}
    return with_shards(ready, {**dsns, "db4": fifth})


async def add_fifth(ready: Settings, five: Settings, fifth: str, weight: float = 1.0) -> Fleet:
    """Publishes a topology that contains db4."""
    fleet = await Fleet.connect(ready)
    fleet.settings = five
    topology = fleet.topology.with_shard(Shard("db4", weight, address_of(fifth)))
    await register_shard(fleet, "db4", topology)
    await publish(fleet, topology)
    return fleet


async def settle(settings: Settings, **options: object) -> Migrator:
    """Runs a migrator until nothing is left to do."""
    migrator = Migrator(settings, Options(grace_s=0.0, **options))  # type: ignore[arg-type]
    try:
        await unless_hung(migrator.run(asyncio.Event(), until_settled=True))
    except TimeoutError:
        raise AssertionError(f"not settled: {migrator.current_status()}") from None
    return migrator
