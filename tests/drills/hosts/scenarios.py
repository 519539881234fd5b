"""The network faults, and what must hold during and after each of them.

Every scenario breaks something, waits, and repairs it. `World.heals` then waits until every API host works with
every shard again, and reports how long that took.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import httpx

from ring.placement import place
from ring.slots import slot_of
from tests.drills.hosts.machines import API_HOSTS, FIRST, MIGRATOR_HOST, REDIS_HOST, SHARD_HOSTS, Machines
from tests.drills.hosts.traffic import Outcomes, Traffic
from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot

WAIT_S_MAX = 9.0
"""The longest a request may take, whatever is cut. A call to a shard ends after the statement time-out + 0.5 s.
After a lost reply the call is retried once. Each waits for a connection, and then for it to be established."""

HEAL_S_MAX = 15.0
SETTLE_S_MAX = 90.0
DELAY_MS = 25.0  # each way: a round trip takes 50 ms longer
LOSS = 0.05


@dataclass
class World:
    """The machines, the traffic, and how long a fault lasts."""

    machines: Machines
    traffic: Traffic
    rng: random.Random
    fault_s: float
    probes: int = 0

    async def during(self) -> Outcomes:
        """Waits while the fault lasts, and returns what happened meanwhile."""
        await asyncio.sleep(self.fault_s)
        return self.traffic.next_outcomes()

    async def heals(self) -> str:
        """Repairs the network, waits until every API host has created a link on every shard, and returns how long
        that took.
        """
        loop = asyncio.get_running_loop()
        await self.machines.net.heal()
        began = loop.time()
        await asyncio.gather(*(self._works(api) for api in API_HOSTS))
        took = loop.time() - began
        assert took < HEAL_S_MAX, f"well again only after {took:.1f} s"
        async with asyncio.timeout(WAIT_S_MAX):
            await self.traffic.earlier_ones_end()  # they may still fail because of the repaired fault
        outcomes = self.traffic.next_outcomes()
        _bounded(outcomes)
        return f"well again after {took:.1f} s ({outcomes})"

    async def _works(self, api: str) -> None:
        async with httpx.AsyncClient(base_url=self.machines.url(api), timeout=WAIT_S_MAX) as client:
            async with asyncio.timeout(2 * HEAL_S_MAX):
                while (await client.get("/health/ready")).json()["status"] != "ok":
                    await asyncio.sleep(0.05)
                for code in await self._probe_codes():
                    while (await client.post("/api/v1/links", json=_link(code))).status_code not in (
                        201,
                        409,
                    ):
                        await asyncio.sleep(0.05)

    async def _probe_codes(self) -> list[str]:
        """Returns an unused code for each shard."""
        fleet = await Fleet.connect(self.machines.settings)
        owners = place(fleet.topology)
        left = {shard.name for shard in fleet.topology.shards}
        await fleet.close()
        codes = []
        while left:
            self.probes += 1
            code = f"probe{self.probes}"
            if owners[slot_of(code)] in left:
                left.remove(owners[slot_of(code)])
                codes.append(code)
        return codes

    async def settles(self) -> None:
        """Waits until every slot is on the shard that the ring assigns."""
        async with asyncio.timeout(SETTLE_S_MAX):
            while not await self._settled():
                await asyncio.sleep(0.2)

    async def _settled(self) -> bool:
        seen = await self.snapshot()
        owners = [owner.shard if owner else None for owner in seen.ownership.owners]
        return not seen.silent and owners == list(seen.placement)

    async def snapshot(self) -> Snapshot:
        """Returns the slots as all shards have them. Raises AssertionError if one has two owners.

        Shards are not read at the same moment: a shard read as an owner may have closed the slot before the next
        one opened it. Only if it is still an owner in a later snapshot does the slot have two owners.
        """
        fleet = await Fleet.connect(self.machines.settings)
        try:
            seen = await fleet.observe()
            if seen.ownership.contested:
                before, seen = seen, await fleet.observe()
                both = set(before.ownership.contested) & set(seen.ownership.contested)
                assert not both, f"{len(both)} slots have two owners, such as {min(both, key=str)}"
            return seen
        finally:
            await fleet.close()

    async def until_moved(self, part: float) -> int:
        """Waits until db4 has at least that share of the slots it is to get, and returns how many it has."""
        while True:
            seen = await self.snapshot()
            has = sum(owner is not None and owner.shard == "db4" for owner in seen.ownership.owners)
            if has >= part * seen.placement.count("db4"):
                return has
            await asyncio.sleep(0.05)


def _link(code: str) -> dict[str, str]:
    return {"url": "https://example.org/", "alias": code}


def _bounded(outcomes: Outcomes) -> None:
    slow = {api: seconds for api, seconds in outcomes.longest_s.items() if seconds > WAIT_S_MAX}
    assert not slow, f"requests waited for longer than {WAIT_S_MAX:.0f} s: {slow}"


async def one_api_host_loses_one_shard(world: World) -> str:
    """The other API host is not affected; this one keeps working with the other shards."""
    shard = world.rng.choice(FIRST)
    await world.machines.net.cut("api0", [shard])
    outcomes = await world.during()
    _bounded(outcomes)
    others = outcomes.by_api["api1"]
    assert others["refused"] == others["unknown"] == others["not redirected"] == 0, others
    assert outcomes.by_api["api0"]["answered"] > 0
    return f"api0 | {shard}: {outcomes}; {await world.heals()}"


async def replies_of_one_shard_vanish(world: World) -> str:
    """Requests reach the shard and are executed, but their replies are lost."""
    shard = world.rng.choice(FIRST)
    await world.machines.net.cut(shard, ["api0"], both=False)
    outcomes = await world.during()
    _bounded(outcomes)
    assert outcomes.by_api["api1"]["refused"] == outcomes.by_api["api1"]["unknown"] == 0, outcomes
    return f"{shard} -> api0: {outcomes}; {await world.heals()}"


async def a_shard_loses_everybody(world: World) -> str:
    """Links on other shards keep working, and cached links are redirected."""
    shard = world.rng.choice(FIRST)
    await world.machines.net.isolate(shard)
    outcomes = await world.during()
    _bounded(outcomes)
    assert all(outcomes.by_api[api]["answered"] > 0 for api in API_HOSTS), outcomes
    return f"{shard} | all: {outcomes}; {await world.heals()}"


async def redis_loses_everybody(world: World) -> str:
    """Nothing is refused: shards answer instead of caches, each process counts its limits alone, clicks wait."""
    await world.machines.net.isolate(REDIS_HOST)
    outcomes = await world.during()
    _bounded(outcomes)
    for api in API_HOSTS:
        counts = outcomes.by_api[api]
        assert counts["refused"] == counts["unknown"] == counts["not redirected"] == 0, outcomes
    return f"redis | all: {outcomes}; {await world.heals()}"


async def packets_are_late_and_lost(world: World) -> str:
    """Answers are slow but correct."""
    await world.machines.net.worsen(delay_ms=DELAY_MS, loss=LOSS)
    outcomes = await world.during()
    _bounded(outcomes)
    assert all(outcomes.by_api[api]["answered"] > 0 for api in API_HOSTS), outcomes
    return f"{2 * DELAY_MS:.0f} ms more, {LOSS:.0%} lost: {outcomes}; {await world.heals()}"


async def a_shard_is_added_meanwhile(world: World) -> str:
    """A fifth shard is added while the migrator loses it, then all hosts do, then packets are lost everywhere."""
    machines = world.machines
    await machines.net.worsen(delay_ms=DELAY_MS / 5, loss=LOSS / 5)
    code, said = await machines.reshard("add", "db4", "--dsn", _bare(machines.shards["db4"].dsn()), "--yes")
    assert code == 0, said
    told = []
    source = world.rng.choice(FIRST)
    faults: tuple[tuple[str, Callable[[], Awaitable[None]]], ...] = (
        ("migrator | db4", lambda: machines.net.cut(MIGRATOR_HOST, ["db4"])),
        ("db4 -> migrator", lambda: machines.net.cut("db4", [MIGRATOR_HOST], both=False)),
        (f"migrator | {source}", lambda: machines.net.cut(MIGRATOR_HOST, [source])),
        ("db4 | all", lambda: machines.net.isolate("db4")),
        ("late and lost", lambda: machines.net.worsen(delay_ms=DELAY_MS, loss=LOSS)),
    )
    for number, (name, fault) in enumerate(faults):
        async with asyncio.timeout(SETTLE_S_MAX):
            has = await world.until_moved((number + world.rng.random()) / (len(faults) + 1))
        await fault()
        outcomes = await world.during()
        _bounded(outcomes)
        await machines.net.heal()
        told.append(f"{name}, when db4 had {has} slots: {outcomes}")
    loop = asyncio.get_running_loop()
    began = loop.time()
    await world.settles()
    told.append(f"all slots in place {loop.time() - began:.1f} s after; {await world.heals()}")
    return "\n  ".join(["add db4:", *told])


def _bare(dsn: str) -> str:
    """Returns the DSN without credentials, as an operator types it."""
    scheme, _, rest = dsn.partition("://")
    return f"{scheme}://{rest.rpartition('@')[2]}"


Scenario = Callable[[World], Awaitable[str]]
SCENARIOS: tuple[Scenario, ...] = (
    one_api_host_loses_one_shard,
    replies_of_one_shard_vanish,
    a_shard_loses_everybody,
    redis_loses_everybody,
    packets_are_late_and_lost,
    a_shard_is_added_meanwhile,
)
assert len(SHARD_HOSTS) == len(FIRST) + 1
