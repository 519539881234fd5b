"""Lists over all shards: each slot's rows come from exactly one shard, also while slots move.

A shard that does not serve is left out, and the list says so. Its slots are those that no other shard serves. A
slot that is missing although its owner serves was just being moved: then the list is read again.

`fetch_at` is for background work, which visits one shard after another and leaves a silent one for later.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import asyncpg

from ring.slots import SLOT_COUNT
from snapurl.errors import ConfigError, Unavailable
from snapurl.store.cluster.pool import Row, ShardFailed
from snapurl.store.cluster.shards import Shards

ATTEMPTS = 50  # a list that was read while a slot changed its owner is read again after RETRY_S
RETRY_S = 0.02

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Listed(Generic[T]):
    """The answers of all shards but `silent`, which serve nothing now."""

    answers: list[T]
    silent: tuple[str, ...]


async def every_slot_once(shards: Shards, read: Callable[[Any, list[int]], Awaitable[T]]) -> Listed[T]:
    """Reads from all shards that serve; each slot's rows come from exactly one shard.

    `read` gets a connection and the slots that its shard serves in the same snapshot. It must leave out the rows of
    all others. Raises Unavailable if no shard serves, or slots kept moving during ATTEMPTS attempts.
    """
    for attempt in range(ATTEMPTS):
        if attempt:
            await asyncio.sleep(RETRY_S)
        names = shards.names
        answers = await asyncio.gather(*(_read(shards, name, read) for name in names))
        silent = [name for name in names if not shards.serves(name)]
        silent += [failed.name for failed in answers if isinstance(failed, ShardFailed)]
        found = [answer for answer in answers if not isinstance(answer, ShardFailed)]
        if not found:
            raise Unavailable("no shard answers", retry_after_s=1.0)
        if _covers_once(shards, [slots for slots, _ in found], silent):
            return Listed([answer for _, answer in found], tuple(sorted(set(silent))))
        shards.refresh_soon()  # slots may have moved to a shard that is not known here yet
    raise Unavailable("slots are being moved", retry_after_s=1.0)


async def every_row_once(shards: Shards, query: str, args: tuple[object, ...]) -> Listed[Row]:
    """Returns the rows of `query` from all shards that serve. It must leave out the slots that its shard does not.

    Raises as `every_slot_once` does.
    """

    async def read(connection: Any, _: list[int]) -> list[Row]:
        rows: list[Row] = await connection.fetch(query, *args)
        return rows

    listed = await every_slot_once(shards, read)
    return Listed([row for rows in listed.answers for row in rows], listed.silent)


class ShardSilent(Exception):
    """A shard did not answer, or gave up."""


async def fetch_at(shards: Shards, name: str, query: str, *args: object) -> list[Row]:
    """Returns the rows of `query` from one shard. Raises ShardSilent."""
    try:
        return await shards.pool(name).fetch(query, *args)
    except (ShardFailed, ConfigError, asyncpg.PostgresError) as error:
        raise ShardSilent(f"shard {name}: {type(error).__name__}") from error


async def _read(
    shards: Shards, name: str, read: Callable[[Any, list[int]], Awaitable[T]]
) -> tuple[list[int], T] | ShardFailed:
    try:
        return await shards.pool(name).read_with_slots(read)
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
