"""The router: carries a call to the shard that owns a slot, through moves.

Theory. The map may be wrong at any time; only the shard's own `slots` row, read inside the same statement or
transaction as the data, decides. So a call is simply tried at the believed owner:

- *answered*: the shard owned the slot when it answered. Done.
- *moved*: the shard names the new owner and its epoch, if it knows. The map takes a claim only when its epoch
  is higher than what it has, so old news never undo new ones, and two shards that point at each other cannot
  make a request circle for longer than its bound.
- *busy*: the slot is in hand-off. The connection is already back in its pool (a waiting request must not hold
  one, or the requests that wait would starve those that need not), and the call is tried again in 2-20 ms,
  with jitter, for `busy_wait_ms` in all; then 503 with Retry-After.

A failed shard is not retried here: what a failure may have done only the caller knows (`ShardFailed.sent`).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TypeVar

from tenacity import AsyncRetrying, RetryError, retry_if_result, stop_after_delay, wait_random

from snapurl.store.cluster.fence import Answered, Busy, Moved, read_verdict
from snapurl.store.cluster.pool import CLUSTER, Pool, Row, ShardFailed, ShardUnknown, WrongShard
from snapurl.store.cluster.shards import Shards, unavailable
from snapurl.telemetry.metrics import FENCE_REFUSALS

Call = Callable[[Pool], Awaitable[Sequence[Row]]]
Item = TypeVar("Item")

RETRY_WAIT_MIN_S = 0.002
RETRY_WAIT_MAX_S = 0.020
HAND_OFF_LOG_S = 0.2  # between two log lines of slots that stay in hand-off; each costs a read of the slot

log = logging.getLogger("snapurl.router")


class Router:
    """Finds the owner of a slot and keeps asking while the slot moves."""

    def __init__(self, shards: Shards, busy_wait_ms: int) -> None:
        self._shards = shards
        self._busy_wait_s = busy_wait_ms / 1000
        self._log_after = float("-inf")

    async def at_owner(self, slot: int, call: Call) -> Sequence[Row]:
        """The rows of `call` at the owner of `slot`; each call answers with at least one row.

        Raises ShardFailed, and Unavailable when the slot stays in hand-off for too long.
        """
        rows = await self._try(slot, call)
        if rows is not None:
            return rows
        try:
            found: Sequence[Row] = await self._retrying()(self._try, slot, call)
        except RetryError:
            await self.log_hand_off(slot)
            raise unavailable(slot) from None
        return found

    async def log_hand_off(self, slot: int) -> None:
        """Logs that a call timed out on a slot in hand-off, with the id of its move."""
        if time.monotonic() < self._log_after:
            return
        self._log_after = time.monotonic() + HAND_OFF_LOG_S
        shard = self._shards.map.owner(slot)
        try:
            rows = await self._shards.pool(shard).fetch(CLUSTER["move"], slot)
        except (ShardFailed, WrongShard):
            rows = []
        move = str(rows[0]["move_token"]) if rows else ""
        what = f"{rows[0]['state']}, from or to {rows[0]['peer']}" if rows else "no move is known any more"
        refused = "a call timed out after %.1f s on a slot in hand-off (%s)"
        log.warning(refused, self._busy_wait_s, what, extra={"shard": shard, "slot": slot, "move": move})

    async def read(self, slot: int, call: Call) -> Sequence[Row]:
        """As `at_owner`, for calls that change nothing: a lost connection is tried once more."""
        try:
            return await self.at_owner(slot, call)
        except ShardFailed as error:
            if not error.sent:
                raise error.as_unavailable() from error
        try:
            return await self.at_owner(slot, call)
        except ShardFailed as error:
            raise error.as_unavailable() from error

    async def _try(self, slot: int, call: Call) -> Sequence[Row] | None:
        try:
            rows = await call(self._shards.pool(self._shards.map.owner(slot)))
        except ShardUnknown:
            return None
        except ShardFailed:
            self._shards.refresh_soon()  # the slot may have left a shard that was switched off since
            raise
        return rows if self.settle(slot, rows[0]) else None

    def settle(self, slot: int, row: Row) -> bool:
        """True if `row` is the owner's answer; else takes the news in it: try the call again."""
        match read_verdict(row):
            case Answered():
                return True
            case Moved(peer, epoch):
                FENCE_REFUSALS.labels("moved").inc()
                if peer is None or epoch is None or not self._shards.map.learn(slot, peer, epoch):
                    self._shards.refresh_soon()
                return False
            case Busy():
                FENCE_REFUSALS.labels("busy").inc()
                self._shards.refresh_soon()  # the target may own it already, and the source not know yet
                return False

    def _retrying(self) -> AsyncRetrying:
        return AsyncRetrying(
            stop=stop_after_delay(self._busy_wait_s),
            wait=wait_random(RETRY_WAIT_MIN_S, RETRY_WAIT_MAX_S),
            retry=retry_if_result(lambda rows: rows is None),
        )

    # -- many slots at once ----------------------------------------------------------------------------------

    def group(self, items: Sequence[Item], slot_of_item: Callable[[Item], int]) -> dict[str, list[Item]]:
        """The items by believed owner, each group in ascending order of slot."""
        groups: dict[str, list[Item]] = {}
        for item in sorted(items, key=slot_of_item):
            groups.setdefault(self._shards.map.owner(slot_of_item(item)), []).append(item)
        return groups

    async def until_settled(self, attempt: Callable[[], Awaitable[bool]]) -> bool:
        """Calls `attempt` until it says that nothing is left to do; False if the bound is reached."""
        if await attempt():
            return True
        retrying = self._retrying().copy(retry=retry_if_result(lambda settled: not settled))
        try:
            await retrying(attempt)
        except RetryError:
            return False
        return True
