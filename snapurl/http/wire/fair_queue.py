"""Who is served next when there is more to do than can be done.

Theory. Requests that wait for shards all wait in the same lines, so whoever asks most has most of the places there.
Here a client has at most CLIENT_MAX requests in work, and a worker IN_WORK_MAX; the others wait in a line of their
own client, and the lines take turns. So a client that asks for little waits for a few turns, however long the lines
of others are. A request that has waited WAIT_S_MAX is refused with Retry-After, before anything was done for it.

Waiting costs no work, and a connection has one request in hand: no more can wait than there are connections, and a
client that sends on regardless is held back by TCP. Refusing at once would cost more than it saves, since each
refusal is followed by the next request. A request has its turn once its body is there, so slow bodies hold none.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from snapurl.errors import Unavailable
from snapurl.telemetry.metrics import FAIR_QUEUE_REFUSED

CLIENT_MAX = 128  # the most that goes to four shards in one call each
IN_WORK_MAX = 512
WAIT_S_MAX = 1.0


class FairQueue:
    """The turns of one worker."""

    def __init__(
        self, client_max: int = CLIENT_MAX, in_work_max: int = IN_WORK_MAX, wait_s: float = WAIT_S_MAX
    ) -> None:
        self._client_max = client_max
        self._in_work_max = in_work_max
        self._wait_s = wait_s
        self._in_work: dict[str, int] = {}
        self._total = 0
        self._lines: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    @asynccontextmanager
    async def of(self, client: str) -> AsyncIterator[None]:
        """One turn of `client`, kept until the end of the block. Raises Unavailable."""
        await self.begin(client)
        try:
            yield
        finally:
            self.end(client)

    async def begin(self, client: str) -> None:
        """Begins a turn of `client`, which whoever began it ends. Raises Unavailable."""
        if not self.try_acquire(client):
            await self._wait(client)

    def try_acquire(self, client: str) -> bool:
        """Begins a turn of `client` if it need not wait for one; whoever began it ends it."""
        if client in self._lines or not self._has_room(client):
            return False
        self._begin(client)
        return True

    def _has_room(self, client: str) -> bool:
        return self._total < self._in_work_max and self._in_work.get(client, 0) < self._client_max

    def _begin(self, client: str) -> None:
        self._total += 1
        self._in_work[client] = self._in_work.get(client, 0) + 1

    def end(self, client: str) -> None:
        """Ends a turn of `client`: the next one begins."""
        self._total -= 1
        left = self._in_work[client] - 1
        if left:
            self._in_work[client] = left
        else:
            del self._in_work[client]
        self._call_next()

    async def _wait(self, client: str) -> None:
        """Returns when it is the turn of this request, which has begun then."""
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._lines.setdefault(client, deque()).append(turn)
        try:
            async with asyncio.timeout(self._wait_s):
                await turn
        except BaseException as error:
            if turn.done() and not turn.cancelled():  # called and given up in the same moment
                self.end(client)
            else:
                self._leave(client, turn)
            if isinstance(error, TimeoutError):
                FAIR_QUEUE_REFUSED.inc()
                raise Unavailable("too many requests wait already", retry_after_s=1.0) from None
            raise

    def _leave(self, client: str, turn: asyncio.Future[None]) -> None:
        line = self._lines.get(client)
        if line is not None and turn in line:
            line.remove(turn)  # those at the front have waited longest: it is found at once
            if not line:
                del self._lines[client]

    def _call_next(self) -> None:
        """Gives the free places to the lines in turn."""
        for client in list(self._lines):
            if self._total >= self._in_work_max:
                return
            if self._has_room(client):
                line = self._lines[client]
                turn = line.popleft()
                if line:
                    self._lines.move_to_end(client)
                else:
                    del self._lines[client]
                if not turn.done():
                    self._begin(client)
                    turn.set_result(None)
