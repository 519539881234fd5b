"""The history check: clients use links while the cluster goes from 4 to 6 to 3 shards and migrators are killed.

    python -m tests.drills.history.soak --minutes 10 --seed 7

Eight clients create, change, delete, restore, transfer and read links and their histories through two worker
processes, and visitors follow some.
Meanwhile the topology changes, and each migrator but the last is killed after a random time. In the end each
link's history must be linearizable, every slot on the shard that the ring assigns, and every click counted once,
with what its request said.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import itertools
import os
import random
import sys
import tempfile
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from ring.placement import place
from ring.slots import slot_of
from ring.topology import Shard, Topology
from snapurl.accounts import create_account
from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.dsn import address_of
from snapurl.store.cluster.migrate import migrate_all
from snapurl.store.cluster.pool import CLUSTER
from tests.drills.history.checker import check_history
from tests.drills.history.clients import HttpClient
from tests.drills.history.recorder import Recorder
from tests.faults.pair import new_link, shard_list
from tests.integration.clicks.test_clicks import start_consumer, until_counted
from tests.integration.http.service import Service, running
from tests.integration.store.conftest import Store
from tests.support.click_totals import assert_groups_are_sums, assert_totals_are_sums
from tests.support.programs import Process, start
from tools.change.provision import register_shard
from tools.cluster.fleet import Fleet
from tools.cluster.publish import publish

CLIENTS = 8
WORKERS = 2
CLICKED = 24
FIRST = ("db0", "db1", "db2", "db3")
SETTLE_S = 300.0
# What the requests of visitors say: those of people, of programs, and of some that say nothing.
HEADS = {
    "person": "User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    "Accept-Language: de\r\nReferer: https://news.example/a\r\n",
    "bot": "User-Agent: curl/8.0\r\n",
    "silent": "",
}
TOLD = """
SELECT d.code, t.kind, t.value, sum(t.clicks)::bigint AS clicks
  FROM click_days d,
       clicks_values_v1(clicks_merge_v1(d.sources, coalesce(d.unmerged, '')), NULL, '{language,referrer,channel}') t
 GROUP BY 1, 2, 3
"""

Change = Callable[[Topology], Topology]


@dataclass
class Plan:
    """How long the run takes, how much of the ring moves, and the seed of all random choices.

    `weight` is that of the shards other than db0. With 1.0 most slots move during a run. A short run uses a small
    weight, and links only in slots that move.
    """

    seconds: float
    seed: int
    weight: float


@dataclass
class Figures:
    """Totals of a run."""

    operations: int = 0
    by_outcome: Counter[str] = field(default_factory=Counter)
    by_kind: Counter[str] = field(default_factory=Counter)
    links: int = 0
    clicks: int = 0
    refused_redirects: int = 0
    migrators_killed: int = 0
    topologies: int = 0
    moved: int = 0

    def __str__(self) -> str:
        outcomes, kinds = (
            ", ".join(f"{count} {name}" for name, count in counts.most_common())
            for counts in (self.by_outcome, self.by_kind)
        )
        return (
            f"{self.operations} operations on {self.links} links ({kinds}; {outcomes}); {self.clicks} clicks, "
            f"{self.refused_redirects} redirects refused; "
            f"{self.topologies} topologies, {self.moved} slots moved, {self.migrators_killed} migrators killed"
        )


class Soak:
    """One run on a running cluster."""

    def __init__(self, plan: Plan, settings: Settings, dsns: dict[str, str], directory: Path) -> None:
        self._plan = plan
        self._settings = settings
        self._dsns = dsns
        self._directory = directory
        self._rng = random.Random(plan.seed)
        self._stop = asyncio.Event()
        self._clicks: Counter[str] = Counter()
        self._bots: Counter[str] = Counter()
        self._told: Counter[tuple[str, str, str]] = Counter()  # code, kind, value
        self.figures = Figures()

    async def run(self) -> Figures:
        """Raises AssertionError with what was wrong."""
        await ensure_cluster(self._settings)
        await self._lay_out()
        limits = {"SNAPURL_LIMIT_CREATE": "none", "SNAPURL_LIMIT_MISSING": "none"}
        async with running(self._settings, self._directory, WORKERS, **limits) as service:
            consumer = await start_consumer(self._settings)
            try:
                await self._work(service)
            finally:
                consumer.terminate()
                await consumer.wait()
        return self.figures

    async def _work(self, service: Service) -> None:
        changes = self._changes()
        accounts = [(await create_account(self._settings, name)).account_id for name in ("one", "two")]
        account = service.admin_key.split("_")[1]
        recorder = Recorder(await self._codes(changes), self._rng, account, accounts)
        clients = [HttpClient(service.clients[number % WORKERS]) for number in range(CLIENTS)]
        store = await Store.open(self._settings)
        clicked = [f"clicked{number}" for number in range(CLICKED)]
        await store.links.create_many([new_link(code) for code in clicked])
        async with asyncio.TaskGroup() as group:
            for client in clients:
                group.create_task(recorder.work(client, self._stop))
            for worker in service.workers:
                group.create_task(self._visit(worker.port, clicked))
            group.create_task(self._reshard(changes))
        print(f"{len(recorder.history)} operations are over; settling", flush=True)
        await self._settle()
        await recorder.read_histories(clients)
        self._judge(recorder)
        await until_counted(store, self._clicks)
        await self._check_rows()
        await store.shards.close()

    # -- the cluster -------------------------------------------------------------------------------------------

    async def _lay_out(self) -> None:
        """Sets the initial weights of the four shards while they are still empty, so that nothing has to move."""
        fleet = await Fleet.connect(self._settings)
        topology = fleet.topology
        for name in FIRST[1:]:
            topology = topology.with_weight(name, self._plan.weight)
        owners = place(topology)
        for name in FIRST:
            connection = await fleet.control(name)
            await connection.execute("DELETE FROM slots")
            await connection.execute(
                CLUSTER["put_slots"], [slot for slot, owner in enumerate(owners) if owner == name]
            )
            await connection.execute(CLUSTER["put_topology"], topology.version, topology.to_json())
        await fleet.close()

    def _changes(self) -> list[Change]:
        """Returns the changes from 4 to 6 to 3 shards, with weight changes in between."""
        weight = self._plan.weight

        def add(topology: Topology) -> Topology:
            for name in ("db4", "db5"):
                topology = topology.with_shard(Shard(name, weight, address_of(self._dsns[name])))
            return topology

        def drain(topology: Topology) -> Topology:
            for name in ("db1", "db2", "db4"):
                topology = topology.drained(name)
            return topology

        return [
            add,
            lambda topology: topology.with_weight("db1", weight * 2).with_weight("db4", weight / 2),
            drain,
            lambda topology: topology.with_weight("db5", weight * 1.5),
        ]

    async def _codes(self, changes: list[Change]) -> list[str]:
        """Returns enough codes, all in slots that move."""
        fleet = await Fleet.connect(self._settings)
        topology = fleet.topology
        await fleet.close()
        tables = [place(topology)]
        for change in changes:
            topology = change(topology)
            tables.append(place(topology))
        moving = {slot for slot, owners in enumerate(zip(*tables, strict=True)) if len(set(owners)) > 1}
        self.figures.moved = sum(
            sum(a != b for a, b in zip(before, after, strict=True))
            for before, after in itertools.pairwise(tables)
        )
        wanted = max(100, int(self._plan.seconds * 20))
        found = (code for n in itertools.count() if slot_of(code := f"k{n}") in moving)
        return list(itertools.islice(found, wanted))

    async def _reshard(self, changes: list[Change]) -> None:
        """Publishes each topology when it is due, while a migrator always runs and is often killed."""
        migrating = asyncio.create_task(self._migrate())
        pause_s = self._plan.seconds / (len(changes) + 1)
        try:
            for change in changes:
                await asyncio.sleep(pause_s * self._rng.uniform(0.5, 1.0))
                await self._publish(change)
            await asyncio.sleep(pause_s)
        finally:
            self._stop.set()
            migrating.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await migrating

    async def _publish(self, change: Change) -> None:
        """Publishes like an operator: retries if the migrator published at the same moment."""
        while True:
            fleet = await Fleet.connect(self._settings)
            try:
                await fleet.observe()
                topology = change(fleet.topology)
                fleet.settings = _with_shards(self._settings, self._dsns)
                for name in {shard.name for shard in topology.shards} - set(FIRST):
                    await register_shard(fleet, name, topology)
                await publish(fleet, topology)
                self.figures.topologies += 1
                return
            except ConfigError as error:
                assert "somebody else" in error.detail, error
            finally:
                await fleet.close()

    async def _migrate(self) -> None:
        """Runs migrators one after another, and kills each after a random time unless it has finished."""
        while True:
            process = await self._migrator()
            try:
                await asyncio.wait_for(process.wait(), self._rng.uniform(0.8, 3.0))
            except TimeoutError:
                with contextlib.suppress(ProcessLookupError):  # it exited at the same moment
                    process.kill()
                    self.figures.migrators_killed += 1
            finally:
                if process.returncode is None:
                    with contextlib.suppress(ProcessLookupError):
                        process.kill()
                await process.wait()

    async def _migrator(self) -> Process:
        for dsn in self._dsns.values():  # a killed migrator's lease: the test need not wait for its expiry
            connection = await asyncpg.connect(dsn)
            await connection.execute("DELETE FROM migrator")
            await connection.close()
        return await start(
            "tests.faults.run_migrator",
            env={**os.environ, "SNAPURL_SHARDS": shard_list(self._dsns)},
            stderr=(self._directory / "migrator.log").open("ab"),
        )

    async def _settle(self) -> None:
        process = await self._migrator()
        try:
            await asyncio.wait_for(process.wait(), SETTLE_S)
        finally:
            if process.returncode is None:
                process.kill()
        assert process.returncode == 0, (self._directory / "migrator.log").read_text()[-4_000:]

    # -- the visitors ------------------------------------------------------------------------------------------

    async def _visit(self, port: int, codes: list[str]) -> None:
        """Follows links over one connection and counts what was answered."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        while not self._stop.is_set():
            code, who = self._rng.choice(codes), self._rng.choice(list(HEADS))
            writer.write(f"GET /{code} HTTP/1.1\r\nHost: s\r\n{HEADS[who]}\r\n".encode())
            head = await reader.readuntil(b"\r\n\r\n")
            if head.startswith(b"HTTP/1.1 503 "):  # uncached, and the slot's migrator was just killed
                await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
                self.figures.refused_redirects += 1
            else:
                assert head.startswith(b"HTTP/1.1 302 "), head
                self._count(code, who)
            await asyncio.sleep(0.005)
        writer.close()

    def _count(self, code: str, who: str) -> None:
        self._clicks[code] += 1
        if who == "bot":
            self._bots[code] += 1
            return
        self._told[code, "channel", "link"] += 1
        if who == "person":
            self._told[code, "language", "de"] += 1
            self._told[code, "referrer", "news.example"] += 1

    # -- the proof ---------------------------------------------------------------------------------------------

    def _judge(self, recorder: Recorder) -> None:
        figures = self.figures
        figures.operations = len(recorder.history)
        figures.by_outcome = Counter(operation.outcome.value for _, operation in recorder.history)
        figures.by_kind = Counter(operation.kind.value for _, operation in recorder.history)
        figures.links = len({code for code, _ in recorder.history})
        figures.clicks = self._clicks.total()
        wrong = check_history(recorder.history)
        for code, why in list(wrong.items())[:10]:
            print(f"{code} (slot {slot_of(code)}): {why}", file=sys.stderr)
        assert not wrong, f"{len(wrong)} histories are not linearizable; TEST_SEED={self._plan.seed}"

    async def _check_rows(self) -> None:
        """Checks that the ring's shard owns each slot, and that each row is on the owner of its slot."""
        fleet = await Fleet.connect(self._settings)
        try:
            seen = await fleet.observe()
            assert not seen.ownership.contested
            assert [owner.shard for owner in seen.ownership.owners if owner] == list(seen.placement)
            assert [shard.name for shard in seen.topology.shards] == ["db0", "db3", "db5"]
            shards = {name: await asyncpg.connect(dsn) for name, dsn in self._dsns.items()}
            await assert_groups_are_sums(shards.values())
            bots: Counter[str] = Counter()
            told: Counter[tuple[str, str, str]] = Counter()
            for name, connection in shards.items():
                for row in await connection.fetch("SELECT code, bots FROM click_totals WHERE bots > 0"):
                    bots[row["code"]] += row["bots"]
                for row in await connection.fetch(TOLD):
                    told[row["code"], row["kind"], row["value"]] += row["clicks"]
                slots = {row["slot"] for row in await connection.fetch("SELECT DISTINCT slot FROM links")}
                await assert_totals_are_sums(connection)
                await connection.close()
                assert {seen.placement[slot] for slot in slots} <= {name}, f"{name} has rows of others"
            assert (bots, told) == (self._bots, self._told)
        finally:
            await fleet.close()


def _with_shards(settings: Settings, dsns: dict[str, str]) -> Settings:
    return settings.model_copy(update={"shards": type(settings.shards)(shard_list(dsns))})


@contextlib.asynccontextmanager
async def six_shards(cluster: LocalCluster, database: str) -> AsyncIterator[dict[str, str]]:
    """Yields name -> DSN of six databases on the four servers, migrated where the service does not do it."""
    homes = {name: FIRST[number % 4] for number, name in enumerate((*FIRST, "db4", "db5"))}
    names = {name: f"{database}_{name}" for name in homes}

    async def administer(statement: Callable[[str], str]) -> None:
        for name, home in homes.items():
            connection = await asyncpg.connect(cluster.shard(home).dsn("postgres"))
            await connection.execute(statement(names[name]))
            await connection.close()

    await administer(lambda name: f"CREATE DATABASE {name}")
    yield {name: cluster.shard(home).dsn(names[name]) for name, home in homes.items()}
    await administer(lambda name: f"DROP DATABASE {name} WITH (FORCE)")


async def soak(plan: Plan, cluster: LocalCluster, redis_url: str, directory: Path) -> Figures:
    """Executes one run on newly created databases."""
    print(f"TEST_SEED={plan.seed}", flush=True)
    async with six_shards(cluster, f"soak_{os.getpid()}") as dsns:
        first = {name: dsns[name] for name in FIRST}
        settings = load_settings(shards=shard_list(first), redis_url=redis_url, home=directory)
        await migrate_all(_with_shards(settings, dsns))
        return await Soak(plan, settings, dsns, directory).run()


async def _alone(plan: Plan) -> None:
    with tempfile.TemporaryDirectory(prefix="snapurl-soak-") as home:
        async with LocalCluster(Path(home) / "cluster", durable=False, loopback=True) as cluster:
            print(await soak(plan, cluster, cluster.redis.url(0), Path(home)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Checks histories while the cluster is resharded.")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--seed", type=int, default=None)
    asked = parser.parse_args()
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    asyncio.run(_alone(Plan(asked.minutes * 60, seed, weight=1.0)))


if __name__ == "__main__":
    main()
