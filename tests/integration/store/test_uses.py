"""Uses of links with `max_clicks`: exactly as many as there are, to whoever asks."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.errors import Unavailable
from snapurl.model import LinkPatch
from snapurl.store.batching.uses import USES_MAX, Use
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.store.test_links import target_of, through
from tests.support.tcp_proxy import proxy_to


async def test_two_workers_give_exactly_as_many_uses_as_there_are(
    ready: Settings, store: Store, new_link: NewLinkMaker
) -> None:
    """Of concurrent requests at two workers exactly `max_clicks` get a use; later ones cost the shard nothing."""
    other = await Store.open(ready)
    try:
        await store.links.create(new_link("few", max_clicks=70))
        stores = [store, other] * 60
        uses = await asyncio.gather(*(each.links.use("few", 1, takes=True) for each in stores))
        assert Counter(uses) == {Use.GIVEN: 70, Use.SPENT: 50}
        for each in (store, other):
            assert await each.links.use("few", 1, takes=False) is Use.SPENT
    finally:
        await other.shards.close()
    assert await store.links.use("few", 1, takes=True) is Use.SPENT  # the shards need not be asked


async def test_whoever_only_looks_uses_nothing_up(store: Store, new_link: NewLinkMaker) -> None:
    """A request that takes none is told whether a use is left, and leaves it to the next."""
    await store.links.create(new_link("one", max_clicks=1))
    for takes, use in ((False, Use.GIVEN), (False, Use.GIVEN), (True, Use.GIVEN), (False, Use.SPENT)):
        assert await store.links.use("one", 1, takes=takes) is use


async def test_a_use_is_given_for_the_newest_version_only(store: Store, new_link: NewLinkMaker) -> None:
    """A change of the link is noticed by the next use; a higher limit adds uses, and those before still count."""
    await store.links.create(new_link("more", max_clicks=1))
    assert await store.links.use("more", 1, takes=True) is Use.GIVEN
    assert await store.links.use("more", 1, takes=True) is Use.SPENT
    change = LinkPatch(max_clicks=2)
    await store.links.change("more", change, if_match=None, owner=None, token=uuid.uuid4())
    uses = [await store.links.use("more", version, takes=True) for version in (2, 2, 3)]
    assert uses == [Use.GIVEN, Use.SPENT, Use.CHANGED]
    await store.links.delete("more", if_match=None, owner=None, token=uuid.uuid4())
    assert await store.links.use("more", 3, takes=True) is Use.CHANGED


async def test_a_lost_reply_never_gives_a_use_too_many(
    ready: Settings, store: Store, new_link: NewLinkMaker
) -> None:
    """If the reply of the shard is lost, its uses are gone, and the others are given as often as they are left."""
    codes = (f"lost-reply-{number}" for number in range(999))
    code = next(code for code in codes if store.shards.map.owner(slot_of(code)) == "db0")
    await store.links.create(new_link(code, max_clicks=USES_MAX + 3))
    async with proxy_to(*target_of(ready, "db0")) as proxy:
        worker = await through(ready, proxy, "db0")
        try:
            assert await worker.links.use(code, 1, takes=True) is Use.GIVEN
            proxy.lose_replies(1_000, after=code)
            asked = (worker.links.use(code, 1, takes=True) for _ in range(USES_MAX))
            lost = await asyncio.gather(*asked, return_exceptions=True)
            assert [type(each) for each in lost] == [Unavailable] * USES_MAX
        finally:
            await worker.shards.close()
    uses = [await store.links.use(code, 1, takes=True) for _ in range(4)]
    assert uses == [Use.GIVEN, Use.GIVEN, Use.SPENT, Use.SPENT]
