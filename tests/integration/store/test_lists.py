"""Lists of links: each filter and order against a plain search of all links, and the index that answers it."""

from __future__ import annotations

import json
import random
import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest

from ring.slots import slot_of
from snapurl.model import (
    ClickRow,
    Link,
    LinkOrder,
    LinkPatch,
    LinkQuery,
    LinkState,
    PageKey,
)
from snapurl.store import pages
from snapurl.store.link_query import Statement, chunk_of, clicked_chunk_of, page_of, unclicked_chunk_of
from tests.integration.store.conftest import NewLinkMaker, Store

TAGS = ("red", "green", "blue, or so", '"x"')
WORDS = ("Spring", "sale", "50%", "a_b", "München", "x\\y")


async def fill(store: Store, direct: dict[str, Any], new_link: NewLinkMaker) -> list[Link]:
    """Makes 100 links that differ in each field. Returns them as they are now."""
    chance = random.Random(7)
    new = [
        new_link(
            f"{chance.choice(['', 'Promo-', 'x_'])}{n}",
            f"https://example.org/{chance.choice(['Sale', 'spring', 'M%C3%BCnchen', '50%25'])}/{n}",
            owner=chance.choice(["me", "you", ""]),
            title=chance.choice([None, *WORDS]),
            tags=tuple(chance.sample(TAGS, chance.randrange(4))),
            note=chance.choice([None, None, "For the Poster"]),
            enabled=chance.random() < 0.8,
            starts_at=chance.choice([None, None, *(datetime.now(UTC) + timedelta(days=n) for n in (-1, 1))]),
        )
        for n in range(100)
    ]
    for item in new:
        item.created_by = item.owner if item.owner != "me" else chance.choice(["me", "mate"])
    for first in range(0, len(new), 10):  # links of one call have one time, so these are equal often
        await store.links.create_many(new[first : first + 10])
    for item in new:
        shard = direct[store.shards.map.owner(slot_of(item.code))]
        if chance.random() < 0.4:
            expiry = datetime.now(UTC) + timedelta(days=chance.choice([-1, 1]))
            await shard.execute("UPDATE links SET expires_at = $1 WHERE code = $2", expiry, item.code)
        if chance.random() < 0.4:
            patch = LinkPatch(redirect_status=301)
            await store.links.change(item.code, patch, if_match=None, owner=None, token=uuid.uuid4())
        if chance.random() < 0.2:
            await store.links.delete(item.code, if_match=None, owner=None, token=uuid.uuid4())
    clicks = {item.code: chance.choice([0, 1, 1, 2, 30]) for item in new}
    rows: dict[int, list[ClickRow]] = {}
    for code, count in clicks.items():
        if count:
            slot = slot_of(code)
            rows.setdefault(slot, []).append(ClickRow(slot, 1, code, datetime.now(UTC).date(), count))
    assert await store.apply_clicks("s", rows) == rows.keys()
    links = [link for item in new if (link := await store.links.get(item.code)) is not None]
    assert {link.code: link.clicks for link in links} == clicks
    return links


def wanted(link: Link, query: LinkQuery) -> bool:
    """Whether a list has the link: what `LinkQuery` says, in plain Python."""
    changed = link.changed_at or link.created_at
    now = datetime.now(UTC)
    state = LinkState.LIVE
    if link.deleted_at is not None:
        state = LinkState.DELETED
    elif not link.enabled:
        state = LinkState.DISABLED
    elif link.starts_at is not None and link.starts_at > now:
        state = LinkState.SCHEDULED
    elif link.expires_at is not None and link.expires_at <= now:
        state = LinkState.EXPIRED
    text = (query.text or "").lower()
    in_url = text.replace("ü", "%c3%bc").replace("50%", "50%25") if text != "50%" else text
    return all(
        (
            query.owner in (None, link.owner),
            query.account in (None, link.owner),
            query.creator in (None, link.created_by),
            state is query.state or (query.state is None and state is not LinkState.DELETED),
            not query.tags_any or bool(set(query.tags_any) & set(link.tags)),
            set(query.tags_all) <= set(link.tags),
            not set(query.tags_none) & set(link.tags),
            query.created_from is None or link.created_at >= query.created_from,
            query.created_to is None or link.created_at < query.created_to,
            query.changed_from is None or changed >= query.changed_from,
            query.changed_to is None or changed < query.changed_to,
            query.expires_from is None
            or (link.expires_at is not None and link.expires_at >= query.expires_from),
            query.expires_to is None or (link.expires_at is not None and link.expires_at < query.expires_to),
            text in link.code.lower()
            or in_url in link.url.lower()
            or text in (link.title or "").lower()
            or text in (link.note or "").lower(),
        )
    )


def expected(links: list[Link], query: LinkQuery) -> list[str]:
    found = [link for link in links if wanted(link, query)]
    found.sort(key=lambda link: sorted_by(link, query.order), reverse=not query.ascending)
    return [link.code for link in found]


def sorted_by(link: Link, order: LinkOrder) -> tuple[Any, ...]:
    match order:
        case LinkOrder.CREATED:
            return link.created_at, link.code
        case LinkOrder.CHANGED:
            return link.changed_at or link.created_at, link.code
        case LinkOrder.CODE:
            return (link.code,)
        case LinkOrder.CLICKS:
            return (link.clicks, link.code) if link.clicks else (0, link.created_at, link.code)


async def listed(store: Store, query: LinkQuery, limit: int) -> list[str]:
    """Returns the codes of a list, page by page."""
    found: list[str] = []
    after: PageKey | None = None
    while True:
        page = await store.links.page(query, limit, after)
        assert len(page.links) <= limit
        found += [link.code for link in page.links]
        if page.after is None:
            return found
        after = page.after


def filters(links: list[Link]) -> Iterator[LinkQuery]:
    """Yields queries that use each filter, some of them together."""
    yield LinkQuery()
    middle = sorted(link.created_at for link in links)[len(links) // 2]
    changed = sorted(link.changed_at for link in links if link.changed_at)
    now = datetime.now(UTC)
    for state in LinkState:
        yield LinkQuery(state=state)
        yield LinkQuery(state=state, owner="me", text="sale")
    yield LinkQuery(owner="me")
    yield LinkQuery(account="you")
    yield LinkQuery(creator="me")
    yield LinkQuery(creator="mate", text="poster")
    yield LinkQuery(owner="me", account="you")
    yield LinkQuery(tags_any=("red", "blue, or so"))
    yield LinkQuery(tags_all=("red", '"x"'))
    yield LinkQuery(tags_none=("red", "green"))
    yield LinkQuery(tags_any=("red",), tags_none=("green",), owner="you")
    yield LinkQuery(created_from=middle)
    yield LinkQuery(created_to=middle)
    yield LinkQuery(changed_from=changed[10], changed_to=changed[30])
    yield LinkQuery(expires_from=now)
    yield LinkQuery(expires_to=now, state=LinkState.DELETED)
    for text in (
        "SALE",
        "promo-",
        "50%",
        "a_b",
        "x\\y",
        "München",
        "1",
        "nowhere",
        "https://example.org/spring",
    ):
        yield LinkQuery(text=text)


async def test_lists_have_what_was_asked_for(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each filter in several orders lists exactly the links that meet it, on pages and counted.

    So it does if each search ends after a few links."""
    links = await fill(store, direct, new_link)
    orders = list(product(LinkOrder, (False, True)))
    for number, (query, (order, ascending)) in enumerate(product(filters(links), orders)):
        if number % 7 % 2:
            continue  # each filter in half of the orders
        asked = replace(query, order=order, ascending=ascending)
        codes = expected(links, asked)
        assert await listed(store, asked, 40) == codes, asked
        assert codes or query.text == "nowhere" or query.account
    for query in filters(links):
        count = await store.links.count(query)
        assert count is not None
        assert (count.links, count.is_estimate) == (len(expected(links, query)), False), query
    by_clicks = [
        replace(query, order=LinkOrder.CLICKS, ascending=number % 4 > 1)
        for number, query in enumerate(filters(links))
        if number % 2 == 0
    ]
    monkeypatch.setattr(pages, "SORTED_ROWS_MAX", 0)
    for asked in by_clicks:
        assert await listed(store, asked, 40) == expected(links, asked), asked
    monkeypatch.setattr(pages, "SEARCH_S", 0.0)
    monkeypatch.setattr(pages, "CHUNK_ROWS", 3)
    monkeypatch.setattr(pages, "WALKED_ROWS", 3)
    for asked in by_clicks[::4]:
        assert await listed(store, asked, 7) == expected(links, asked), asked
    for text, order, ascending in product(("sale", "nowhere"), LinkOrder, (False, True)):
        asked = LinkQuery(text=text, order=order, ascending=ascending)
        assert await listed(store, asked, 7) == expected(links, asked), asked


async def test_a_change_is_timed_and_a_copy_keeps_its_time(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A change or delete sets the time of the last change; a row that is copied between shards keeps it."""
    await store.links.create(new_link("abc"))
    created = await store.links.get("abc")
    assert created is not None
    assert created.changed_at is None
    changed = await store.links.change(
        "abc", LinkPatch(title="t"), if_match=None, owner=None, token=uuid.uuid4()
    )
    assert changed.changed_at is not None
    deleted = await store.links.delete("abc", if_match=None, owner=None, token=uuid.uuid4())
    assert deleted.changed_at is not None
    assert created.created_at < changed.changed_at < deleted.changed_at
    shard = direct[store.shards.map.owner(slot_of("abc"))]
    at = datetime(2030, 1, 1, tzinfo=UTC)
    await shard.execute("UPDATE links SET version = 9, changed_at = $1 WHERE code = 'abc'", at)
    copied = await store.links.get("abc")
    assert copied is not None
    assert copied.changed_at == at


async def test_a_list_beyond_the_bound_is_estimated(
    store: Store, direct: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beyond the bound a count is an estimate near the truth, of a search too."""
    await fill_shard(direct["db0"], 20_000)
    monkeypatch.setattr(pages, "COUNT_MAX", 1_000)
    monkeypatch.setattr(pages, "CHUNK_ROWS", 1_000)
    for query, truth in (
        (LinkQuery(), 20_000),
        (LinkQuery(text="tenth"), 2_000),
        (LinkQuery(owner="big"), 16_000),
        (LinkQuery(tags_any=("common",)), 5_000),
    ):
        count = await store.links.count(query)
        assert count is not None
        assert count.is_estimate
        assert 0.7 * truth < count.links < 1.4 * truth, (query, count)


async def fill_shard(shard: Any, links: int) -> None:
    """Puts links of many kinds into the slots of a shard."""
    await shard.execute(
        """
        INSERT INTO links (slot, code, version, url, title, tags, redirect_status, created_at, expires_at,
                           deleted_at, owner, token, changed_at, enabled, starts_at, created_by)
        SELECT s.slots[1 + n % cardinality(s.slots)],
               CASE WHEN n % 1000 = 3 THEN 'go.example.org/' ELSE '' END || 'c' || md5(n::text), 1,
               'https://example.org/' || CASE WHEN n % 10 = 0 THEN 'tenth/' ELSE '' END || n, NULL,
               CASE WHEN n % 1000 = 0 THEN '{rare,common}' WHEN n % 4 = 0 THEN '{common}' ELSE '{}' END::text[],
               302,
               now() - n * interval '1 minute',
               CASE WHEN n % 500 = 0 THEN now() - interval '1 day' END,
               CASE WHEN n % 100 = 99 THEN now() END,
               CASE WHEN n % 5 > 0 THEN 'big' ELSE 'small' || n % 500 END, gen_random_uuid(),
               CASE WHEN n % 7 = 0 THEN now() - n * interval '1 second' END, n % 300 > 0,
               CASE WHEN n % 400 = 1 THEN now() + interval '1 day' END, CASE WHEN n % 1000 = 1 THEN 'mate' END
          FROM generate_series(1, $1::integer) n, (SELECT array_agg(slot) AS slots FROM slots) s
        """,
        links,
    )
    await shard.execute(
        "INSERT INTO click_totals (slot, code, clicks)"
        " SELECT slot, code, 1 + ('x' || right(code, 4))::bit(16)::int % 1000 FROM links WHERE right(code, 1) < '8'"
    )
    await shard.execute("ANALYZE links, click_totals")


def plans(now: datetime) -> tuple[tuple[LinkQuery, set[str]], ...]:
    """Returns queries, each with the indexes of which its plan uses one."""
    return (
        (LinkQuery(), {"links_newest"}),
        (LinkQuery(ascending=True), {"links_newest"}),
        (LinkQuery(order=LinkOrder.CODE), {"links_by_code"}),
        (LinkQuery(order=LinkOrder.CODE, ascending=True), {"links_by_code"}),
        (LinkQuery(order=LinkOrder.CHANGED), {"links_by_change"}),
        (LinkQuery(order=LinkOrder.CHANGED, ascending=True), {"links_by_change"}),
        (LinkQuery(owner="small5"), {"links_newest_of_owner"}),
        (LinkQuery(owner="small5", order=LinkOrder.CODE), {"links_newest_of_owner"}),
        (LinkQuery(account="small5", order=LinkOrder.CHANGED), {"links_newest_of_owner"}),
        (LinkQuery(owner="big"), {"links_newest_of_owner", "links_newest"}),
        (LinkQuery(owner="big", order=LinkOrder.CODE), {"links_by_code"}),
        (LinkQuery(owner="big", order=LinkOrder.CHANGED), {"links_by_change"}),
        (LinkQuery(tags_any=("rare", "none")), {"links_by_tag"}),
        (LinkQuery(tags_all=("rare", "common"), order=LinkOrder.CODE), {"links_by_tag"}),
        (LinkQuery(tags_any=("common",)), {"links_newest"}),
        (LinkQuery(tags_none=("common",)), {"links_newest"}),
        (LinkQuery(domain=""), {"links_newest"}),
        (LinkQuery(domain="go.example.org"), {"links_by_code"}),
        (LinkQuery(domain="go.example.org", order=LinkOrder.CODE, ascending=True), {"links_by_code"}),
        (LinkQuery(state=LinkState.LIVE), {"links_newest"}),
        (LinkQuery(state=LinkState.EXPIRED), {"links_by_expiry"}),
        (LinkQuery(state=LinkState.EXPIRED, order=LinkOrder.CODE), {"links_by_expiry"}),
        (LinkQuery(state=LinkState.SCHEDULED), {"links_by_start"}),
        (LinkQuery(state=LinkState.DISABLED), {"links_disabled"}),
        (LinkQuery(state=LinkState.DISABLED, order=LinkOrder.CODE), {"links_disabled"}),
        (LinkQuery(creator="mate"), {"links_by_creator"}),
        (LinkQuery(state=LinkState.DELETED), {"links_deleted"}),
        (LinkQuery(state=LinkState.DELETED, order=LinkOrder.CHANGED), {"links_deleted"}),
        (LinkQuery(expires_from=now - timedelta(days=2), expires_to=now), {"links_by_expiry"}),
        (LinkQuery(created_from=now - timedelta(hours=2), order=LinkOrder.CODE), {"links_newest"}),
        (LinkQuery(changed_from=now - timedelta(minutes=20)), {"links_by_change"}),
        (LinkQuery(owner="small5", order=LinkOrder.CLICKS), {"links_newest_of_owner"}),
        (LinkQuery(tags_any=("rare",), order=LinkOrder.CLICKS), {"links_by_tag"}),
    )


async def test_each_filter_and_order_uses_its_index(store: Store, direct: dict[str, Any]) -> None:
    """No page scans the table of a shard with many links, or leaves out many that an index has found.

    The page in the middle of a list costs as little as the first."""
    shard = direct["db0"]
    await fill_shard(shard, 30_000)
    slots = await shard.fetchval("SELECT array_agg(slot) FROM slots")
    for query, indexes in plans(datetime.now(UTC)):
        after = query.key_of(link_at(await shard.fetchrow(
            "SELECT code, created_at, coalesce(changed_at, created_at) AS changed_at FROM links"
            " WHERE deleted_at IS NULL ORDER BY created_at OFFSET 15000 LIMIT 1"
        )))  # fmt: skip
        for place in (None, after):
            statement = page_of(query, slots, place, 51)
            plan = json.loads(await explain(shard, statement.sql, statement.args))[0]["Plan"]
            used = {node["Index Name"] for node in nodes(plan) if "Index Name" in node}
            assert used & indexes, (query, place, used)
            assert not [node for node in nodes(plan) if node["Node Type"] == "Seq Scan"], query
            touched = sum(node.get("Rows Removed by Filter", 0) for node in nodes(plan))
            assert touched < 1_500, (query, place, touched)
    chunk = chunk_of(LinkQuery(text="no such text"), slots, None, 1_000, 51)
    plan = json.loads(await explain(shard, chunk.sql, chunk.args))[0]["Plan"]
    scan = next(node for node in nodes(plan) if node.get("Index Name") == "links_newest")
    assert scan["Actual Rows"] == 1_000


async def test_lists_by_clicks_walk_the_index_of_the_totals(store: Store, direct: dict[str, Any]) -> None:
    """A page by clicks of many links costs as little in the middle of the list as at its beginning: no shard sorts
    links or totals, or reads more than the page has, but for what is deleted or has clicks."""
    shard = direct["db0"]
    await fill_shard(shard, 30_000)
    slots = await shard.fetchval("SELECT array_agg(slot) FROM slots")
    middle = PageKey(await shard.fetchval("SELECT max(created_at) FROM links") - timedelta(days=10), "c", 0)
    for ascending in (False, True):
        query = LinkQuery(order=LinkOrder.CLICKS, ascending=ascending)
        walks: list[tuple[Callable[..., Statement], PageKey | None, str]] = [
            (clicked_chunk_of, None, "click_totals_most"),
            (clicked_chunk_of, PageKey(None, "c", 500), "click_totals_most"),
            (unclicked_chunk_of, None, "links_newest"),
            (unclicked_chunk_of, middle, "links_newest"),
        ]
        for chunk, after, index in walks:
            statement = chunk(query, slots, after, 5_000, 51)
            plan = json.loads(await explain(shard, statement.sql, statement.args))[0]["Plan"]
            assert plan["Actual Rows"] == 51
            scan = next(node for node in nodes(plan) if node.get("Index Name") == index)
            assert scan["Actual Rows"] < 200, (statement.sql, scan)
            assert not [node for node in nodes(plan) if node["Node Type"] in ("Seq Scan", "Sort")], (
                statement.sql
            )


def link_at(row: Any) -> Link:
    return Link(
        "https://example.org/", code=row["code"], created_at=row["created_at"], deleted_at=None, owner="",
        version=1, changed_at=row["changed_at"],
    )  # fmt: skip


async def explain(shard: Any, sql: str, args: tuple[Any, ...]) -> str:
    """Runs a statement. Returns its plan, made for these arguments as the program's is."""
    async with shard.transaction():
        await shard.execute("SET LOCAL plan_cache_mode = force_custom_plan")
        plan: str = await shard.fetchval(f"EXPLAIN (ANALYZE, FORMAT JSON) {sql}", *args)
    return plan


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yields a node of a plan and all nodes below it."""
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)
