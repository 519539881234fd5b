"""Listings while slots move."""

from __future__ import annotations

import asyncio
from collections import Counter

import pytest

from ring.slots import slot_of
from snapurl.model import ClickRow, LinkOrder, LinkQuery, PageKey
from snapurl.store import pages
from tests.faults.clicks import FIRST_DAY
from tests.faults.pair import Pair

MOVES = 3
PAGE = 50
QUERIES = (
    LinkQuery(),
    LinkQuery(order=LinkOrder.CODE, ascending=True),
    LinkQuery(order=LinkOrder.CLICKS),
    LinkQuery(order=LinkOrder.CREATED, ascending=True, text="http"),
    LinkQuery(order=LinkOrder.CLICKS, ascending=True),
)


async def listing(pair: Pair, query: LinkQuery) -> Counter[str]:
    """Lists all links page by page. Returns how often each code was listed."""
    found: Counter[str] = Counter()
    after: PageKey | None = None
    while True:
        page = await pair.traffic.store.links.page(query, PAGE, after)
        found.update(link.code for link in page.links)
        if page.after is None:
            return found
        after = page.after


async def click(pair: Pair) -> None:
    """Gives the links 0 to 3 clicks each."""
    rows: dict[int, list[ClickRow]] = {}
    for number, code in enumerate(pair.traffic.acked):
        if number % 4:
            rows.setdefault(slot_of(code), []).append(ClickRow(slot_of(code), 1, code, FIRST_DAY, number % 4))
    assert await pair.traffic.store.apply_clicks("listing", rows) == rows.keys()


async def test_a_listing_shows_each_key_once_while_slots_move(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While slots move and links are created, a listing shows every link from before its start exactly once,
    whatever its order, and also if it is a search."""
    monkeypatch.setattr(pages, "SORTED_ROWS_MAX", 0)  # walk the totals, as for many links
    pair.whole = False
    await click(pair)
    listings = 0
    async with pair.traffic.flowing():
        for _ in range(MOVES):
            await pair.reverse()
            moving = asyncio.create_task(pair.settle())
            while not moving.done():
                there = set(pair.traffic.acked)
                found = await listing(pair, QUERIES[listings % len(QUERIES)])
                assert there <= found.keys(), there - found.keys()
                assert max(found.values()) == 1
                listings += 1
            await moving
    await pair.check()
    assert listings >= MOVES
    pair.whole = True
