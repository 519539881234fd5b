"""Creates that come at the same time go to their shard in one call.

One call per shard is under way at a time; what comes meanwhile goes with the next one, and what comes alone goes
alone, at once. So under load many creates share a round trip, a transaction and a flush to the disk.

Each has an answer of its own: the function says per link what came of it. When a call fails, all its creates have
failed as if each had been sent alone, and whoever asked repeats his own by its token.
"""

from __future__ import annotations

import asyncio
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from ring.slots import slot_of
from snapurl.metrics import POOL_WAITS_REFUSED
from snapurl.ports import NewLink
from snapurl.store.pool import Pool, ShardFailed
from snapurl.store.queries import load_queries

SQL = load_queries("links")

LINKS_MAX = 32  # in one call, which holds a lock on the slot of each
WAITING_MAX = 1_000  # per shard; then 503, as when no connection comes free

Row = Mapping[str, Any]
Waiting = tuple[NewLink, asyncio.Future[Row]]


@dataclass(slots=True)
class _Line:
    """The creates that wait for one shard, and the task that sends them; a line that is empty is forgotten."""

    waiting: deque[Waiting] = field(default_factory=deque)
    sender: asyncio.Task[None] | None = None


class Together:
    """The creates of one process, by shard."""

    def __init__(self) -> None:
        self._lines: dict[Pool, _Line] = {}

    async def create(self, pool: Pool, new: NewLink) -> Sequence[Row]:
        """The row of the shard's answer. Raises ShardFailed."""
        line = self._lines.setdefault(pool, _Line())
        if len(line.waiting) >= WAITING_MAX:
            POOL_WAITS_REFUSED.labels(pool.name).inc()
            raise ShardFailed(pool.name, "is too busy", sent=False)
        done: asyncio.Future[Row] = asyncio.get_running_loop().create_future()
        line.waiting.append((new, done))
        if line.sender is None:
            line.sender = asyncio.create_task(self._send(pool, line), name=f"creates on {pool.name}")
        return (await done,)

    async def _send(self, pool: Pool, line: _Line) -> None:
        """Calls the shard until nothing waits."""
        while line.waiting:
            items = [line.waiting.popleft() for _ in range(min(len(line.waiting), LINKS_MAX))]
            try:
                await _answer(pool, items)
            except ShardFailed as error:
                _fail(items, error)
            except Exception:  # one of them is not what PostgreSQL takes: the others must not suffer for it
                for item in items:
                    try:
                        await _answer(pool, [item])
                    except Exception as error:
                        _fail([item], error)
        del self._lines[pool]


async def _answer(pool: Pool, items: Sequence[Waiting]) -> None:
    rows = await _call(pool, [new for new, _ in items])
    for (_, done), row in zip(items, rows, strict=True):
        if not done.done():  # its client may have gone away
            done.set_result(row)


def _fail(items: Sequence[Waiting], error: Exception) -> None:
    for _, done in items:
        if not done.done():
            done.set_exception(error)


async def _call(pool: Pool, links: Sequence[NewLink]) -> Sequence[Row]:
    if len(links) == 1:
        new = links[0]
        return await pool.fetch(
            SQL["create"], slot_of(new.code), new.code, new.url, new.title, list(new.tags), new.redirect_status,
            new.expires_at, new.owner, new.token,
        )  # fmt: skip
    payload = [{**create_item(new), "slot": slot_of(new.code), "place": n} for n, new in enumerate(links)]
    rows = await pool.fetch(SQL["create_many"], json.dumps(payload))
    return sorted(rows, key=lambda row: int(row["place"]))


def create_item(new: NewLink) -> dict[str, Any]:
    """A link as `link_create_many_v1` takes it, without its slot and place."""
    return {
        "code": new.code,
        "url": new.url,
        "title": new.title,
        "tags": list(new.tags),
        "redirect_status": new.redirect_status,
        "expires_at": new.expires_at.isoformat() if new.expires_at else None,
        "owner": new.owner,
        "token": str(new.token),
    }
