"""Two shards between which a few slots move back and forth, under writers that record acknowledged writes.

Each move follows a change of one weight so small that about a dozen slots move. The slots that came in
one move leave in the next, so every second move is the way back of an A -> B -> A.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
import uuid
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

import asyncpg

import tools.migrator.loop
from ring.ownership import SlotState
from ring.placement import place
from ring.slots import slot_of
from snapurl.config import Settings, load_settings
from snapurl.errors import OutcomeUnknown, Unavailable
from snapurl.local.cluster import LocalCluster
from snapurl.local.postgres_server import PostgresServer
from snapurl.model import Account, ApiKey, Link, LinkFields, LinkPatch, NewLink, Right
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.faults.clicks import Clicks
from tests.faults.wire import Wire, wire_to
from tests.integration.store.conftest import Store
from tests.support import programs
from tests.support.waits import HANG_S, PATIENT
from tools.cluster.fleet import Fleet
from tools.cluster.publish import publish
from tools.migrator.loop import Migrator, Options

NAMES = ("db0", "db1")
WEIGHTS = (1.0, 1.004)
CODES_PER_SLOT = 40
CLICKED = 4  # links, each in a slot of its own


def shard_list(dsns: dict[str, str]) -> str:
    return " ".join(f"{name}={dsn}" for name, dsn in dsns.items())


def new_link(code: str, url: str = "https://example.org/") -> NewLink:
    return NewLink(code, LinkFields(url), "", uuid.uuid4())


def codes_in(slots: set[int]) -> dict[int, Iterator[str]]:
    """Returns an endless iterator of codes for each slot, by slot."""

    def of(slot: int) -> Iterator[str]:
        return (code for n in itertools.count() if slot_of(code := f"c{n}") == slot)

    return {slot: of(slot) for slot in sorted(slots)}


@dataclass
class Traffic:
    """Writers that create, change and transfer a few links and record every acknowledged write, and their clicks.

    A write with an unknown outcome may or may not be found later; any other failure fails the test.
    """

    store: Store
    fresh: Iterator[str]
    clicks: Clicks
    acked: dict[str, tuple[int, str | None]] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)

    async def create(self) -> None:
        code = next(self.fresh)
        self.unknown.add(code)
        with contextlib.suppress(Unavailable, OutcomeUnknown):
            assert isinstance(await self.store.links.create(new_link(code)), Link)
            self.acked[code] = (1, None)
            found = await self.store.links.get(code)
            assert found is not None, f"{code} was acknowledged and is not there"

    async def change(self, code: str, title: str) -> None:
        with contextlib.suppress(Unavailable, OutcomeUnknown):
            link = await self.store.links.change(
                code, LinkPatch(title=title), if_match=None, owner=None, token=uuid.uuid4()
            )
            before = self.acked.get(code, (0, None))[0]
            assert link.version > before, f"{code} went back from version {before} to {link.version}"
            self.acked[code] = (link.version, title)

    async def transfer(self, code: str, account: str) -> None:
        with contextlib.suppress(Unavailable, OutcomeUnknown):
            link = await self.store.links.transfer(code, account, if_match=None, by="", token=uuid.uuid4())
            assert link.owner == account
            assert link.version > self.acked[code][0]
            self.acked[code] = (link.version, link.title)

    async def _writer(self, number: int) -> None:
        """Writes to links that no other writer uses, so the last acknowledged version is known."""
        mine = list(self.acked)[number::2]
        for count in itertools.count():
            await self.change(mine[count % len(mine)], f"{number}-{count}")
            await asyncio.sleep(0.004)
            if count % 8 == 0:
                await self.create()
            if count % 8 == 4:
                await self.transfer(mine[count % len(mine)], f"account-{uuid.uuid4()}")

    @contextlib.asynccontextmanager
    async def flowing(self) -> AsyncIterator[None]:
        """Runs two writers and the clicks during the block, and raises the errors that they found."""
        writers = [asyncio.create_task(self._writer(number)) for number in range(2)]
        writers.append(asyncio.create_task(self.clicks.deliver()))
        try:
            yield
        finally:
            for writer in writers:
                writer.cancel()
            outcomes = await asyncio.gather(*writers, return_exceptions=True)
        for outcome in outcomes:
            if not isinstance(outcome, asyncio.CancelledError) and isinstance(outcome, BaseException):
                raise outcome


class Process:
    """A migrator in its own process, which connects through the wires."""

    def __init__(self, process: programs.Process) -> None:
        self._process = process
        self.ended = asyncio.create_task(self._end())

    async def _end(self) -> str:
        """Returns all output of the process."""
        assert self._process.stderr is not None
        said = await self._process.stderr.read()
        await self._process.wait()
        return said.decode()

    def signal(self, signum: int) -> None:
        self._process.send_signal(signum)

    async def kill(self) -> None:
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
        await self.ended

    async def finishes(self) -> None:
        """Asserts that the migrator completes everything without help and exits with 0."""
        try:
            said = await asyncio.wait_for(asyncio.shield(self.ended), HANG_S)
        except TimeoutError:
            await self.kill()
            raise AssertionError(f"the migrator is not done:\n{self.ended.result()}") from None
        assert self._process.returncode == 0, said


class Pair:
    """The two shards, their wires, the slots that move back and forth, and the traffic on them."""

    def __init__(
        self, cluster: LocalCluster, settings: Settings, wires: dict[str, Wire], database: str
    ) -> None:
        self.cluster = cluster
        self.settings = settings
        self.wires = wires
        self.whole = True
        self.slots: set[int] = set()
        self.traffic: Traffic
        self._database = database
        self._processes: list[Process] = []

    async def open(self) -> None:
        await migrate_all(self.settings)
        await ensure_cluster(self.settings)
        store = await Store.open(self.settings)
        topology = store.shards.topology
        here, there = place(topology), place(topology.with_weight("db1", WEIGHTS[1]))
        self.slots = {slot for slot, name in enumerate(here) if name != there[slot]}
        codes = codes_in(self.slots)
        clicked = [next(codes[slot]) for slot in sorted(self.slots)[:CLICKED]]
        fresh = itertools.chain.from_iterable(zip(*codes.values(), strict=True))
        self.traffic = Traffic(store, fresh, Clicks(store, clicked))
        for _ in range(2 * len(self.slots)):
            await self.traffic.create()
        for slot in self.slots:
            at, row_id = (
                datetime.now(UTC),
                next(code for n in itertools.count() if slot_of(code := f"{n:010}") == slot),
            )
            assert await store.accounts.add(Account(row_id, "team", at, ""))
            assert await store.keys.add(ApiKey(row_id, "key", b"hash", frozenset({Right.READ}), "", at, None))

    async def close(self) -> None:
        for process in self._processes:  # also one that a test left behind as it failed
            await process.kill()
        await self.traffic.store.shards.close()

    # -- moves -------------------------------------------------------------------------------------------------

    async def reverse(self) -> tuple[str, str]:
        """Publishes the topology that sends the slots to the other shard. Returns source and target."""
        fleet = await Fleet.connect(self.settings)
        now = fleet.topology.shard("db1").weight
        await publish(fleet, fleet.topology.with_weight("db1", WEIGHTS[now == WEIGHTS[0]]))
        await fleet.close()
        return NAMES if now == WEIGHTS[0] else NAMES[::-1]

    async def leave_debris(self, name: str) -> None:
        """Leaves rows on a shard that does not own the slots, as a killed migrator would."""
        connection = await self.connect(name)
        for code in ["debris", *itertools.islice(self.traffic.acked, 5)]:
            await connection.execute(
                "INSERT INTO links (slot, code, version, url, tags, redirect_status, created_at, owner, token)"
                " SELECT s, $2, 9999, 'https://debris.example/', '{}', 302, now(), '', gen_random_uuid()"
                " FROM unnest($1::smallint[]) s ON CONFLICT DO NOTHING",
                sorted(self.slots) if code == "debris" else [slot_of(code)],
                code,
            )
        await connection.close()

    async def connect(self, name: str) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(self.cluster.shard(name).dsn(self._database))

    async def process(self) -> Process:
        """Returns a migrator that has just begun, connected through the wires."""
        await self.forget_lease()
        through = {
            name: f"{self._credentials(name)}@127.0.0.1:{wire.port}/{self._database}"
            for name, wire in self.wires.items()
        }
        environ = {
            **os.environ,
            "SNAPURL_SHARDS": shard_list(through),
            **{f"SNAPURL_{name.upper()}": str(value) for name, value in PATIENT.items()},
        }
        process = Process(
            await programs.start("tests.faults.run_migrator", env=environ, stderr=programs.PIPE)
        )
        self._processes.append(process)
        return process

    def _credentials(self, name: str) -> str:
        return self.cluster.shard(name).dsn(self._database).rpartition("@")[0]

    async def forget_lease(self) -> None:
        """Deletes the lease, so that the next migrator need not wait until it expires."""
        for name in NAMES:
            connection = await self.connect(name)
            await connection.execute("DELETE FROM migrator")
            await connection.close()

    async def settle(self) -> Migrator:
        """Runs a new migrator with direct connections until nothing is left to do."""
        await self.forget_lease()
        migrator = Migrator(self.settings, Options(grace_s=0.0))
        try:
            await asyncio.wait_for(migrator.run(asyncio.Event(), until_settled=True), HANG_S)
        except TimeoutError:
            raise AssertionError(f"not settled: {migrator.current_status()}") from None
        return migrator

    async def crash(self, name: str) -> None:
        """Stops a server in immediate mode, and starts it again."""
        server: PostgresServer = self.cluster.shard(name)
        port = server.port
        assert server.pid is not None
        os.kill(server.pid, signal.SIGQUIT)
        while server.pid is not None:
            await asyncio.sleep(0.01)
        await server.start()
        assert server.port == port, "another program took the port of a server while it was down"

    # -- checks ------------------------------------------------------------------------------------------------

    async def check(self) -> None:
        """Asserts that ownership matches the ring, each row is in one shard, and no acknowledged write is lost."""
        fleet = await Fleet.connect(self.settings)
        try:
            snapshot = await fleet.observe()
            assert not snapshot.ownership.contested
            assert [owner.shard for owner in snapshot.ownership.owners if owner] == list(snapshot.placement)
            states = {row.state for rows in snapshot.rows.values() for row in rows}
            assert states <= {SlotState.OWNED, SlotState.RELEASED}
            found: dict[str, tuple[int, str | None]] = {}
            changes: list[tuple[str, int]] = []
            for name in snapshot.rows:
                for row in await fleet.fetch(name, "SELECT slot, code, version, title FROM links"):
                    assert snapshot.placement[row["slot"]] == name, f"{name} still has {row['code']}"
                    assert row["code"] not in found, f"{row['code']} is in both shards"
                    found[row["code"]] = (row["version"], row["title"])
                history = await fleet.fetch(name, "SELECT code, version FROM link_history")
                changes += [(row["code"], row["version"]) for row in history]
            kept = [(code, at) for code, (top, _) in found.items() for at in range(max(2, top - 99), top + 1)]
            assert sorted(changes) == sorted(kept), "a change is not in the history, or is twice"
            for table in ("accounts", "api_keys"):
                rows = [await fleet.fetch(name, f"SELECT slot FROM {table}") for name in snapshot.rows]
                assert sorted(row["slot"] for part in rows for row in part) == sorted(self.slots), table
            await self.traffic.clicks.check([await fleet.control(name) for name in snapshot.rows])
        finally:
            await fleet.close()
        self._compare(found)

    def _compare(self, found: dict[str, tuple[int, str | None]]) -> None:
        traffic = self.traffic
        assert found.keys() <= traffic.acked.keys() | traffic.unknown, "rows that no client wrote"
        for code, (version, title) in traffic.acked.items():
            there = found.get(code)
            assert there is not None, f"{code} is lost"
            assert there[0] >= version, f"{code} was acknowledged at {version} and is at {there[0]}"
            assert there[0] != version or there[1] == title, f"{code}@{version} is not what was written"
        traffic.acked.update({code: found[code] for code in traffic.acked})


@contextlib.asynccontextmanager
async def open_pair(cluster: LocalCluster, database: str) -> AsyncIterator[Pair]:
    """Yields a pair in new databases on the servers of db0 and db1."""
    pace = tools.migrator.loop.IDLE_S, tools.migrator.loop.HEARTBEAT_S
    tools.migrator.loop.IDLE_S, tools.migrator.loop.HEARTBEAT_S = 0.05, 0.1  # as in run_migrator
    for name in NAMES:
        await _administer(cluster, name, f"CREATE DATABASE {database}")
    async with contextlib.AsyncExitStack() as stack:
        wires = {
            name: await stack.enter_async_context(wire_to("127.0.0.1", cluster.shard(name).port))
            for name in NAMES
        }
        shards = shard_list({name: cluster.shard(name).dsn(database) for name in NAMES})
        pair = Pair(cluster, load_settings(shards=shards, **PATIENT), wires, database)
        await pair.open()
        yield pair
        await pair.close()
    tools.migrator.loop.IDLE_S, tools.migrator.loop.HEARTBEAT_S = pace
    for name in NAMES:
        await _administer(cluster, name, f"DROP DATABASE {database} WITH (FORCE)")


async def _administer(cluster: LocalCluster, name: str, statement: str) -> None:
    connection = await asyncpg.connect(cluster.shard(name).dsn("postgres"))
    await connection.execute(statement)
    await connection.close()
