"""Lists over all shards: each slot's rows come from exactly one shard, also while slots move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ring.slots import SLOT_COUNT
from snapurl.errors import Unavailable
from snapurl.store.cluster.pool import Pool
from snapurl.store.cluster.shards import Shards

ATTEMPTS = 50  # a list that was read while a slot changed its owner is read again after RETRY_S
RETRY_S = 0.02


async def every_slot_once(shards: Shards, query: str, args: tuple[object, ...]) -> list[Mapping[str, Any]]:
    """Runs `query` on all shards and returns its rows; each slot's rows come from exactly one shard.

    Raises Unavailable if a shard does not answer, or slots kept moving during ATTEMPTS attempts.
    """

    async def call(pool: Pool) -> tuple[list[int], list[Mapping[str, Any]]]:
        return await pool.fetch_with_slots(query, *args)

    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(RETRY_S)
        answers = await shards.call_all(call)
        if _covers_once(slots for slots, _ in answers):
            return [row for _, rows in answers for row in rows]
        shards.refresh_soon()  # slots may have moved to a shard that is not known here yet
    raise Unavailable("slots are being moved", retry_after_s=1.0)


def _covers_once(served: Iterable[Sequence[int]]) -> bool:
    seen: set[int] = set()
    total = 0
    for slots in served:
        seen.update(slots)
        total += len(slots)
    return total == SLOT_COUNT and len(seen) == SLOT_COUNT
