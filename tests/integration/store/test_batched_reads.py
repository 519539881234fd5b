"""Concurrent reads for redirects are batched per shard, and each gets its own answer."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any
from urllib.parse import urlsplit

import pytest

from ring.slots import slot_of
from snapurl.config import Settings, load_settings
from snapurl.errors import Unavailable
from snapurl.model import MISSING, CachedLink, LinkOptions, LinkPatch, in_ms
from snapurl.store.batching import reads
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.store.test_router import hand_over
from tests.integration.store.test_silent_shard import through_proxy
from tests.support.tcp_proxy import Proxy, proxy_to
from tests.support.waits import BUSY_S, HANG_S, PATIENT, until

ROWS = 50_000


def codes_at(store: Store, name: str) -> Iterator[str]:
    """Yields codes whose slots the shard owns."""
    return (f"r{n}" for n in itertools.count() if store.shards.map.owner(slot_of(f"r{n}")) == name)


def find(store: Store, code: str) -> asyncio.Task[CachedLink]:
    """Starts a read."""
    return asyncio.create_task(store.links._reads.find(code))


def some(store: Store, name: str, count: int) -> list[str]:
    return list(itertools.islice(codes_at(store, name), count))


class Queries:
    """Counts the queries that a store sends, by the number of links in each."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.sizes: list[int] = []
        query = reads._rows

        async def counted(pool: Any, items: Any) -> Any:
            self.sizes.append(len(items))
            return await query(pool, items)

        monkeypatch.setattr(reads, "_rows", counted)


@pytest.fixture
def queries(monkeypatch: pytest.MonkeyPatch) -> Queries:
    return Queries(monkeypatch)


async def create(store: Store, new_link: NewLinkMaker, codes: list[str]) -> None:
    await store.links.create_many([new_link(code, f"https://{code}.example/") for code in codes])


async def test_concurrent_reads_take_few_queries(
    store: Store, new_link: NewLinkMaker, queries: Queries
) -> None:
    """Three hundred concurrent reads take one query per shard, and each gets its own answer."""
    codes = [f"m{n}" for n in range(300)]
    await create(store, new_link, codes[::2])
    found = await asyncio.gather(*map(store.links.find, codes))
    assert [link.url for link in found[::2]] == [f"https://{code}.example/" for code in codes[::2]]
    assert all(link is MISSING for link in found[1::2])
    assert len(queries.sizes) == 4
    assert sum(queries.sizes) == 300


async def test_reads_that_arrive_during_a_query_share_the_next(
    store: Store, new_link: NewLinkMaker, queries: Queries
) -> None:
    """A single read is sent at once; the reads that arrive before its answer share the next query."""
    first, *others = some(store, "db0", 41)
    await create(store, new_link, [first, *others])
    alone = find(store, first)
    while not queries.sizes:
        await asyncio.sleep(0)
    assert queries.sizes == [1]
    found = await asyncio.gather(alone, *map(store.links.find, others))
    assert all(link.version == 1 for link in found)
    assert queries.sizes == [1, 40]


async def test_a_batched_read_returns_what_the_cache_keeps(store: Store, new_link: NewLinkMaker) -> None:
    """A batched read returns the same as a read of the whole row: URL, status, version, expiry, deleted or not,
    options."""
    whole = []
    later = datetime(2099, 1, 31, 12, 0, 0, 123_999, UTC)
    for number, code in enumerate(
        codes := [
            "plain",
            "brief",
            "gone",
            "changed",
            "off",
            "late",
            "elsewhere",
            "onwards",
            "deeper",
            "few",
            "closed",
            "forked",
        ]
    ):
        expires = None if number != 1 else datetime.now(UTC) + timedelta(hours=1)
        options: dict[str, dict[str, Any]] = {
            "off": {"enabled": False},
            "late": {"starts_at": later},
            "elsewhere": {"expired_url": "https://over.example/"},
            "onwards": {"forward_query": True},
            "deeper": {"forward_path": True},
            "few": {"max_clicks": 3},
            "closed": {"password_hash": "$argon2id$"},
            "forked": {"rules": "[]"},
        }
        await store.links.create(
            new_link(code, redirect_status=307, expires_at=expires, **options.get(code, {}))
        )
    await store.links.delete("gone", if_match=None, owner=None, token=new_link("x").token)
    change = LinkPatch(url="https://new.example/")
    await store.links.change("changed", change, if_match=None, owner=None, token=new_link("x").token)
    for code in codes:
        link = await store.links.get(code)
        assert link is not None
        whole.append(CachedLink.from_link(link))
    assert await asyncio.gather(*map(store.links.find, codes)) == whole
    assert [link.version for link in whole] == [1, 1, 2, 2, *[1] * 8]
    assert whole[1].expires_at_ms is not None
    assert whole[2].deleted
    assert [link.options for link in whole] == [
        None,
        None,
        None,
        None,
        LinkOptions(enabled=False),
        LinkOptions(starts_at_ms=in_ms(later)),
        LinkOptions(expired_url="https://over.example/"),
        LinkOptions(forward_query=True),
        LinkOptions(forward_path=True),
        LinkOptions(max_clicks=3),
        LinkOptions(password_hash="$argon2id$"),
        LinkOptions(rules="[]"),
    ]


async def test_a_read_is_never_older_than_its_start(store: Store, new_link: NewLinkMaker) -> None:
    """While a link keeps changing, each read returns at least the version acknowledged before the read began."""
    code, *others = some(store, "db1", 20)
    await create(store, new_link, [code, *others])
    acknowledged = 1
    reads = 0
    writing = True

    async def write() -> None:
        nonlocal acknowledged, writing
        for number in count(1):
            change = LinkPatch(url=f"https://{number}.example/")
            link = await store.links.change(
                code, change, if_match=None, owner=None, token=new_link("x").token
            )
            acknowledged = link.version
            if number >= 150 and reads > 100:
                break
        writing = False

    async def read() -> None:
        nonlocal reads
        while writing:
            least = acknowledged
            assert (await store.links.find(code)).version >= least
            await store.links.find(others[reads % len(others)])
            reads += 1

    await asyncio.gather(write(), *(read() for _ in range(12)))


async def test_only_links_that_have_moved_are_read_again(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker, queries: Queries
) -> None:
    """If one of many links in a query has moved, only that one is read at its new shard, and the map is updated."""
    codes = some(store, "db0", 30)
    await create(store, new_link, codes)
    slot = slot_of(codes[7])
    assert sum(slot_of(code) == slot for code in codes) == 1
    await hand_over(direct, slot, "db0", "db1")
    found = await asyncio.gather(*map(store.links.find, codes))
    assert [link.url for link in found] == [f"https://{code}.example/" for code in codes]
    assert queries.sizes == [30, 1]
    assert store.shards.map.owner(slot) == "db1"


async def test_a_link_in_hand_off_waits_and_delays_no_other(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """While the slot of one link is closed, the others of its query are answered; it waits until the slot opens."""
    codes = some(store, "db2", 30)
    await create(store, new_link, codes)
    slot = slot_of(codes[0])
    await direct["db2"].execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot)
    waits, *others = (find(store, code) for code in codes)
    found = await asyncio.gather(*others)
    assert all(link.version == 1 for link in found)
    assert not waits.done()
    await direct["db2"].execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", slot)
    assert (await waits).version == 1


async def test_a_hand_off_that_lasts_too_long_is_a_503_for_its_links_only(
    ready: Settings, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A link whose slot stays closed beyond the bound is refused with a Retry-After; the others are found."""
    store = await Store.open(ready.model_copy(update={"busy_wait_ms": 100}))
    try:
        codes = some(store, "db2", 10)
        await create(store, new_link, codes)
        slot = slot_of(codes[0])
        await direct["db2"].execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot)
        refused, *found = await asyncio.gather(*map(store.links.find, codes), return_exceptions=True)
        assert isinstance(refused, Unavailable)
        assert refused.retry_after_s
        assert all(isinstance(link, CachedLink) for link in found)
    finally:
        await store.shards.close()


async def test_an_unattested_server_answers_nothing(
    ready: Settings, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A restarted server reports neither links nor their absence until it is attested."""
    store = await Store.open(ready.model_copy(update={"busy_wait_ms": 3_000}))
    try:
        there, absent = some(store, "db3", 2)
        await create(store, new_link, [there])
        await direct["db3"].execute("UPDATE cluster SET attested_start = NULL")
        waiting = [find(store, there), find(store, absent)]
        await asyncio.sleep(0.05)
        await direct["db3"].execute("UPDATE cluster SET attested_start = pg_postmaster_start_time()")
        found = await asyncio.gather(*waiting)
        assert [link.is_missing for link in found] == [False, True]
    finally:
        await store.shards.close()


async def test_pending_reads_are_bounded(
    ready: Settings, new_link: NewLinkMaker, monkeypatch: pytest.MonkeyPatch, queries: Queries
) -> None:
    """Reads above the limit on pending ones per shard are refused at once, and a query has a bounded size."""
    monkeypatch.setattr(reads, "PENDING_MAX", 50)
    monkeypatch.setattr(reads, "LINKS_MAX", 20)
    store = await Store.open(ready)
    try:
        codes = some(store, "db0", 60)
        await create(store, new_link, codes)
        found = [find(store, code) for code in codes]
        await asyncio.sleep(0)
        refused = [link.exception() for link in found if link.done()]
        assert len(refused) == 10
        assert all(isinstance(error, Unavailable) and "is too busy" in str(error) for error in refused)
        answers = await asyncio.gather(*found[:50])
        assert all(link.version == 1 for link in answers)
        assert queries.sizes == [20, 20, 10]
        assert (await store.links.find(codes[-1])).version == 1
    finally:
        await store.shards.close()


async def test_a_client_that_goes_away_takes_nothing_from_the_others(
    store: Store, new_link: NewLinkMaker
) -> None:
    """When one of many pending reads is cancelled, all the others get their answers."""
    codes = some(store, "db3", 30)
    await create(store, new_link, codes)
    waiting = [find(store, code) for code in codes]
    await asyncio.sleep(0)
    waiting[3].cancel()
    found = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(found.pop(3), asyncio.CancelledError)
    assert all(isinstance(link, CachedLink) for link in found)


async def test_a_read_that_postgresql_refuses_fails_alone(store: Store, new_link: NewLinkMaker) -> None:
    """A code that cannot be queried fails; the others of its query are found."""
    bad = next(
        f"b\x00{n}" for n in itertools.count() if store.shards.map.owner(slot_of(f"b\x00{n}")) == "db2"
    )
    codes = some(store, "db2", 10)
    await create(store, new_link, codes)
    found = await asyncio.gather(*map(store.links.find, [*codes, bad]), return_exceptions=True)
    assert isinstance(found.pop(), Exception)
    assert all(isinstance(link, CachedLink) for link in found)


async def test_a_read_waits_for_a_shard_that_is_not_known_yet(store: Store, new_link: NewLinkMaker) -> None:
    """Links of a slot whose shard no topology has named yet are found once the map knows the shard."""
    code = some(store, "db0", 1)[0]
    await create(store, new_link, [code])
    slot = slot_of(code)
    epoch = store.shards.map._epoch[slot]
    store.shards.map.learn(slot, "db77", epoch + 1)
    finding = find(store, code)
    await asyncio.sleep(0.02)
    assert not finding.done()
    store.shards.map.learn(slot, "db0", epoch + 2)
    assert (await finding).version == 1


# -- shards that fail --------------------------------------------------------------------------------------------


def proxied(settings: Settings, proxy: Proxy, **overrides: int) -> Settings:
    """Settings of a store that reaches its first shard through a proxy."""
    dsns = {item.name: item.dsn for item in settings.shard_dsns}
    dsns["db0"] = through_proxy(dsns["db0"], proxy)
    listed = " ".join(f"{name}={dsn}" for name, dsn in dsns.items())
    redis_url = settings.redis_url.get_secret_value()
    return load_settings(**{**PATIENT, "shards": listed, "redis_url": redis_url, **overrides})


async def test_links_of_a_connection_that_is_cut_are_read_again(
    ready: Settings, new_link: NewLinkMaker
) -> None:
    """When a connection is lost during a query, the links of the query are read again and found."""
    port = urlsplit(ready.shard_dsns[0].dsn).port
    assert port is not None
    async with proxy_to("127.0.0.1", port) as proxy:
        store = await Store.open(proxied(ready, proxy))
        try:
            codes = some(store, "db0", 20)
            await create(store, new_link, codes)
            await asyncio.gather(*map(store.links.find, codes))
            proxy.cut()
            found = await asyncio.gather(*map(store.links.find, codes))
            assert all(link.version == 1 for link in found)
        finally:
            await store.shards.close()


async def test_a_silent_shard_refuses_its_own_links_only(ready: Settings, new_link: NewLinkMaker) -> None:
    """Links of a silent shard are refused within the time of two calls; links of other shards are found."""
    port = urlsplit(ready.shard_dsns[0].dsn).port
    assert port is not None
    async with proxy_to("127.0.0.1", port) as proxy:
        store = await Store.open(proxied(ready, proxy, statement_timeout_ms=1_000))
        try:
            silent, well = some(store, "db0", 20), some(store, "db1", 20)
            await create(store, new_link, [*silent, *well])
            await asyncio.gather(*map(store.links.find, silent))
            proxy.deaf = True
            proxy.forwarding.clear()
            began = time.monotonic()
            waiting = [find(store, code) for code in silent]
            found = await asyncio.gather(*map(store.links.find, well))
            assert not any(refusal.done() for refusal in waiting)
            assert all(link.version == 1 for link in found)
            refused = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(error, Unavailable) for error in refused)
            assert time.monotonic() - began < 4.0 + BUSY_S
            proxy.deaf = False
            proxy.forwarding.set()

            async def is_back() -> bool:
                with contextlib.suppress(Unavailable):
                    return bool((await store.links.find(silent[0])).version == 1)
                return False

            await until(is_back)
        finally:
            await store.links.close()
            await store.shards.close()


async def test_a_query_that_takes_long_delays_no_other(
    store: Store, new_link: NewLinkMaker, direct: dict[str, Any]
) -> None:
    """While one query waits inside its shard, later reads are sent in another."""
    first, later = some(store, "db0", 2)
    await create(store, new_link, [first, later])
    blocker = direct["db0"].transaction()
    await blocker.start()
    await direct["db0"].execute("LOCK TABLE links")
    stuck = find(store, first)
    await asyncio.sleep(reads.PATIENCE_S * 2)
    assert not stuck.done()
    after = find(store, later)
    async with asyncio.timeout(HANG_S):
        while await direct["db0"].fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted") < 2:
            await asyncio.sleep(0.01)
    await blocker.rollback()
    assert (await stuck).version == (await after).version == 1


# -- the plan ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("analysed", [False, True])
async def test_each_link_is_looked_up_by_its_key(direct: dict[str, Any], analysed: bool) -> None:
    """With and without statistics, a query reads only the rows of its links, with one generic plan."""
    shard = direct["db0"]
    await shard.execute("ALTER TABLE links SET (autovacuum_enabled = off)")
    await shard.execute(
        "INSERT INTO links (slot, code, version, url, tags, redirect_status, created_at, owner, token)"
        " SELECT n % 16384, 'p' || n, 1, 'https://example.org/', '{}', 302, now(), '', gen_random_uuid()"
        " FROM generate_series(1, $1) n",
        ROWS,
    )
    if analysed:
        await shard.execute("ANALYZE links, slots")
    wanted = [n * 37 for n in range(1, 301)]
    for _ in range(8):
        await shard.fetch(reads.FIND, [n % 16384 for n in wanted[:5]], [f"p{n}" for n in wanted[:5]])
    kinds = await shard.fetchrow(
        "SELECT generic_plans, custom_plans FROM pg_prepared_statements WHERE statement = $1", reads.FIND
    )
    assert (kinds["generic_plans"], kinds["custom_plans"]) == (3, 5)
    arrays = f"ARRAY{[n % 16384 for n in wanted]}::smallint[]", f"ARRAY{[f'p{n}' for n in wanted]}::text[]"
    query = reads.FIND.replace("$1::smallint[]", arrays[0]).replace("$2::text[]", arrays[1])
    plan = json.loads(await shard.fetchval(f"EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) {query}"))[0]["Plan"]
    scanned = {node["Relation Name"] for node in nodes(plan) if node["Node Type"] == "Seq Scan"}
    assert scanned <= {"cluster"}
    looked_up = next(node for node in nodes(plan) if node.get("Relation Name") == "links")
    # A code is in one slot, so either index has one row for it.
    assert looked_up["Index Name"] in ("links_pkey", "links_by_code")
    assert looked_up["Actual Loops"] == 300


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a node of a plan and all nodes below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
