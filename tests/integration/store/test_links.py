"""Links in the shards: creates, changes, lists, and lost replies."""

from __future__ import annotations

import asyncio
import uuid
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlsplit

import pytest

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.errors import Gone, NotFound, OutcomeUnknown, Unavailable, VersionMismatch
from snapurl.model import (
    Failed,
    IdempotencyKey,
    Link,
    LinkPatch,
    LinkQuery,
    NewLink,
    PageKey,
    Taken,
    link_values,
)
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.store.test_bootstrap import with_shards
from tests.support.tcp_proxy import Proxy, proxy_to
from tests.support.waits import until


async def test_one_of_many_creates_of_an_alias_wins(store: Store, new_link: NewLinkMaker) -> None:
    """Of twenty concurrent creates of one alias exactly one wins, and the others get "taken"."""
    answers = await asyncio.gather(*(store.links.create(new_link("race")) for _ in range(20)))
    assert sum(isinstance(answer, Link) for answer in answers) == 1
    assert sum(isinstance(answer, Taken) for answer in answers) == 19


async def test_a_create_repeated_with_its_token_answers_the_same(
    store: Store, new_link: NewLinkMaker
) -> None:
    """A create repeated with its token gets the first answer, even after the link was edited."""
    new = new_link("again")
    first = await store.links.create(new)
    await store.links.change(
        "again", LinkPatch(url="https://other.example/"), if_match=1, owner=None, token=uuid.uuid4()
    )
    assert await store.links.create(new) == first


async def test_a_change_is_refused_for_each_reason(store: Store, new_link: NewLinkMaker) -> None:
    """A change of a missing, foreign, outdated or deleted link is refused with the reason for each."""
    await store.links.create(new_link("mine", owner="me"))
    change = LinkPatch(title="t")

    async def attempt(code: str, if_match: int | None = None, owner: str | None = "me") -> Link:
        return await store.links.change(code, change, if_match=if_match, owner=owner, token=uuid.uuid4())

    with pytest.raises(NotFound):
        await attempt("nothere")
    with pytest.raises(NotFound):
        await attempt("mine", owner="you")
    with pytest.raises(VersionMismatch):
        await attempt("mine", if_match=7)
    assert (await attempt("mine", if_match=1)).version == 2
    assert (await attempt("mine", owner=None)).version == 3
    deleted = await store.links.delete("mine", if_match=3, owner="me", token=uuid.uuid4())
    assert deleted.deleted_at is not None
    with pytest.raises(Gone):
        await attempt("mine")


async def test_a_bulk_create_answers_item_by_item_in_order(store: Store, new_link: NewLinkMaker) -> None:
    """A bulk create keeps the order, and a taken alias fails only its own item, also within the call."""
    await store.links.create(new_link("taken"))
    asked = [new_link(code) for code in ("a1", "taken", "b2", "c3", "b2")]
    answers = await store.links.create_many(asked)
    assert [answer.code for answer in answers] == [item.code for item in asked]
    assert [type(answer) for answer in answers] == [Link, Taken, Link, Link, Taken]
    assert await store.links.create_many(asked) == answers


async def test_a_bulk_create_writes_every_field_as_it_is(store: Store, new_link: NewLinkMaker) -> None:
    """A bulk create stores every field as given: any number of tags, any character, titles, times and owners."""
    tags = ('a"b', "c\\d", "{x,y}", "NULL", "ü ❤", "'", ",", "{}")
    at = datetime(2099, 1, 31, 12, 0, 0, 123_456, tzinfo=UTC)
    asked = [
        new_link("plain"),
        new_link("full", owner="me", title='T "❤" \\', tags=tags, redirect_status=308, expires_at=at),
        new_link("one", owner="you", tags=("x",), redirect_status=301),
    ]
    made = await store.links.create_many(asked)
    assert [await store.links.get(new.code) for new in asked] == made
    for new, link in zip(asked, made, strict=True):
        assert isinstance(link, Link)
        assert (link.code, link.owner) == (new.code, new.owner)
        assert link_values(link) == link_values(new.fields)


async def test_pages_show_each_link_once_newest_first(store: Store, new_link: NewLinkMaker) -> None:
    """Paging through links while others are created shows each old link exactly once, newest first."""
    codes = [f"page{n}" for n in range(60)]
    for code in codes:
        await store.links.create(new_link(code, owner="me" if code.endswith("7") else ""))
    seen: list[Link] = []
    before = None
    while page := (await store.links.page(LinkQuery(), 7, before)).links:
        seen += page
        before = PageKey(page[-1].created_at, page[-1].code)
        await store.links.create(new_link(f"later{len(seen)}"))
    assert [link.code for link in seen] == codes[::-1]
    assert [link.code for link in (await store.links.page(LinkQuery(owner="me"), 50)).links] == [
        code for code in codes[::-1] if code.endswith("7")
    ]


async def test_a_page_waits_until_every_slot_has_one_owner(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """While no shard answers for a slot, a listing waits instead of leaving out its links."""
    await store.links.create(new_link("shy"))
    slot = slot_of("shy")
    owner = direct[store.shards.map.owner(slot)]
    await owner.execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot)
    listing = asyncio.create_task(store.links.page(LinkQuery(), 10))
    await asyncio.sleep(0.1)
    assert not listing.done()
    await owner.execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", slot)
    assert [link.code for link in (await listing).links] == ["shy"]


async def test_a_listing_never_shows_rows_that_a_shard_only_keeps(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """Rows of a slot that the shard no longer owns are not listed, and a slot with two owners stops a listing."""
    await store.links.create(new_link("twice"))
    slot = slot_of("twice")
    name = store.shards.map.owner(slot)
    other = "db1" if name == "db0" else "db0"
    await direct[other].execute("INSERT INTO slots (slot, state, epoch) VALUES ($1, 'owned', 2)", slot)
    with pytest.raises(Unavailable):
        await store.links.page(LinkQuery(), 10)
    await direct[name].execute("UPDATE slots SET state = 'released', peer = $2 WHERE slot = $1", slot, other)
    assert (await store.links.page(LinkQuery(), 10)).links == []


async def through(ready: Settings, proxy: Proxy, name: str) -> Store:
    """Returns a store that reaches shard `name` through `proxy`, on one connection."""
    dsns = {item.name: item.dsn for item in ready.shard_dsns}
    parts = urlsplit(dsns[name])
    dsns[name] = dsns[name].replace(f"127.0.0.1:{parts.port}", f"127.0.0.1:{proxy.port}")
    return await Store.open(with_shards(ready, dsns).model_copy(update={"pool_connections": 1}))


def target_of(ready: Settings, name: str) -> tuple[str, int]:
    parts = urlsplit(next(item.dsn for item in ready.shard_dsns if item.name == name))
    assert parts.port is not None
    return "127.0.0.1", parts.port


async def change(store: Store, code: str, if_match: int | None) -> Link:
    return await store.links.change(
        code, LinkPatch(title="t"), if_match=if_match, owner=None, token=uuid.uuid4()
    )


async def test_writes_with_lost_replies_report_their_true_outcome(
    ready: Settings, new_link: NewLinkMaker
) -> None:
    """A create, a bulk create and a change whose reply was lost each report their true outcome."""
    async with proxy_to(*target_of(ready, "db0")) as proxy:
        store = await through(ready, proxy, "db0")
        try:
            codes = (f"lost-reply-{number}" for number in range(999))
            code = next(code for code in codes if store.shards.map.owner(slot_of(code)) == "db0")
            assert await store.links.get(code) is None

            proxy.lose_replies(1, after=code)
            assert isinstance(await store.links.create(new_link(code)), Link)

            for if_match in (None, 2):
                proxy.lose_replies(1, after=code)
                changed = await change(store, code, if_match)
                assert await store.links.get(code) == changed
            assert changed.version == 3

            more = [new_link(f"{code}-{n}") for n in range(40)]
            proxy.lose_replies(1, after=code)
            assert {type(answer) for answer in await store.links.create_many(more)} == {Link}
            assert proxy.replies_lost == 4
        finally:
            await store.shards.close()


async def test_an_outcome_that_cannot_be_queried_is_unknown(ready: Settings, new_link: NewLinkMaker) -> None:
    """When both the reply and the query for the outcome are lost, the caller gets OutcomeUnknown."""
    async with proxy_to(*target_of(ready, "db0")) as proxy:
        store = await through(ready, proxy, "db0")
        try:
            codes = (f"lost-reply-{number}" for number in range(999))
            code = next(code for code in codes if store.shards.map.owner(slot_of(code)) == "db0")
            await store.links.create(new_link(code))
            proxy.lose_replies(1_000, after=code)
            with pytest.raises(OutcomeUnknown):
                await store.links.change(
                    code, LinkPatch(title="t"), if_match=None, owner=None, token=uuid.uuid4()
                )
        finally:
            await store.shards.close()


async def test_a_silent_shard_costs_only_its_own_slots(ready: Settings, new_link: NewLinkMaker) -> None:
    """While one shard is cut off, links of the others are created; once it is back, all creates succeed."""
    async with proxy_to(*target_of(ready, "db0")) as proxy:
        store = await through(ready, proxy, "db0")
        try:
            new: list[NewLink] = [new_link(f"s{n}") for n in range(40)]
            proxy.refuse = True
            proxy.cut()
            answers = await store.links.create_many(new)
            for item, answer in zip(new, answers, strict=True):
                at_db0 = store.shards.map.owner(slot_of(item.code)) == "db0"
                assert isinstance(answer, Failed if at_db0 else Link)
            proxy.refuse = False

            async def all_are_made() -> bool:
                return {type(answer) for answer in await store.links.create_many(new)} == {Link}

            await until(all_are_made)
        finally:
            await store.shards.close()


async def test_an_idempotency_key_is_stored_once(store: Store, direct: dict[str, Any]) -> None:
    """Every use of an Idempotency-Key finds the first record for 24 hours; after that the record is replaced."""
    key = IdempotencyKey("key", "k1")
    records = await asyncio.gather(*(store.links.reserve(key, bytes([n])) for n in range(20)))
    assert len(set(records)) == 1
    assert (await store.links.reserve(IdempotencyKey("other", "k1"), b"x")).token != records[0].token
    for connection in direct.values():
        await connection.execute("UPDATE intents SET created_at = created_at - interval '25 hours'")
    assert (await store.links.reserve(key, b"new")).fingerprint == b"new"
    assert await store.links.purge_idempotency_records(100) == 1
    assert (await store.links.reserve(key, b"y")).fingerprint == b"new"
