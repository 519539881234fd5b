"""Lists over all shards: each slot's rows come from exactly one shard, also while slots move.

A shard that does not serve is left out, and the list says so. Its slots are those that no other shard serves. A
slot that is missing although its owner serves was just being moved: then the list is read again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ring.slots import SLOT_COUNT
from snapurl.errors import Unavailable
from snapurl.store.cluster.pool import ShardFailed
from snapurl.store.cluster.shards import Shards

ATTEMPTS = 50  # a list that was read while a slot changed its owner is read again after RETRY_S
RETRY_S = 0.02


@dataclass(frozen=True, slots=True)
class Listed:
    """The rows of all shards but `silent`, which serve nothing now."""

    rows: list[Mapping[str, Any]]
    silent: tuple[str, ...]


async def every_slot_once(shards: Shards, query: str, args: tuple[object, ...]) -> Listed:
    """Runs `query` on all shards that serve; each slot's rows come from exactly one shard.

    Raises Unavailable if no shard serves, or slots kept moving during ATTEMPTS attempts.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(RETRY_S)
        names = [shard.name for shard in shards.topology.shards]
        answers = await asyncio.gather(*(_read(shards, name, query, args) for name in names))
        silent = [name for name in names if not shards.serves(name)]
        silent += [failed.name for failed in answers if isinstance(failed, ShardFailed)]
        found = [answer for answer in answers if not isinstance(answer, ShardFailed)]
        if not found:
            raise Unavailable("no shard answers", retry_after_s=1.0)
        if _covers_once(shards, [slots for slots, _ in found], silent):
            return Listed([row for _, rows in found for row in rows], tuple(sorted(set(silent))))
        shards.refresh_soon()  # slots may have moved to a shard that is not known here yet
    raise Unavailable("slots are being moved", retry_after_s=1.0)


async def _read(
    shards: Shards, name: str, query: str, args: tuple[object, ...]
) -> tuple[list[int], list[Mapping[str, Any]]] | ShardFailed:
    try:
        return await shards.pool(name).fetch_with_slots(query, *args)
    except ShardFailed as error:
        return error


def _covers_once(shards: Shards, served: Sequence[Sequence[int]], silent: Sequence[str]) -> bool:
    """Whether each slot is served once, apart from those that may be on silent shards."""
    seen = set().union(*served)
    if len(seen) != sum(map(len, served)):
        return False
    return len(seen) == SLOT_COUNT or (
        bool(silent)
        and all(shards.map.may_be_at(slot, silent) for slot in range(SLOT_COUNT) if slot not in seen)
    )
