"""Three shards, the first with a standby if a test asks for one, a store, and a migrator on demand."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg
import pytest

from ring.placement import place
from ring.slots import slot_of
from snapurl.config import Settings, load_settings
from snapurl.errors import OutcomeUnknown, Unavailable
from snapurl.model import Link
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.failover import connect_primary
from snapurl.store.cluster.migrate import migrate_all
from snapurl.store.links import SQL
from tests.failover.servers import Machine, Server, all_hosts
from tests.faults.pair import new_link, shard_list
from tests.integration.store.conftest import Store
from tests.support.waits import HANG_S, PATIENT
from tools.cluster.fleet import Fleet
from tools.cluster.publish import publish
from tools.repair.doctor import Diagnosis, diagnose

NAMES = ("db0", "db1", "db2")


@dataclass
class World:
    """Three shards and the acknowledged links. `hosts` are the servers that the DSN of a shard names."""

    machine: Machine
    hosts: dict[str, list[Server]]
    store: Store
    settings: Settings
    acked: set[str] = field(default_factory=set)
    numbers: itertools.count[int] = field(default_factory=itertools.count)

    def codes(self, name: str) -> itertools.chain[str]:
        """Yields unused codes whose slots the ring gives to shard `name`."""
        placement = place(self.store.shards.topology)
        made = (f"p{number}" for number in self.numbers)
        return itertools.chain(code for code in made if placement[slot_of(code)] == name)

    async def create(self, code: str) -> None:
        """Raises Unavailable, OutcomeUnknown."""
        assert isinstance(await self.store.links.create(new_link(code)), Link)
        self.acked.add(code)

    async def try_to_create(self, code: str) -> bool:
        with contextlib.suppress(Unavailable, OutcomeUnknown):
            await self.create(code)
            return True
        return False

    async def heals(self, name: str) -> float:
        """Returns the seconds until shard `name` accepts a write again. Fails after HANG_S."""
        clock = asyncio.get_running_loop().time
        began = clock()
        for code in self.codes(name):
            if await self.try_to_create(code):
                return clock() - began
            assert clock() - began < HANG_S, f"{name} is not well: {await self.store.shards.health()}"
            await asyncio.sleep(0.02)
        raise AssertionError("unreachable")

    async def missing(self) -> set[str]:
        """Returns the acknowledged links that are missing."""
        return {code for code in self.acked if await self.store.links.get(code) is None}

    async def ready(self, name: str) -> str:
        """Returns what readiness reports for a shard."""
        return next(shard.detail for shard in await self.store.shards.health() if shard.name == name)

    async def diagnoses(self) -> list[Diagnosis]:
        """Returns the diagnoses of `doctor`."""
        fleet = await Fleet.connect(self.settings)
        try:
            return await diagnose(fleet, await fleet.observe())
        finally:
            await fleet.close()

    async def fix(self, *kinds: str) -> None:
        """Does what `doctor --fix` does: once for some kinds of diagnoses, or until nothing is left to fix."""
        fleet = await Fleet.connect(self.settings)
        try:
            for _ in range(1 if kinds else 3):
                for finding in await diagnose(fleet, await fleet.observe()):
                    if finding.fix is not None and (not kinds or finding.kind in kinds):
                        await finding.fix()
        finally:
            await fleet.close()

    async def reopen(self) -> None:
        """Opens a new store, which has no state, like a new process."""
        await self.store.shards.close()
        self.store = await Store.open(self.settings)

    async def weigh(self, weight: float) -> None:
        """Publishes another weight of db0, so that some slots must leave it or others must come."""
        fleet = await Fleet.connect(self.settings)
        await publish(fleet, fleet.topology.with_weight("db0", weight))
        await fleet.close()

    async def serves(self, slot: int, *names: str) -> set[str]:
        """Returns which of the shards report that they would accept a write to a slot or answer a read of it."""
        found = set()
        for name in names or NAMES:
            wrote = (await self.ask(name, "SELECT outcome FROM slot_fence_v1($1::smallint)", slot))[0][
                "outcome"
            ]
            read = (await self.ask(name, SQL["get"], slot, "x"))[0]["outcome"]
            if "ok" in (wrote, read):
                found.add(name)
        return found

    async def ask(self, name: str, query: str, *args: object) -> list[asyncpg.Record]:
        """Returns rows from the primary of a shard over a plain connection, without SnapURL's checks."""
        connection = await connect_primary(all_hosts(*self.hosts[name]), HANG_S)
        try:
            rows: list[asyncpg.Record] = await connection.fetch(query, *args)
            return rows
        finally:
            await connection.close()


@pytest.fixture(scope="session")
async def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns the data directory of a server whose database is migrated and belongs to no cluster yet."""
    machine = Machine(tmp_path_factory.mktemp("template"))
    server = machine.server("template")
    await server.start()
    await migrate_all(load_settings(shards=f"template={server.dsn()}", **PATIENT))
    await server.stop()
    return server.data


@pytest.fixture
async def machine(tmp_path: Path, template: Path) -> AsyncIterator[Machine]:
    made = Machine(tmp_path, template)
    yield made
    await made.stop()


class Maker:
    """Makes the world of a test."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self.made: list[World] = []

    async def __call__(
        self, *, standby: bool = False, synchronous: bool = False, **settings: object
    ) -> World:
        servers = {name: self._machine.server(name) for name in NAMES}
        await asyncio.gather(*(server.start() for server in servers.values()))
        hosts = {name: [server] for name, server in servers.items()}
        if standby:
            hosts["db0"].append(await self._machine.standby_of(servers["db0"], synchronous=synchronous))
        dsns = {name: all_hosts(*listed) for name, listed in hosts.items()}
        configured = load_settings(shards=shard_list(dsns), **settings)
        await ensure_cluster(configured)
        world = World(self._machine, hosts, await Store.open(configured), configured)
        self.made.append(world)
        return world


@pytest.fixture
async def make_world(machine: Machine) -> AsyncIterator[Maker]:
    maker = Maker(machine)
    yield maker
    for world in maker.made:
        await world.store.shards.close()
