"""Invalidations of changed links over Redis pub/sub: the subscription is known to be alive, or known to be lost.

Whatever goes wrong, the subscription counts as lost and is begun anew, also after a message that cannot be read: it
may have been an invalidation.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any

from redis.asyncio import Redis

from snapurl.cache.codec import decode_invalidation
from snapurl.redis_client import redis_fault
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import endless_task
from snapurl.telemetry.metrics import REDIS_FAILURES

log = logging.getLogger("snapurl.feed")

PING_S = 1.0  # of silence, then a ping
SILENCE_S_MAX = 2.0  # without a message or a pong, then the subscription counts as lost
RETRY_S = 0.25


class InvalidationFeed:
    """Calls `changed(code, version)` for each link in an invalidation that any worker publishes on `channel`.

    `gained` is called when the subscription stands, `lost` when it is gone. An invalidation that is published
    between these two is received, any other may be missed.
    """

    def __init__(
        self,
        redis: Redis,
        channel: str,
        *,
        changed: Callable[[str, int], None],
        gained: Callable[[], None],
        lost: Callable[[], None],
    ) -> None:
        self._redis = redis
        self._channel = channel
        self._changed = changed
        self._gained = gained
        self._lost = lost
        self._task: asyncio.Task[None] | None = None
        self._is_failing = False
        self.is_alive = False

    async def start(self) -> None:
        self._task = endless_task(self._run, "feed")

    async def stop(self) -> None:
        await cancel_and_wait(self._task)

    async def _run(self) -> None:
        while True:
            fault = "does not answer"
            try:
                await self._listen()
            except ValueError:
                fault = "has sent an invalidation that cannot be read"
            except Exception as error:
                fault = redis_fault(error)
            self._end(fault)
            await asyncio.sleep(RETRY_S)

    def _end(self, fault: str) -> None:
        REDIS_FAILURES.labels("feed").inc()
        if not self._is_failing:
            log.warning(
                "Redis %s: this worker does without its own cache until it has subscribed again", fault
            )
        self._is_failing = True
        self.is_alive = False
        self._lost()

    async def _listen(self) -> None:
        loop = asyncio.get_running_loop()
        async with self._redis.pubsub() as subscription:
            await subscription.subscribe(self._channel)
            received_at = loop.time()
            while loop.time() - received_at < SILENCE_S_MAX:
                message = await subscription.get_message(timeout=PING_S)
                if message is None:
                    await subscription.ping()
                else:
                    received_at = loop.time()
                    self._receive(message)

    def _receive(self, message: dict[str, Any]) -> None:
        """Raises ValueError for an invalidation that cannot be read."""
        if message["type"] == "subscribe":
            self.is_alive = True
            self._gained()
            if self._is_failing:
                log.warning("Redis sends invalidations again: this worker uses its own cache")
            self._is_failing = False
        elif message["type"] == "message":
            data = message["data"]
            codes, version = decode_invalidation(data if isinstance(data, str) else data.decode())
            for code in codes:
                self._changed(code, version)
