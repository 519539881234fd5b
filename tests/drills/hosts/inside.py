"""The run itself, in the network that `__main__` has created."""

from __future__ import annotations

import argparse
import asyncio
import itertools
import random
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from ring.placement import place
from ring.slots import slot_of
from ring.topology import Shard
from snapurl.accounts import create_account
from snapurl.keys import create_key
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.dsn import address_of
from snapurl.store.cluster.migrate import migrate_all
from tests.drills.hosts.machines import API_HOSTS, FIRST, HTTP_PORT, MIGRATOR_HOST, Machines, machines
from tests.drills.hosts.scenarios import SCENARIOS, World
from tests.drills.hosts.traffic import Traffic
from tests.faults.pair import new_link
from tests.integration.clicks.test_clicks import until_counted
from tests.integration.store.conftest import Store
from tests.support.waits import HANG_S
from tools.cluster.fleet import Fleet

LINKS = 4_000
CLICKED = 24
ROWS_PER_S = 400.0  # slow enough for the move to last as long as the faults
GRACE_S = 0.5


async def run(seed: int, names: list[str], fault_s: float, directory: Path) -> None:
    """Raises AssertionError with what was wrong."""
    rng = random.Random(seed)
    began = time.monotonic()
    async with machines(directory, seed) as cluster, AsyncExitStack() as stack:
        await migrate_all(cluster.settings)
        await ensure_cluster(cluster.settings)
        key = await create_key(cluster.settings, "test", ["admin"], "none")
        store = await Store.open(cluster.settings)
        stack.push_async_callback(store.shards.close)
        clicked = [f"clicked{number}" for number in range(CLICKED)]
        await store.links.create_many([new_link(code) for code in clicked])
        for start in range(0, LINKS, 1_000):
            await store.links.create_many([new_link(f"link{start + n}") for n in range(1_000)])
        await stack.enter_async_context(programs(cluster))
        accounts = [(await create_account(cluster.settings, name)).account_id for name in ("one", "two")]
        urls = {api: cluster.url(api) for api in API_HOSTS}
        traffic = Traffic(urls, key, accounts, await _codes(cluster), clicked, rng)
        stack.push_async_callback(traffic.close)
        world = World(cluster, traffic, rng, fault_s)
        print(f"up after {time.monotonic() - began:.1f} s", flush=True)
        async with traffic.flowing():
            await world.heals()
            for scenario in SCENARIOS:
                if not names or scenario.__name__ in names:
                    print(await scenario(world), flush=True)
        await prove(world, store)
    print(f"all is well after {time.monotonic() - began:.1f} s", flush=True)


@asynccontextmanager
async def programs(cluster: Machines) -> AsyncIterator[None]:
    """Runs the service and the click consumers on the API hosts, and the migrator on its host."""
    async with AsyncExitStack() as stack:
        for api in API_HOSTS:
            where = {"SNAPURL_HOST": cluster.net.hosts[api].address, "SNAPURL_PORT": str(HTTP_PORT)}
            for name, words in ((f"serve-{api}", "serve"), (f"clicks-{api}", "clicks")):
                await stack.enter_async_context(cluster.program(api, name, "-m", "snapurl", words, **where))
        migrate = (
            "-m",
            "tools.cli",
            "run",
            "--max-rows-per-second",
            str(ROWS_PER_S),
            "--grace-s",
            str(GRACE_S),
        )
        await stack.enter_async_context(cluster.program(MIGRATOR_HOST, "migrator", *migrate))
        await asyncio.gather(*(_answering(cluster, api) for api in API_HOSTS))
        yield


async def _answering(cluster: Machines, api: str) -> None:
    async with asyncio.timeout(HANG_S):
        while True:
            try:
                _, writer = await asyncio.open_connection(cluster.net.hosts[api].address, HTTP_PORT)
            except OSError:
                await asyncio.sleep(0.05)
            else:
                writer.close()
                return


async def _codes(cluster: Machines) -> list[str]:
    """Returns codes for the histories, every other one in a slot that moves to the added shard."""
    fleet = await Fleet.connect(cluster.settings)
    topology = fleet.topology
    await fleet.close()
    then = place(topology.with_shard(Shard("db4", 1.0, address_of(cluster.shards["db4"].dsn()))))
    numbered = [f"k{number}" for number in range(10_000)]
    moving = [code for code in numbered if then[slot_of(code)] == "db4"]
    staying = [code for code in numbered if then[slot_of(code)] in FIRST]
    return list(itertools.chain.from_iterable(zip(moving, staying, strict=False)))


async def prove(world: World, store: Store) -> None:
    """Checks histories, clicks, owners and rows."""
    print(await world.traffic.judge(), flush=True)
    await until_counted(store, world.traffic.clicks)
    print(f"{world.traffic.clicks.total()} clicks, each counted once", flush=True)
    await world.settles()
    async with asyncio.timeout(HANG_S):
        while True:
            code, said = await world.machines.reshard("verify")
            if code == 0:
                break
            assert "two" not in said, said
            await asyncio.sleep(0.5)
    print(f"verify: {said}", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--fault-s", type=float, required=True)
    parser.add_argument("--home", type=Path)
    parser.add_argument("scenarios", nargs="*")
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="snapurl-hosts-") as made:
        asyncio.run(run(asked.seed, asked.scenarios, asked.fault_s, asked.home or Path(made)))


if __name__ == "__main__":
    main()
