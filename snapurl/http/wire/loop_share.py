"""A client's share of the event loop: how many of its requests begin per iteration.

Theory. A request that is refused at once, or answered from memory, runs to its end without a pause. Sanic then goes
straight on to the next request of the same packet. So a client with many connections, or with many requests in a
packet, would keep the event loop for as long as all of these take, and the redirects of others would wait. Here
only a few requests of a client begin in one iteration of the loop. Before the next ones begin, the loop reads what
others have sent, and answers it. Requests that wait begin in order, those of several clients side
by side.

A connection has one request at a time, so no more requests wait than there are connections. A client within its
share waits for nothing.
"""

from __future__ import annotations

import asyncio
from collections import deque

REQUESTS_PER_ITERATION = 4  # on Sanic's path
CREATES_PER_ITERATION = 32  # on the fast path: they cost less, and a shard takes as many in one call


class LoopShare:
    """The shares of all clients of one worker: `most` requests each per iteration."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._begun: dict[str, int] = {}  # in this iteration
        self._waiters: dict[str, deque[asyncio.Future[None]]] = {}
        self._is_scheduled = False

    async def begin(self, client: str) -> None:
        """Waits until the next request of `client` may begin."""
        begun = self._begun.get(client, 0)
        if begun >= self._most or client in self._waiters:
            waiter = asyncio.get_running_loop().create_future()
            self._waiters.setdefault(client, deque()).append(waiter)
            await waiter
            return
        self._begun[client] = begun + 1
        if not self._is_scheduled:
            self._is_scheduled = True
            asyncio.get_running_loop().call_soon(self._next_iteration)

    def _next_iteration(self) -> None:
        """Begins the next requests of those who wait."""
        self._begun.clear()
        for client, queue in list(self._waiters.items()):
            begun = 0
            while queue and begun < self._most:
                waiter = queue.popleft()
                if not waiter.done():  # it was cancelled: its client has disconnected
                    waiter.set_result(None)
                    begun += 1
            if not queue:
                del self._waiters[client]
            if begun:
                self._begun[client] = begun
        self._is_scheduled = bool(self._begun)
        if self._is_scheduled:
            asyncio.get_running_loop().call_soon(self._next_iteration)
