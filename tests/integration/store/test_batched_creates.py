"""Concurrent creates are batched per shard, and each gets its own answer."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterator
from typing import Any

import asyncpg
import pytest

from ring.slots import slot_of
from snapurl import batcher
from snapurl.config import Settings
from snapurl.model import Link, Taken
from snapurl.store.batching import creates
from tests.integration.store.conftest import NewLinkMaker, Store


def codes_at(store: Store, name: str) -> Iterator[str]:
    """Yields codes whose slots the shard owns."""
    return (f"t{n}" for n in itertools.count() if store.shards.map.owner(slot_of(f"t{n}")) == name)


async def test_concurrent_creates_take_few_transactions(
    store: Store, new_link: NewLinkMaker, direct: dict[str, Any]
) -> None:
    """Two hundred concurrent creates on one shard write one row each, in less than half as many transactions."""
    codes = list(itertools.islice(codes_at(store, "db0"), 200))
    made = await asyncio.gather(
        *(store.links.create(new_link(code, f"https://{code}.example/")) for code in codes)
    )
    assert [(link.code, link.url) for link in made if isinstance(link, Link)] == [
        (code, f"https://{code}.example/") for code in codes
    ]
    rows = await direct["db0"].fetch("SELECT code, xid::text AS xid, created_at FROM links")
    assert {row["code"] for row in rows} == set(codes)
    assert {row["code"]: row["created_at"] for row in rows} == {
        link.code: link.created_at for link in made if isinstance(link, Link)
    }
    assert len({row["xid"] for row in rows}) < 100


async def test_generated_codes_share_batches_whatever_the_number_of_shards(
    store: Store, new_link: NewLinkMaker, direct: dict[str, Any]
) -> None:
    """Most of sixty creates with generated codes share a transaction with more than a few others."""

    async def create() -> None:
        assert isinstance(await store.links.create(new_link(store.links.new_code())), Link)

    await asyncio.gather(*(create() for _ in range(60)))
    query = "SELECT count(*) FROM links GROUP BY xid ORDER BY 1 DESC"
    sizes = [row["count"] for shard in direct.values() for row in await shard.fetch(query)]
    assert sum(sizes) == 60
    assert max(sizes) == creates.LINKS_MAX


async def test_a_single_create_never_lingers(
    ready: Settings, new_link: NewLinkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A create that arrives alone is not delayed to wait for others."""
    monkeypatch.setattr(creates, "LINGER_S", 3_600)
    store = await Store.open(ready)
    try:
        for _ in range(batcher.LOADED_MIN * 2):
            assert isinstance(await store.links.create(new_link(store.links.new_code())), Link)
    finally:
        await store.shards.close()


async def test_one_create_of_a_batch_gets_the_alias(store: Store, new_link: NewLinkMaker) -> None:
    """When all creates of a batch ask for one alias, one of them gets it; other links are not affected."""
    others = [new_link(code) for code in itertools.islice(codes_at(store, "db1"), 10)]
    alias = next(codes_at(store, "db1"))
    await asyncio.gather(*(store.links.create(other) for other in others[1:]))
    answers = await asyncio.gather(*(store.links.create(new_link(alias)) for _ in range(30)))
    assert sum(isinstance(answer, Link) for answer in answers) == 1
    assert sum(isinstance(answer, Taken) for answer in answers) == 29


async def test_a_create_that_postgresql_refuses_fails_alone(store: Store, new_link: NewLinkMaker) -> None:
    """A create that cannot be written fails; the others of its batch succeed."""
    codes = list(itertools.islice(codes_at(store, "db2"), 20))
    new = [new_link(code) for code in codes]
    new[7] = new_link(codes[7], title="a\x00b")
    answers = await asyncio.gather(*(store.links.create(each) for each in new), return_exceptions=True)
    assert isinstance(answers.pop(7), (asyncpg.PostgresError, ValueError))
    assert all(isinstance(answer, Link) for answer in answers)


async def test_a_client_that_goes_away_takes_nothing_from_the_others(
    store: Store, new_link: NewLinkMaker
) -> None:
    """When one of many pending creates is cancelled, all the others get their answers."""
    codes = list(itertools.islice(codes_at(store, "db3"), 50))
    tasks = [asyncio.create_task(store.links.create(new_link(code))) for code in codes]
    await asyncio.sleep(0)
    tasks[3].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert isinstance(answers.pop(3), asyncio.CancelledError)
    assert all(isinstance(answer, Link) for answer in answers)


async def test_pending_creates_are_bounded(
    ready: Settings, new_link: NewLinkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Creates above the limit on pending ones are refused at once, and the others succeed."""
    monkeypatch.setattr(creates, "PENDING_MAX", 20)
    store = await Store.open(ready)
    try:
        codes = list(itertools.islice(codes_at(store, "db0"), 60))
        answers = await asyncio.gather(
            *(store.links.create(new_link(code)) for code in codes), return_exceptions=True
        )
    finally:
        await store.shards.close()
    done = [answer for answer in answers if isinstance(answer, Link)]
    refused = [str(answer) for answer in answers if not isinstance(answer, Link)]
    assert len(done) >= 20
    assert refused and all("is too busy" in text for text in refused)
