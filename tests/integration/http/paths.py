"""The same service with the fast path and without it, side by side in this process, and requests to both."""

from __future__ import annotations

import asyncio
import re
import socket
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from snapurl.app import App, create_app
from snapurl.config import Settings
from snapurl.metrics import REDIRECTS
from snapurl.worker import finish, start

LAST = b"GET /health/live HTTP/1.1\r\nhost: last\r\nconnection: close\r\n\r\n"
"""Ends a conversation, so that all of its answers are there when the connection is."""

ANSWER_S_MAX = 3.0
PAUSE_S = 0.001  # after which what was sent has been received: both ends are in one process
OUTCOMES = ("redirected", "missing", "gone", "shut-out", "failed")

_RANDOM = re.compile(rb'(x-request-id: |"request_id": ")[0-9a-f]{16}\b')


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a conversation: all bytes, without random ids; clicks by code; outcomes by the metrics."""

    answers: bytes
    clicks: dict[str, int]
    outcomes: dict[str, int]


@dataclass
class Side:
    """One of the two services. Its clicks are not shipped while it runs."""

    app: App
    server: Any
    port: int

    async def warm(self, *codes: str) -> None:
        """Sees to it that L1 has these links."""
        services = self.app.ctx.services
        async with asyncio.timeout(10):
            while not services.cache.hears_changes:
                await asyncio.sleep(0.01)
        for code in codes:
            await services.cache.resolve(code)

    async def hear(self, *parts: bytes) -> Heard:
        """Says the parts one by one, then LAST, over a connection of their own."""
        services = self.app.ctx.services
        services.tally.take()
        before = self.outcomes()
        async with connected(self.port) as connection:
            answers = await _talk(connection, [*parts, LAST])
        after = self.outcomes()
        outcomes = {name: after[name] - before[name] for name in OUTCOMES}
        return Heard(_RANDOM.sub(rb"\g<1>-", answers), services.tally.take(), outcomes)

    def outcomes(self) -> dict[str, int]:
        """Redirects by outcome, as the metrics have them."""
        self.app.ctx.fast_path.settle()
        return {name: int(REDIRECTS.labels(name)._value.get()) for name in OUTCOMES}

    async def protocol(self, connections: int = 1) -> Any:
        """The protocol of the newest connection, which has no types; waits until it is there."""
        async with asyncio.timeout(10):
            while len(self.server.connections) != connections:
                await asyncio.sleep(0.005)
        return next(iter(self.server.connections))


@asynccontextmanager
async def side(settings: Settings, **config: object) -> AsyncIterator[Side]:
    """A service within this process, over shards that are initialised."""
    app = create_app(settings.model_copy(update={"click_flush_ms": 86_400_000}))
    app.config.update(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = await start(app, listener)
        try:
            yield Side(app, server, listener.getsockname()[1])
        finally:
            await finish(app, server)


@asynccontextmanager
async def connected(port: int) -> AsyncIterator[socket.socket]:
    """A plain socket: what was answered before a reset can be read from it."""
    with socket.socket() as connection:
        connection.setblocking(False)
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", port))
        yield connection


async def _talk(connection: socket.socket, parts: Sequence[bytes]) -> bytes:
    loop = asyncio.get_running_loop()
    try:
        for part in parts:
            await loop.sock_sendall(connection, part)
            await asyncio.sleep(PAUSE_S)
    except (BrokenPipeError, ConnectionResetError):
        pass  # it was closed on us; what was answered before that is there
    return await read_all(connection)


async def read_all(connection: socket.socket, seconds: float = ANSWER_S_MAX) -> bytes:
    """What comes until the connection ends, or until nothing more comes in that time."""
    loop = asyncio.get_running_loop()
    answers = bytearray()
    deadline = time.monotonic() + seconds
    try:
        async with asyncio.timeout_at(loop.time() + deadline - time.monotonic()):
            while chunk := await loop.sock_recv(connection, 65_536):
                answers += chunk
    except (TimeoutError, ConnectionResetError):
        pass
    return bytes(answers)
