"""A fair queue of API requests: clients take turns when there are more than a worker handles at a time.

Theory. Without it all requests would wait for the same PostgreSQL connections, so the client with the most requests
would hold most of the places. Here a request needs a permit: CLIENT_PERMITS_MAX per client, PERMITS_MAX per worker.
Requests without one wait in the queue of their client, and free permits go to these queues in turn (round robin). A
client with few requests therefore waits for a few permits, however long the queues of other clients are. A request
that has waited WAIT_S_MAX is refused with Retry-After, before anything was done for it.

The queues need no bound of their own: a connection has one request at a time, so they hold at most as many requests
as there are connections, and TCP holds back a client that keeps sending. Refusing requests at once would cost more
than it saves, since each refusal is followed by the next request. A request asks for its permit after its body has
arrived, so slow bodies hold no permits.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from snapurl.errors import Unavailable
from snapurl.telemetry.metrics import FAIR_QUEUE_REFUSED

CLIENT_PERMITS_MAX = 128  # what four shards take in one call each: 32 creates
PERMITS_MAX = 512
WAIT_S_MAX = 1.0


class FairQueue:
    """The permits of one worker. Each acquired permit must be released."""

    def __init__(
        self,
        client_permits_max: int = CLIENT_PERMITS_MAX,
        permits_max: int = PERMITS_MAX,
        wait_s: float = WAIT_S_MAX,
    ) -> None:
        self._client_permits_max = client_permits_max
        self._permits_max = permits_max
        self._wait_s = wait_s
        self._permits: dict[str, int] = {}
        self._permits_total = 0
        self._waiters: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def permit(self, client: str) -> AsyncIterator[None]:
        """Holds a permit of `client` for the block. Raises Unavailable after WAIT_S_MAX."""
        await self.acquire(client)
        try:
            yield
        finally:
            self.release(client)

    @asynccontextmanager
    async def turn(self, client: str) -> AsyncIterator[None]:
        """As `permit`, but begins the block without one after WAIT_S_MAX.

        For work that must go on under overload, and of which the caller does one at a time.
        """
        is_held = True
        try:
            await self.acquire(client)
        except Unavailable:
            is_held = False
        try:
            yield
        finally:
            if is_held:
                self.release(client)

    async def acquire(self, client: str) -> None:
        """Waits for a permit of `client`. Raises Unavailable after WAIT_S_MAX."""
        if not self.try_acquire(client):
            await self._wait(client)

    def try_acquire(self, client: str) -> bool:
        """Whether a permit of `client` was free, and is now acquired."""
        if client in self._waiters or not self._has_permit(client):
            return False
        self._grant(client)
        return True

    def _has_permit(self, client: str) -> bool:
        return (
            self._permits_total < self._permits_max
            and self._permits.get(client, 0) < self._client_permits_max
        )

    def _grant(self, client: str) -> None:
        self._permits_total += 1
        self._permits[client] = self._permits.get(client, 0) + 1

    def release(self, client: str) -> None:
        """Returns a permit of `client` and grants it to the next waiter."""
        self._permits_total -= 1
        left = self._permits[client] - 1
        if left:
            self._permits[client] = left
        else:
            del self._permits[client]
        self._grant_next()

    async def _wait(self, client: str) -> None:
        """Waits until `_grant_next` has granted a permit to this request."""
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.setdefault(client, deque()).append(waiter)
        try:
            async with asyncio.timeout(self._wait_s):
                await waiter
        except BaseException as error:
            if waiter.done() and not waiter.cancelled():  # granted and cancelled in the same moment
                self.release(client)
            else:
                self._remove(client, waiter)
            if isinstance(error, TimeoutError):
                FAIR_QUEUE_REFUSED.inc()
                raise Unavailable(
                    "too many requests wait already", is_public=True, retry_after_s=1.0
                ) from None
            raise

    def _remove(self, client: str, waiter: asyncio.Future[None]) -> None:
        queue = self._waiters.get(client)
        if queue is not None and waiter in queue:
            queue.remove(waiter)  # fast: the waiters that time out are at the front
            if not queue:
                del self._waiters[client]

    def _grant_next(self) -> None:
        """Grants the free permits, one to each client in turn."""
        for client in list(self._waiters):
            if self._permits_total >= self._permits_max:
                return
            if self._has_permit(client):
                queue = self._waiters[client]
                waiter = queue.popleft()
                if queue:
                    self._waiters.move_to_end(client)
                else:
                    del self._waiters[client]
                if not waiter.done():
                    self._grant(client)
                    waiter.set_result(None)
