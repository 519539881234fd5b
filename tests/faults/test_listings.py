"""Listings while slots move."""

from __future__ import annotations

import asyncio
from collections import Counter

from snapurl.model import PageKey
from tests.faults.pair import Pair

MOVES = 3
PAGE = 50


async def listing(pair: Pair) -> Counter[str]:
    """Lists all links page by page. Returns how often each code was listed."""
    found: Counter[str] = Counter()
    before = None
    while page := (await pair.traffic.store.links.page(PAGE, before, None))[0]:
        found.update(link.code for link in page)
        before = PageKey(page[-1].created_at, page[-1].code)
    return found


async def test_a_listing_shows_each_key_once_while_slots_move(pair: Pair) -> None:
    """While slots move and links are created, a listing shows every link from before its start exactly once."""
    pair.whole = False
    listings = 0
    async with pair.traffic.flowing():
        for _ in range(MOVES):
            await pair.reverse()
            moving = asyncio.create_task(pair.settle())
            while not moving.done():
                there = set(pair.traffic.acked)
                found = await listing(pair)
                assert there <= found.keys(), there - found.keys()
                assert max(found.values()) == 1
                listings += 1
            await moving
    await pair.check()
    assert listings >= MOVES
    pair.whole = True
