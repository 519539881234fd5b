"""Links for redirects, read from their shards together.

Theory. A read costs a shard, and us, mostly what any call costs: a round trip, and the way to it. So a shard is
asked one question at a time, for all links that have come to be wanted since the one before: a link that is wanted
alone is asked for at once, and the more are wanted, the more share a question. A question that takes longer than
PATIENCE_S holds nobody up: the next goes beside it, on a connection of its own. Every question is sent after all
that it asks for was wanted, so a read never answers with what was before it began.

Each link has an answer of its own, with what the shard says of its slot at that moment. Where the shard does not
answer for the slot, or its answer was lost, that one link is asked for alone, as any call is: along with the
move, and a second time.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass, field
from typing import Any

from ring.slots import slot_of
from snapurl.model import MISSING, CachedLink, in_ms
from snapurl.store.cluster.pool import Pool, Row, ShardFailed, ShardUnknown, too_busy
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import detached_task

FIND = load_queries("links")["find"]

LINKS_MAX = 500  # in one question
WAITING_MAX = 1_000  # unanswered links per shard; then 503, as when no connection comes free
PATIENCE_S = 0.05  # then the next question goes beside one that is not answered

Item = tuple[int, str, asyncio.Future[CachedLink]]  # the slot, the code, and what is found


@dataclass(slots=True)
class _Line:
    """The links of one shard: those that wait for the next question, and how many have no answer yet, these
    included."""

    waiting: deque[Item] = field(default_factory=deque)
    unanswered: int = 0
    asking: asyncio.Task[None] | None = None


class Reads:
    """The reads of one process, by the shard that each slot is believed to be at."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router
        self._lines: dict[str, _Line] = {}
        self._calls: set[asyncio.Task[None]] = set()

    def find(self, code: str) -> asyncio.Future[CachedLink]:
        """The link as its owner has it from now on, also when expired or deleted; MISSING if there is none.

        It fails with Unavailable when the shard does not answer.
        """
        slot = slot_of(code)
        name = self._shards.map.owner(slot)
        found: asyncio.Future[CachedLink] = asyncio.get_running_loop().create_future()
        line = self._lines.get(name) or self._lines.setdefault(name, _Line())
        if line.unanswered >= WAITING_MAX:
            found.set_exception(too_busy(name).as_unavailable())
            return found
        line.unanswered += 1
        line.waiting.append((slot, code, found))
        if line.asking is None:
            line.asking = detached_task(self._ask(name, line), f"questions to {name}")
        return found

    async def stop(self) -> None:
        """Gives up what is not answered yet."""
        await cancel_and_wait(*(line.asking for line in self._lines.values()), *self._calls)

    async def _ask(self, name: str, line: _Line) -> None:
        while line.waiting:
            items = [line.waiting.popleft() for _ in range(min(len(line.waiting), LINKS_MAX))]
            question = self._begin(self._question(name, line, items))
            await asyncio.wait((question,), timeout=PATIENCE_S)
        line.asking = None

    def _begin(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        call = asyncio.create_task(work, name="read of links")
        self._calls.add(call)
        call.add_done_callback(self._calls.discard)
        return call

    async def _question(self, name: str, line: _Line, items: Sequence[Item]) -> None:
        left = await self._left_by(name, items)
        line.unanswered -= len(items) - len(left)
        for item in left:
            self._begin(self._find_alone(line, item))

    async def _left_by(self, name: str, items: Sequence[Item]) -> Sequence[Item]:
        """Asks the shard; which of the links have to be asked for alone."""
        try:
            rows = await _rows(self._shards.pool(name), items)
        except ShardUnknown:
            return items
        except ShardFailed as error:
            self._shards.refresh_soon()  # slots may have left a shard that was switched off since
            if error.sent:
                return items
            for _, _, found in items:
                _fail(found, error.as_unavailable())
            return ()
        except Exception:  # one of them is not what PostgreSQL takes: the others must not suffer for it
            return items
        return [
            item for row in rows if (item := self._unless_found(items[row["place"] - 1], row)) is not None
        ]

    def _unless_found(self, item: Item, row: Row) -> Item | None:
        slot, _, found = item
        if row["outcome"] != "ok":
            self._router.settle(slot, row)
            return item
        _answer(found, row)
        return None

    async def _find_alone(self, line: _Line, item: Item) -> None:
        slot, _, found = item
        try:
            row = (await self._router.read(slot, lambda pool: _rows(pool, [item])))[0]
        except Exception as error:
            _fail(found, error)
        else:
            _answer(found, row)
        finally:
            line.unanswered -= 1


async def _rows(pool: Pool, items: Sequence[Item]) -> Sequence[Row]:
    return await pool.fetch(FIND, [slot for slot, _, _ in items], [code for _, code, _ in items])


def _answer(found: asyncio.Future[CachedLink], row: Row) -> None:
    if not found.done():  # whoever asked may have gone away
        found.set_result(_link(row))


def _fail(found: asyncio.Future[CachedLink], error: Exception) -> None:
    if not found.done():
        found.set_exception(error)


def _link(row: Row) -> CachedLink:
    if row["version"] is None:
        return MISSING
    return CachedLink(
        row["url"], row["redirect_status"], row["version"], in_ms(row["expires_at"]), row["is_deleted"]
    )
