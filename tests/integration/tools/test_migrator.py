"""Shards added, drained and re-weighted while links are written."""

from __future__ import annotations

import asyncio
import itertools
import math
import time
from datetime import date
from typing import Any
from uuid import uuid4

import asyncpg
import pytest

from ring.handoff import Desired, SourceState, Step, TargetState, next_steps
from ring.placement import place
from ring.slots import SLOT_COUNT, slot_of
from ring.topology import Shard
from snapurl.codes import key_of
from snapurl.config import Settings
from snapurl.model import ClickRow, Link, LinkPatch, LinkQuery, PageKey, SourceClicks, SourceKind
from snapurl.run.healthcheck import Address
from snapurl.store.cluster.dsn import address_of
from snapurl.store.cluster.tables import sharded_tables
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.tools.conftest import add_fifth, settle
from tests.support.click_rows import by_kind
from tests.support.waits import HANG_S
from tools.change.provision import register_shard
from tools.cluster.fleet import Fleet
from tools.cluster.publish import publish
from tools.cluster.snapshot import Snapshot
from tools.migrator.lease import Lease
from tools.migrator.loop import Migrator, Options
from tools.migrator.throttle import Throttle
from tools.transfer.batch import Batch
from tools.transfer.executor import Executor, ShardPair


async def all_codes(store: Store) -> list[str]:
    codes: list[str] = []
    before = None
    while page := (await store.links.page(LinkQuery(), 500, before)).links:
        codes += [link.code for link in page]
        before = PageKey(page[-1].created_at, page[-1].code)
    return codes


async def assert_settled(settings: Settings, store: Store, codes: set[str]) -> None:
    """Asserts that the ring's shard owns each slot, that each link is on exactly one shard, and none is missing."""
    fleet = await Fleet.connect(settings)
    try:
        snapshot = await fleet.observe()
        assert [owner.shard for owner in snapshot.ownership.owners if owner] == list(place(snapshot.topology))
        found: list[str] = []
        for name in snapshot.rows:
            rows = await fleet.fetch(name, "SELECT code FROM links")
            assert all(snapshot.placement[slot_of(row["code"])] == name for row in rows)
            found += [row["code"] for row in rows]
        assert len(found) == len(set(found))
        assert set(found) == codes
        assert sorted(await all_codes(store)) == sorted(codes)
    finally:
        await fleet.close()


async def test_adding_a_shard_moves_a_fifth_of_the_slots_and_loses_nothing(
    ready: Settings, five: Settings, fifth: str, store: Store, new_link: NewLinkMaker
) -> None:
    """A fifth shard gets 20 % +- 1 % of the slots while links are written, and no other slot moves; clicks and
    their sources move with their links, of each domain."""
    old = [key_of(domain, f"old{n}") for n in range(1_500) for domain in ("", "go.example.org")]
    for start in range(0, 3_000, 500):
        answers = await store.links.create_many([new_link(key) for key in old[start : start + 500]])
        assert {type(answer) for answer in answers} == {Link}
    clicked = old[:200]
    told = (SourceClicks(SourceKind.BROWSER, "firefox", 2), SourceClicks(SourceKind.REFERRER, "x", 2))
    rows: dict[int, list[ClickRow]] = {}
    for code in clicked:
        row = ClickRow(slot_of(code), 1, code, date(2026, 5, 1), 2, by_kind(told))
        rows.setdefault(row.slot, []).append(row)
    assert await store.apply_clicks("s", rows) == rows.keys()
    fleet = await add_fifth(ready, five, fifth)
    before = (await fleet.observe()).ownership.owners
    stop = asyncio.Event()
    made: set[str] = set()

    async def write(writer: int) -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            code = f"w{writer}-{number}"
            assert isinstance(await store.links.create(new_link(code)), Link)
            made.add(code)
            assert (await store.links.get(code)) is not None
            victim = old[(number * 7 + writer) % 3_000]
            changed = await store.links.change(
                victim, LinkPatch(title=code), if_match=None, owner=None, token=new_link("x").token
            )
            found = await store.links.get(victim)
            assert found is not None
            assert found.version >= changed.version

    writers = [asyncio.create_task(write(writer)) for writer in range(4)]
    migrator = await settle(five)
    stop.set()
    await asyncio.gather(*writers)
    after = (await fleet.observe()).ownership.owners
    moved = [slot for slot in range(SLOT_COUNT) if before[slot] != after[slot]]
    assert 0.19 <= len(moved) / SLOT_COUNT <= 0.21
    assert {owner.shard for slot in moved if (owner := after[slot])} == {"db4"}
    assert migrator.current_status().pauses.count > 0
    for code in clicked:
        assert [await store.told(code, each.kind) for each in told] == [{"firefox": 2}, {"x": 2}]
        assert await store.clicks_of(code) == 2
        link = await store.links.get(code)
        assert link is not None and link.clicks == 2
    assert {slot_of(code) for code in clicked} & set(moved)
    await assert_settled(five, store, {*old, *made})
    await fleet.close()


async def test_a_publication_that_has_reached_only_one_shard_is_completed(
    ready: Settings, five: Settings, fifth: str
) -> None:
    """A migrator that sees a new topology before the new shard has any gets its lease there, and gives it slots."""
    fleet = await Fleet.connect(ready)
    fleet.settings = five
    topology = fleet.topology.with_shard(Shard("db4", 1.0, address_of(fifth)))
    await register_shard(fleet, "db4", topology)
    insert = "INSERT INTO topology (version, document) VALUES ($1, $2)"
    await fleet.fetch("db0", insert, topology.version, topology.to_json())
    fleet.adopt(topology)
    assert await Lease(fleet, uuid4(), time.monotonic).renew("{}")
    for shard in topology.shards:
        await fleet.fetch(shard.name, "DELETE FROM migrator")
    await settle(five)
    owned = "SELECT count(*) AS slots FROM slots WHERE state = 'owned'"
    assert (await fleet.observe()).topology.version == topology.version
    assert (await fleet.fetch("db4", owned))[0]["slots"]
    await fleet.close()


async def test_draining_empties_a_shard_and_lets_go_of_it(
    ready: Settings, store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A drained shard ends without rows and slots and leaves the topology, and no link is lost."""
    codes = {f"d{n}" for n in range(500)}
    await store.links.create_many([new_link(code) for code in sorted(codes)])
    fleet = await Fleet.connect(ready)
    await publish(fleet, fleet.topology.drained("db1"))
    await settle(ready)
    await assert_settled(ready, store, codes)
    assert await direct["db1"].fetchval("SELECT count(*) FROM links") == 0
    assert await direct["db1"].fetchval("SELECT count(*) FROM slots WHERE state <> 'released'") == 0
    topology = (await fleet.observe()).topology
    assert [shard.name for shard in topology.shards] == ["db0", "db2", "db3"]
    await fleet.close()


async def test_cancelling_moves_back_what_had_moved(
    ready: Settings, five: Settings, fifth: str, store: Store, new_link: NewLinkMaker
) -> None:
    """Publishing the previous topology moves every slot back to where it was, with its newest rows."""
    codes = {f"c{n}" for n in range(300)}
    await store.links.create_many([new_link(code) for code in sorted(codes)])
    previous = store.shards.topology
    fleet = await add_fifth(ready, five, fifth)
    stop = asyncio.Event()
    migrator = Migrator(five, Options(grace_s=0.0))
    running = asyncio.create_task(migrator.run(stop))
    while not (await fleet.fetch("db4", "SELECT count(*) AS n FROM slots WHERE state = 'owned'"))[0]["n"]:
        await asyncio.sleep(0.02)
    await publish(fleet, (await fleet.observe()).topology.back_to(previous))
    for code in list(codes)[:50]:
        await store.links.change(
            code, LinkPatch(title="new"), if_match=None, owner=None, token=new_link("x").token
        )
    stop.set()
    await running
    await settle(five)
    await assert_settled(five, store, codes)
    assert [shard.name for shard in (await fleet.observe()).topology.shards] == ["db0", "db1", "db2", "db3"]
    for code in list(codes)[:50]:
        found = await store.links.get(code)
        assert found is not None
        assert found.title == "new"
    await fleet.close()


async def test_it_tells_how_far_a_copy_is_behind(
    ready: Settings, store: Store, new_link: NewLinkMaker
) -> None:
    """A catch-up counts the rows that it transfers because they changed while their slots were copied."""
    owners = place(store.shards.topology)
    codes = [code for n in range(400) if owners[slot_of(code := f"late{n}")] == "db0"][:40]
    await store.links.create_many([new_link(code) for code in codes])
    slots = tuple(sorted({slot_of(code) for code in codes}))
    dsns = {item.name: item.dsn for item in ready.shard_dsns}
    ends = ShardPair(await asyncpg.connect(dsns["db0"]), await asyncpg.connect(dsns["db1"]), ())
    ends.tables = await sharded_tables(ends.source)
    executor = Executor(Batch("db0", "db1", slots, (1,) * len(slots)), ends)
    program = next_steps(Desired.MOVE, SourceState.OWNED, TargetState.ABSENT)
    copied = program.index(Step.COPY) + 1
    await executor.run(program[:copied])
    assert (executor.rows, executor.behind) == (40, 0)
    for code in codes[:3]:
        await store.links.change(
            code, LinkPatch(title="new"), if_match=None, owner=None, token=new_link("x").token
        )
    await executor.run(program[copied : program.index(Step.CATCH_UP) + 1])
    assert (executor.rows, executor.behind) == (46, 6)  # each change has a row in the history
    await executor.run(program[program.index(Step.CATCH_UP) + 1 :])
    for code in codes[:3]:
        found = await store.links.get(code)
        assert found is not None and found.title == "new"
    await ends.source.close()
    await ends.target.close()


async def test_it_rests_while_the_service_is_slow(
    ready: Settings, five: Settings, fifth: str, store: Store, new_link: NewLinkMaker
) -> None:
    """While the service answers slowly, a migrator with work left reports that this throttles it."""
    await store.links.create_many([new_link(f"c{n}") for n in range(3_000)])

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        await asyncio.sleep(0.15)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    slow = await asyncio.start_server(answer, "127.0.0.1", 0)
    host, port = slow.sockets[0].getsockname()
    await (await add_fifth(ready, five, fifth)).close()
    # 600 links at one per second: the move takes long enough to measure the service. The shards may be slow, too.
    slowly = Throttle(rows_per_s_max=1, p99_ms_max=math.inf)
    migrator = Migrator(five, Options(grace_s=0.0, throttle=slowly, service=Address(host, port)))
    stop = asyncio.Event()
    async with slow, asyncio.TaskGroup() as group, asyncio.timeout(HANG_S):
        group.create_task(migrator.run(stop))
        while not migrator.current_status().throttle.startswith("p99 of the service is "):
            await asyncio.sleep(0.02)
        assert migrator.current_status().slots_left, "it was to be held back"
        stop.set()


async def test_rows_that_wait_for_their_grace_period_cost_little_and_delay_no_new_goal(
    ready: Settings,
    five: Settings,
    fifth: str,
    store: Store,
    new_link: NewLinkMaker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """During the grace period of old rows the migrator rarely polls the shards, but executes a new goal at once."""
    monkeypatch.setattr("tools.migrator.loop.GRACE_POLL_S", 600.0)
    await store.links.create_many([new_link(f"g{n}") for n in range(300)])
    fleet = await add_fifth(ready, five, fifth)
    observed = 0
    observe = Fleet.observe

    async def counted(self: Fleet) -> Snapshot:
        nonlocal observed
        observed += self.application.startswith("snapurl-migrator")
        return await observe(self)

    monkeypatch.setattr(Fleet, "observe", counted)
    migrator = Migrator(five, Options(grace_s=600.0))
    stop = asyncio.Event()
    async with asyncio.TaskGroup() as group, asyncio.timeout(HANG_S):
        group.create_task(migrator.run(stop))
        while not migrator.current_status().orphans:
            await asyncio.sleep(0.02)
        before = observed
        await asyncio.sleep(1)
        assert observed - before <= 1
        await publish(fleet, (await fleet.observe()).topology.drained("db4"))
        while migrator.current_status().state != "moving":
            await asyncio.sleep(0.02)
        stop.set()
    await fleet.close()
