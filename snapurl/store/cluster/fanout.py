"""Listings over all shards: each slot's rows from exactly one of them, also while slots move."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ring.slots import SLOT_COUNT
from snapurl.errors import Unavailable
from snapurl.store.cluster.pool import Pool
from snapurl.store.cluster.shards import Shards

ATTEMPTS = 50  # a listing read while a slot changed hands is read again, with RETRY_S between
RETRY_S = 0.02


async def every_slot_once(shards: Shards, query: str, args: tuple[object, ...]) -> list[Mapping[str, Any]]:
    """The rows of `query` from all shards, such that each slot's rows come from exactly one of them.

    Raises Unavailable when a shard does not answer or the slots do not come to rest.
    """

    async def ask(pool: Pool) -> tuple[list[int], list[Mapping[str, Any]]]:
        return await pool.fetch_with_slots(query, *args)

    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(RETRY_S)
        answers = await shards.ask_all(ask)
        if _covers_once(slots for slots, _ in answers):
            return [row for _, rows in answers for row in rows]
        shards.refresh_soon()  # slots may have gone to a shard of which no topology has come yet
    raise Unavailable("slots are being moved", retry_after_s=1.0)


def _covers_once(served: Iterable[Sequence[int]]) -> bool:
    seen: set[int] = set()
    total = 0
    for slots in served:
        seen.update(slots)
        total += len(slots)
    return total == SLOT_COUNT and len(seen) == SLOT_COUNT
