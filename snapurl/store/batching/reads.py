"""Reads of links for redirects, batched per shard.

A shard has one query in flight, for all links that were requested since the one before (`snapurl/batcher.py`).
A single read is sent at once. Each query is sent after its links were requested, so a read never returns data
older than its request.

The shard answers per link, together with the state of its slot. A link is read again through the router, in a
call of its own, if the shard does not own the slot, if the slot is in hand-off, or if the answer was lost.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence

from ring.slots import slot_of
from snapurl.batcher import Batcher, Pending
from snapurl.model import MISSING, CachedLink, LinkOptions, in_ms
from snapurl.store.cluster.pool import Pool, Row, ShardFailed, ShardUnknown, too_busy
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

log = logging.getLogger("snapurl.reads")

FIND = load_queries("links")["find"]

LINKS_MAX = 500  # in one query
PENDING_MAX = 1_000  # reads per shard; then 503, as if no connection became free
PATIENCE_S = 0.05  # then the next query is sent while one is in flight


class _Read(Pending[Row | None]):
    """The answer is the shard's row, or None if the link has to be read in a call of its own."""

    __slots__ = ("code", "slot")

    def __init__(self, slot: int, code: str) -> None:
        super().__init__()
        self.slot = slot
        self.code = code


class ReadBatcher:
    """The reads of one process, each sent to the shard that is believed to own the slot."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router
        self._batcher = Batcher[str, _Read](
            "reads",
            self._send,
            items_max=LINKS_MAX,
            pending_max=PENDING_MAX,
            refusal=lambda shard: too_busy(shard).as_unavailable(),
            patience_s=PATIENCE_S,
        )

    async def find(self, code: str) -> CachedLink:
        """Returns the link as its owner has it, also when expired or deleted; MISSING if there is none.

        Raises Unavailable if the shard does not answer.
        """
        slot = slot_of(code)
        read = _Read(slot, code)
        self._batcher.submit(self._shards.map.owner(slot), read)
        row = await read.done
        if row is None or not self._router.settle(slot, row):
            row = (await self._router.read(slot, lambda pool: _rows(pool, [read])))[0]
        return _link(row)

    async def stop(self) -> None:
        """Cancels the reads that have no answer."""
        await self._batcher.stop()

    async def _send(self, shard: str, reads: Sequence[_Read]) -> None:
        try:
            rows = await _rows(self._shards.pool(shard), reads)
        except ShardFailed as error:
            if not isinstance(error, ShardUnknown):
                self._shards.refresh_soon()  # the slots may have left a shard that has been switched off
                if not error.sent:
                    raise error.as_unavailable() from error
        except Exception:  # PostgreSQL refuses one of them, and with it the query
            log.debug("a query for %d links was refused", len(reads), exc_info=True)
        else:
            for row in rows:
                reads[row["place"] - 1].answer(row)
            return
        for read in reads:
            read.answer(None)


async def _rows(pool: Pool, reads: Sequence[_Read]) -> Sequence[Row]:
    return await pool.fetch(FIND, [read.slot for read in reads], [read.code for read in reads])


def _link(row: Row) -> CachedLink:
    if row["version"] is None:
        return MISSING
    options = row["options"]
    return CachedLink(
        row["url"],
        row["redirect_status"],
        row["version"],
        in_ms(row["expires_at"]),
        row["is_deleted"],
        None if options is None else LinkOptions.of(*options),
    )
