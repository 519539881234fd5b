"""Listings while slots move."""

from __future__ import annotations

import asyncio
from collections import Counter

from snapurl.model import LinkOrder, LinkQuery, PageKey
from tests.faults.pair import Pair

MOVES = 3
PAGE = 50
QUERIES = (
    LinkQuery(),
    LinkQuery(order=LinkOrder.CODE, ascending=True),
    LinkQuery(order=LinkOrder.CREATED, ascending=True, text="http"),
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


async def test_a_listing_shows_each_key_once_while_slots_move(pair: Pair) -> None:
    """While slots move and links are created, a listing shows every link from before its start exactly once,
    whatever its order, and also if it is a search."""
    pair.whole = False
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
