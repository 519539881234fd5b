"""Renames of links over two shards: ended at every line, repeated, and while others change the links."""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from ring.slots import slot_of
from snapurl.cache.reader import LinkCache
from snapurl.config import Settings
from snapurl.errors import AliasTaken, Gone, Invalid, NotFound, OutcomeUnknown, Unavailable
from snapurl.model import Link, LinkPatch, link_values
from snapurl.redis_client import redis_client
from snapurl.renames import LinkRenames
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.store.test_links import target_of, through
from tests.support.tcp_proxy import proxy_to
from tests.support.waits import until

CALLS = ("get", "create", "change", "rename", "delete")  # of the store, by a rename


class Crash(Exception):
    """The process ends here."""


@pytest.fixture
async def cache(ready: Settings, store: Store) -> AsyncIterator[LinkCache]:
    redis = redis_client(ready)
    yield LinkCache(ready, "test", store.links.find, redis, time.monotonic)
    await redis.aclose()


def code_on(store: Store, shard: str, prefix: str) -> str:
    """Returns a code in a slot of that shard."""
    codes = (f"{prefix}{number}" for number in range(999))
    return next(code for code in codes if store.shards.map.owner(slot_of(code)) == shard)


async def rename(
    renames: LinkRenames, code: str, new: str, *, gives_up: bool = False, owner: str | None = "me"
) -> Link:
    return await renames.rename(code, new, gives_up=gives_up, if_match=None, owner=owner, by="key")


async def change(store: Store, code: str, **values: Any) -> Link:
    return await store.links.change(code, LinkPatch(**values), if_match=None, owner=None, token=uuid.uuid4())


async def check_renamed(store: Store, code: str, new: str, *, gives_up: bool) -> None:
    """Checks that the new link has all that the old one had, and that the old one was marked once."""
    old, made = await store.links.get(code), await store.links.get(new)
    assert old is not None and made is not None
    assert link_values(made) == link_values(old)
    assert (made.owner, made.deleted_at, made.renamed_to) == ("me", None, None)
    assert (old.renamed_to, old.deleted_at is not None) == (new, gives_up)
    found = await store.links.history(code)
    assert found is not None
    assert [item.fields for item in found.changes if item.kind == "rename"] == [{"renamed_to": (None, new)}]


@pytest.mark.parametrize("gives_up", [False, True], ids=["redirect", "give-up"])
async def test_a_rename_that_ends_at_any_line_is_finished_by_its_repeat(
    store: Store, cache: LinkCache, new_link: NewLinkMaker, monkeypatch: pytest.MonkeyPatch, gives_up: bool
) -> None:
    """Wherever the process ends, the old code leads on until the new one does; a repeat finishes the rename, with
    what the old link has by then."""
    renames = LinkRenames(store.links, cache)

    async def crash_at(place: int, code: str, new: str, *, after: bool) -> bool:
        """Renames, and ends before or after a call of the store. Returns whether there were that many calls."""
        calls = 0

        def ending(call: Callable[..., Awaitable[Any]]) -> Callable[..., Awaitable[Any]]:
            async def run(*args: Any, **named: Any) -> Any:
                nonlocal calls
                calls += 1
                if calls - 1 == place and not after:
                    raise Crash
                answer = await call(*args, **named)
                if calls - 1 == place:
                    raise Crash
                return answer

            return run

        with monkeypatch.context() as patch:
            for name in CALLS:
                patch.setattr(store.links, name, ending(getattr(store.links, name)))
            try:
                await rename(renames, code, new, gives_up=gives_up)
            except Crash:
                return True
        return False

    ended = 0
    for after in (False, True):
        for is_changed in (False, True):
            for place in range(9):
                word = f"{after:d}{is_changed:d}{place}-"
                code, new = code_on(store, "db0", f"old{word}"), code_on(store, "db1", f"new{word}")
                await store.links.create(
                    new_link(code, owner="me", title="t", password_hash="$h", tags=("a",))
                )
                if not await crash_at(place, code, new, after=after):
                    break
                ended += 1
                old, made = await store.links.get(code), await store.links.get(new)
                assert old is not None
                assert old.deleted_at is None or made is not None
                if is_changed and old.deleted_at is None and old.renamed_to is None:
                    await change(store, code, url="https://example.org/later", title=None)
                for _ in range(2):
                    assert (await rename(renames, code, new, gives_up=gives_up)).code == new
                await check_renamed(store, code, new, gives_up=gives_up)
    assert ended == 2 * 2 * 5


async def test_a_shard_that_falls_silent_between_the_steps_leaves_a_rename_that_a_repeat_finishes(
    ready: Settings, store: Store, cache: LinkCache, new_link: NewLinkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When the old link's shard answers no more after the new link is there, the outcome is unknown and both codes
    lead to the target; once it answers, the same request finishes the rename."""
    async with proxy_to(*target_of(ready, "db0")) as proxy:
        behind = await through(ready, proxy, "db0")
        code, new = code_on(store, "db0", "old"), code_on(store, "db1", "new")
        await store.links.create(new_link(code, owner="me"))
        renames, mark = LinkRenames(behind.links, cache), behind.links.rename

        async def silent(*args: Any, **named: Any) -> Link:
            proxy.lose_replies(1_000, after=code)
            return await mark(*args, **named)

        try:
            with monkeypatch.context() as patch:
                patch.setattr(behind.links, "rename", silent)
                with pytest.raises(OutcomeUnknown):
                    await rename(renames, code, new)
            made = await store.links.get(new)
            assert made is not None and made.url == "https://example.org/"
            proxy.lose_replies(0)

            async def again() -> Link | None:
                with contextlib.suppress(Unavailable):  # until the shard is known to answer
                    return await rename(renames, code, new)
                return None

            assert (await until(again)).code == new
            await check_renamed(store, code, new, gives_up=False)
        finally:
            await behind.shards.close()


async def test_a_code_that_another_link_has_or_had_is_taken(
    store: Store, cache: LinkCache, new_link: NewLinkMaker
) -> None:
    """A rename to the code of a link, of a deleted one, or of a copy that was deleted meanwhile changes nothing."""
    renames = LinkRenames(store.links, cache)
    for code in ("mine", "theirs", "gone"):
        await store.links.create(new_link(code, owner="me" if code == "mine" else "you"))
    await store.links.delete("gone", if_match=None, owner=None, token=uuid.uuid4())
    for new in ("theirs", "gone"):
        with pytest.raises(AliasTaken):
            await rename(renames, "mine", new)
    await rename(renames, "mine", "copy")
    await store.links.delete("copy", if_match=None, owner=None, token=uuid.uuid4())
    with pytest.raises(Gone):
        await rename(renames, "mine", "copy")
    with pytest.raises(Invalid, match="code: the link was renamed to copy"):
        await rename(renames, "mine", "other")
    with pytest.raises(NotFound):
        await rename(renames, "theirs", "other")
    assert await store.links.get("other") is None


async def test_whoever_gets_the_old_link_does_not_get_the_new_one(
    store: Store, cache: LinkCache, new_link: NewLinkMaker
) -> None:
    """A repeat by another account, to which the old link was given since, is refused and shows nothing."""
    renames = LinkRenames(store.links, cache)
    await store.links.create(new_link("old", owner="me"))
    await rename(renames, "old", "new")
    await store.links.transfer("old", "you", if_match=None, by="", token=uuid.uuid4())
    with pytest.raises(AliasTaken):
        await rename(renames, "old", "new", owner="you")


async def test_a_rename_carries_what_others_change_meanwhile(
    store: Store, cache: LinkCache, new_link: NewLinkMaker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A change of the old link that is acknowledged before the rename is in the new link, whenever it came."""
    await store.links.create(new_link("old", owner="me", title="0"))
    make, titles = store.links.create, iter("12")

    async def create(*args: Any) -> Any:
        made = await make(*args)
        if title := next(titles, None):
            await change(store, "old", title=title)
        return made

    monkeypatch.setattr(store.links, "create", create)
    link = await rename(LinkRenames(store.links, cache), "old", "new", owner=None)
    assert (link.title, link.version) == ("2", 3)
    await check_renamed(store, "old", "new", gives_up=False)


async def test_a_link_stays_in_its_domain(store: Store, cache: LinkCache, new_link: NewLinkMaker) -> None:
    """A link of another domain is renamed to a code of that domain, and the code elsewhere is no matter."""
    await store.links.create(new_link("go.example.org/old", owner="me"))
    await store.links.create(new_link("new", owner="you"))
    assert (
        await rename(LinkRenames(store.links, cache), "go.example.org/old", "new")
    ).code == "go.example.org/new"
    old = await store.links.get("go.example.org/old")
    assert old is not None and old.renamed_to == "new"
