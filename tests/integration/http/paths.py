"""The same service with the fast path and without it, side by side in this process, and requests to both.

Both run on the kind of event loop that workers run on, in a thread of its own, and so do their clients: what a
client sends between two pauses arrives as one packet.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import socket
import threading
from collections.abc import AsyncIterator, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any, TypeVar

import uvloop

from snapurl.app import App, create_app
from snapurl.clicks.tally import Sources
from snapurl.config import Settings
from snapurl.links import Draft
from snapurl.model import Link
from snapurl.run.worker import finish, start
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from snapurl.telemetry.metrics import (
    CREATES_FAST_PATH,
    HTTP_REQUESTS,
    HTTP_SECONDS,
    PROBLEMS,
    REDIRECTS,
    REDIRECTS_FAST_PATH,
    flush_timings,
)
from tests.integration.http.conversations import ALIAS

T = TypeVar("T")

LAST = b"GET /health/live HTTP/1.1\r\nhost: last\r\nconnection: close\r\n\r\n"
"""Ends a conversation, so that all of its answers are there when the connection is."""

ANSWER_S_MAX = 8.0
PAUSE_S = 0.001  # after which what was sent has been received: both ends are in one loop
OUTCOMES = ("redirected", "missing", "gone", "shut-out", "failed")

_RANDOM = re.compile(rb'(x-request-id: |"request_id": ")[0-9a-f]{16}\b')
_CODE = re.compile(rb'("code":"|"short_url":"[^"]*/|location: /api/v1/links/)[0-9A-Za-z]{7}(?=["\r])')
_MADE_AT = re.compile(rb'("created_at":")[^"]{27}(?=")')
_CREATED = re.compile(rb"\r\nlocation: /api/v1/links/([A-Za-z0-9_-]+)\r\n")


_NUMBERS = itertools.count(random.randrange(1_000_000))


def _without_chance(answers: bytes) -> bytes:
    answers = _RANDOM.sub(rb"\g<1>-", answers)
    return _MADE_AT.sub(rb"\g<1>-", _CODE.sub(rb"\g<1>-", answers))


class Loop:
    """An event loop in a thread of its own."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Does the work there and waits for it here."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, slots=True)
class Heard:
    """What came of a conversation: all bytes, without random ids, made-up codes and times; clicks by code, and
    where they came from; outcomes by the metrics; what the shards have of the links that were created.

    `ahead` is how many requests were answered ahead of Sanic: the one thing in which the sides may differ.
    """

    answers: bytes
    clicks: dict[str, int]
    sources: dict[str, Sources]
    outcomes: dict[str, int]
    counted: dict[str, float]
    created: list[Link | None]
    ahead: int = field(compare=False)


@dataclass
class Side:
    """One of the two services. Its clicks are not shipped while it runs."""

    app: App
    server: Any
    port: int
    is_finished: bool = False

    async def finish(self) -> None:
        """Stops as a worker does."""
        self.is_finished = True
        await finish(self.app, self.server)

    async def create(self, alias: str, url: str = "https://example.org/", **fields: Any) -> None:
        """A link."""
        fields = {"title": None, "tags": (), "redirect_status": 302, "expires_at": None, **fields}
        await self.app.ctx.services.links.create(Draft(url, alias, **fields), "", None)

    async def warm(self, *codes: str) -> None:
        """Sees to it that L1, if there is one, has these links."""
        if not self.app.ctx.services.settings.l1_links:
            return
        async with asyncio.timeout(10):
            while not all([await self._is_kept(code) for code in codes]):
                await asyncio.sleep(0.01)

    async def _is_kept(self, code: str) -> bool:
        cache = self.app.ctx.services.cache
        return await cache.resolve(code) is not None and cache.peek(code) is not None

    async def hear(self, parts: Sequence[bytes]) -> Heard:
        """Says the parts one by one, then LAST, over a connection of their own."""
        services = self.app.ctx.services
        services.tally.take()
        before, counted, ahead = self.outcomes(), self.counted(), self.ahead()
        alias = b"a%07d" % next(_NUMBERS)
        async with connected(self.port) as connection:
            answers = await _talk(connection, [*(part.replace(ALIAS, alias) for part in parts), LAST])
        after = self.outcomes()
        outcomes = {name: after[name] - before[name] for name in OUTCOMES}
        counts = {name: more for name, now in self.counted().items() if (more := now - counted.get(name, 0))}
        sources = services.tally.sources()
        clicks = {
            code.replace(alias.decode(), ALIAS.decode()): n for code, n in services.tally.take().items()
        }
        created = [await self._stored(code) for code in _CREATED.findall(answers)]
        said = _without_chance(answers.replace(alias, ALIAS))
        return Heard(said, clicks, sources, outcomes, counts, created, self.ahead() - ahead)

    async def _stored(self, code: bytes) -> Link | None:
        """What its shard has, but what is its own: code and time."""
        found = await self.app.ctx.services.links.get(code.decode(), None)
        return replace(found, code="", created_at=datetime.fromtimestamp(0, UTC))

    def ahead(self) -> int:
        """Requests answered ahead of Sanic so far."""
        self.app.ctx.fast_path.flush()
        return count(REDIRECTS_FAST_PATH) + count(CREATES_FAST_PATH)

    def counted(self) -> dict[str, float]:
        """Answers, how many of them were timed, and refusals, as the metrics have them."""
        flush_timings()
        samples = itertools.chain(*(metric.collect() for metric in (HTTP_REQUESTS, HTTP_SECONDS, PROBLEMS)))
        return {
            f"{sample.name}{sorted(sample.labels.items())}": sample.value
            for family in samples
            for sample in family.samples
            if sample.name.endswith(("_total", "_count"))
        }

    def outcomes(self) -> dict[str, int]:
        """Redirects by outcome, as the metrics have them."""
        self.app.ctx.fast_path.flush()
        return {name: count(REDIRECTS.labels(name)) for name in OUTCOMES}


@dataclass
class Pair:
    """Both services, and the loop that they run on."""

    loop: Loop
    fast: Side
    slow: Side

    def hear(self, *parts: bytes) -> tuple[Heard, Heard]:
        """The same conversation with both."""
        return self.loop.run(self.fast.hear(parts)), self.loop.run(self.slow.hear(parts))

    def agree(self, *parts: bytes) -> Heard:
        """What the fast one answered, after checking that the other one says the same and counts the same."""
        fast, slow = self.hear(*parts)
        assert fast == slow
        assert slow.ahead == 0
        return fast

    def create(self, alias: str, **fields: Any) -> None:
        """A link that both have in L1."""
        self.loop.run(self.fast.create(alias, **fields))
        self.warm(alias)

    def warm(self, *codes: str) -> None:
        for side in (self.fast, self.slow):
            self.loop.run(side.warm(*codes))


@contextmanager
def paired(settings: Settings, **config: object) -> Iterator[Pair]:
    """Both services, over empty or initialised shards; `config` is Sanic's."""
    loop = Loop()
    stop: list[Any] = []
    try:
        loop.run(migrate_all(settings))
        loop.run(ensure_cluster(settings))
        sides = []
        for is_fast in (True, False):
            stop.append(side(settings.model_copy(update={"fast_path": is_fast}), **config))
            sides.append(loop.run(stop[-1].__aenter__()))
        yield Pair(loop, *sides)
    finally:
        for each in reversed(stop):
            loop.run(each.__aexit__(None, None, None))
        loop.close()


@asynccontextmanager
async def side(settings: Settings, **config: object) -> AsyncIterator[Side]:
    """A service within this process, over shards that are initialised."""
    app = create_app(settings.model_copy(update={"click_flush_ms": 86_400_000}))
    app.config.update(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = await start(app, listener)
        service = Side(app, server, listener.getsockname()[1])
        try:
            yield service
        finally:
            if not service.is_finished:
                await service.finish()


@asynccontextmanager
async def connected(port: int, receive_bytes: int = 0) -> AsyncIterator[socket.socket]:
    """A plain socket: what was answered before a reset can be read from it. 0 leaves its buffer to the system."""
    with socket.socket() as connection:
        if receive_bytes:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
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


async def read_all(connection: socket.socket) -> bytes:
    """What comes until the connection ends. Fails if it does not within ANSWER_S_MAX."""
    answers = bytearray()
    try:
        async with asyncio.timeout(ANSWER_S_MAX):
            while chunk := await asyncio.get_running_loop().sock_recv(connection, 65_536):
                answers += chunk
    except ConnectionResetError:
        pass
    return bytes(answers)


def count(counter: Any) -> int:
    """What a counter of this process says."""
    return int(counter._value.get())
