"""Uses of links with `max_clicks`: the owner of the slot gives them, and counts each before it is given.

The requests for one link share a call: one is in flight, and those that arrive meanwhile form the next. So a link
that everybody wants takes one connection to its shard, and waits for the lock of one row once per call. A lost
reply loses the uses of its call: there may be fewer redirects than `max_clicks`, never more.

That no use is left stays true for a version of a link. It is remembered, so that a used up link costs its shard
nothing.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from enum import StrEnum

from ring.slots import slot_of
from snapurl.batcher import Batcher, Pending
from snapurl.errors import Unavailable
from snapurl.store.cluster.pool import ShardFailed
from snapurl.store.cluster.router import Router
from snapurl.store.queries import load_queries

USE = load_queries("links")["use"]

USES_MAX = 32  # in one call: so many are lost with its reply
PENDING_MAX = 1_000  # requests per link that wait; then 503
SPENT_MAX = 10_000  # links that are known to be used up; the least recently used is asked for again


class Use(StrEnum):
    """What the owner says: the request may redirect, no use is left, or the link has another version."""

    GIVEN = "given"
    SPENT = "spent"
    CHANGED = "changed"


class _Request(Pending[Use]):
    """`takes` is whether it uses one up; else it is only told whether any is left."""

    __slots__ = ("takes",)

    def __init__(self, *, takes: bool) -> None:
        super().__init__()
        self.takes = takes


class UseBatcher:
    """The uses that one process asks for."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._spent: OrderedDict[str, int] = OrderedDict()
        self._batcher = Batcher[tuple[str, int], _Request](
            "uses",
            self._send,
            items_max=USES_MAX,
            pending_max=PENDING_MAX,
            refusal=lambda _: Unavailable("too many requests wait for one link", retry_after_s=1.0),
        )

    async def use(self, code: str, version: int, *, takes: bool) -> Use:
        """Returns whether a request may redirect to a link of that version. Raises Unavailable."""
        if self._spent.get(code) == version:
            self._spent.move_to_end(code)
            return Use.SPENT
        request = _Request(takes=takes)
        self._batcher.submit((code, version), request)
        return await request.done

    async def stop(self) -> None:
        """Cancels the requests that have no answer."""
        await self._batcher.stop()

    async def _send(self, link: tuple[str, int], requests: Sequence[_Request]) -> None:
        code, version = link
        slot = slot_of(code)
        wanted = sum(request.takes for request in requests)
        try:
            row = (
                await self._router.at_owner(slot, lambda pool: pool.fetch(USE, slot, code, version, wanted))
            )[0]
        except ShardFailed as error:
            raise error.as_unavailable() from error
        if row["outcome"] == "changed":
            for request in requests:
                request.answer(Use.CHANGED)
            return
        given, is_spent = row["given"], row["uses_left"] == 0
        if is_spent:
            self._remember(code, version)
        for request in requests:
            if request.takes:
                request.answer(Use.GIVEN if given else Use.SPENT)
                given = max(0, given - 1)
            else:
                request.answer(Use.SPENT if is_spent else Use.GIVEN)

    def _remember(self, code: str, version: int) -> None:
        self._spent[code] = version
        self._spent.move_to_end(code)
        while len(self._spent) > SPENT_MAX:
            self._spent.popitem(last=False)
