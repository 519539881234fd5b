"""However many watch, one task reads; who is slow gets the newest; who may not see a link learns nothing."""

from __future__ import annotations

import asyncio
from contextlib import ExitStack
from datetime import UTC, datetime

import pytest

from snapurl.errors import NotFound, Unavailable
from snapurl.model import Link
from snapurl.ui import link_live
from snapurl.ui.link_live import LinkLive
from snapurl.ui.live import Sampler
from tests.support.waits import unless_hung, until


class Source:
    """A state that changes with every reading."""

    def __init__(self) -> None:
        self.readings = 0

    async def __call__(self) -> str:
        self.readings += 1
        return str(self.readings)


async def test_one_reading_serves_all_who_watch() -> None:
    """Fifty watchers get one and the same result of each reading."""
    source = Source()
    sampler = Sampler(source, 0.05)
    with ExitStack() as stack:
        watchers = [stack.enter_context(sampler.watch()) for _ in range(50)]
        first = await asyncio.gather(*(newest() for newest in watchers))
        second = await asyncio.gather(*(newest() for newest in watchers))
    assert (set(first), set(second)) == ({"1"}, {"2"})


async def test_nothing_is_read_when_nobody_watches() -> None:
    """Reading begins with the first watcher, goes on while there is one, and ends with the last."""
    source = Source()
    sampler = Sampler(source, 0.01)
    with sampler.watch() as first:
        with sampler.watch():
            await unless_hung(first())
        await unless_hung(first())
        task = sampler._task
    assert task is not None
    await until(task.done)
    seen = source.readings
    with sampler.watch() as again:
        assert int(await unless_hung(again())) > seen  # never what was read for those before


async def test_who_is_slow_gets_the_newest_state_and_no_older_one() -> None:
    """A watcher that does not ask for a while gets one result when it does: that of the last reading."""
    source = Source()
    sampler = Sampler(source, 0.01)
    with sampler.watch() as slow, sampler.watch() as quick:
        await unless_hung(slow())
        for _ in range(5):
            newest = await unless_hung(quick())
        assert int(await unless_hung(slow())) >= int(newest) >= 5


async def test_what_has_not_changed_is_not_sent_again() -> None:
    """A watcher waits until something is different."""
    states = iter(["one", "one", "one", "two"])

    async def read() -> str:
        return next(states, "two")

    sampler = Sampler(read, 0.01)
    with sampler.watch() as newest:
        assert [await unless_hung(newest()), await unless_hung(newest())] == ["one", "two"]


class Shard:
    """A link of the account `team`, whose clicks grow with every reading, at a shard that may be silent."""

    def __init__(self) -> None:
        self.readings = 0
        self.is_silent = False

    async def get(self, code: str, owner: str | None) -> Link:
        self.readings += 1
        if self.is_silent:
            raise Unavailable("no answer")
        if owner not in (None, "team"):
            raise NotFound()
        return Link(
            "https://example.org/", code=code, created_at=datetime.now(UTC), deleted_at=None, owner="team",
            version=1, clicks=self.readings,
        )  # fmt: skip


async def test_the_clicks_of_a_link_are_read_once_for_all_who_watch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Twenty pages of one link cost one reading; a silent shard is no event; and with the last page nothing is
    kept of the link."""
    monkeypatch.setattr(link_live, "SAMPLE_S", 0.01)
    shard = Shard()
    live = LinkLive(shard.get)
    with ExitStack() as stack:
        pages = [stack.enter_context(live.watch("code", "team")) for _ in range(20)]
        told = await unless_hung(asyncio.gather(*(newest() for newest in pages)))
        assert set(told) == {'{"clicks": 1}'}
        shard.is_silent = True
        waiting = asyncio.ensure_future(pages[0]())
        seen = shard.readings
        await until(lambda: shard.readings > seen + 2)
        shard.is_silent = False
        assert "null" not in await unless_hung(waiting)
    assert not live._samplers


async def test_whoever_may_not_see_a_link_is_told_that_it_is_gone() -> None:
    """A link that belongs to another account now has no clicks for those who watch it."""
    live = LinkLive(Shard().get)
    with live.watch("code", "others") as newest:
        assert await unless_hung(newest()) == '{"clicks": null}'
