"""The same service with the fast path and without it, side by side in this process, and requests to both.

Both run on the event loop of workers (uvloop), in a separate thread, and so do their clients. What a client sends
between two pauses arrives as one packet.
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
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar

import uvloop
from msgspec.structs import replace
from prometheus_client import Histogram

from snapurl.app import App, create_app
from snapurl.clicks.agents import read_families
from snapurl.clicks.classifier import Classifier
from snapurl.config import Settings
from snapurl.model import Draft, Link
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
from tests.support.clicks import classified, plain
from tests.support.waits import HANG_S

T = TypeVar("T")

LAST = b"GET /health/live HTTP/1.1\r\nhost: last\r\nconnection: close\r\n\r\n"
"""Ends a conversation, so that all of its answers are there when the connection is."""

PAUSE_S = 0.001  # long enough for a packet to arrive: both ends are on one loop
OUTCOMES = (
    "redirected",
    "expired",
    "missing",
    "gone",
    "switched-off",
    "not-yet",
    "password",
    "refused",
    "shut-out",
    "loop",
    "failed",
)

SALT = b"salt"
COUNTS = {
    "snapurl_http_requests_total": HTTP_REQUESTS,
    "snapurl_http_request_seconds_count": HTTP_SECONDS,
    "snapurl_problems_total": PROBLEMS,
}

DATE = "Thu, 01 Jan 1970 00:00:00 GMT"
_DATE = re.compile(rb"(\r\ndate: )[A-Z][a-z]{2}, \d\d [A-Z][a-z]{2} \d{4} \d\d:\d\d:\d\d GMT(?=\r\n)")
_RANDOM = re.compile(rb'(x-request-id: |"request_id": ")[0-9a-f]{16}\b')
_CODE = re.compile(rb'("code":"|"short_url":"[^"]*/|location: /api/v1/links/)[0-9A-Za-z]{7}(?=["\r])')
_MADE_AT = re.compile(rb'("created_at":")[^"]{27}(?=")')
_CREATED = re.compile(rb"\r\nlocation: /api/v1/links/([A-Za-z0-9_-]+)\r\n")


_NUMBERS = itertools.count(random.randrange(1_000_000))


def undated(answers: bytes) -> bytes:
    """Returns the responses with DATE as their Date."""
    return _DATE.sub(rb"\g<1>" + DATE.encode(), answers)


def _without_chance(answers: bytes) -> bytes:
    answers = _RANDOM.sub(rb"\g<1>-", answers)
    return _MADE_AT.sub(rb"\g<1>-", _CODE.sub(rb"\g<1>-", answers))


class Loop:
    """An event loop in a separate thread."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine on the loop and waits for it."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()

    def close(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


@dataclass(frozen=True, slots=True)
class Exchange:
    """The result of a conversation: all bytes, without random ids, generated codes and times; clicks by code and
    source; outcomes in the metrics; the created links in the shards.

    `fast_answers` is the number of requests that the fast path answered: the only allowed difference.
    """

    answers: bytes
    clicks: dict[str, int]
    said: object
    outcomes: dict[str, int]
    counted: dict[str, float]
    created: list[Link | None]
    fast_answers: int = field(compare=False)


@dataclass
class Side:
    """One of the two services. Its clicks are not shipped while it runs."""

    app: App
    server: Any
    port: int
    is_finished: bool = False

    async def finish(self) -> None:
        """Stops the service as a worker does."""
        self.is_finished = True
        await finish(self.app, self.server)

    async def create(self, alias: str, url: str = "https://example.org/", **fields: Any) -> None:
        """Creates a link."""
        await self.app.ctx.services.links.create(Draft(url, alias=alias, **fields), "", None)

    async def warm(self, *codes: str) -> None:
        """Loads these links into L1, if there is one."""
        if not self.app.ctx.services.settings.l1_links:
            return
        async with asyncio.timeout(HANG_S):
            while not all([await self._is_kept(code) for code in codes]):
                await asyncio.sleep(0.01)

    async def _is_kept(self, code: str) -> bool:
        cache = self.app.ctx.services.cache
        return await cache.resolve(code) is not None and cache.peek(code) is not None

    async def converse(self, parts: Sequence[bytes]) -> Exchange:
        """Sends the parts one by one, then LAST, over a new connection."""
        services = self.app.ctx.services
        services.tally.take()
        before, counted, fast_answers = self.outcomes(), self.counted(), self.fast_answers()
        alias = b"a%07d" % next(_NUMBERS)
        async with connected(self.port) as connection:
            answers = await _talk(connection, [*(part.replace(ALIAS, alias) for part in parts), LAST])
        after = self.outcomes()
        outcomes = {name: after[name] - before[name] for name in OUTCOMES}
        counts = {name: more for name, now in self.counted().items() if (more := now - counted.get(name, 0))}
        by = Classifier(read_families, self.app.ctx.origins.read)
        found = classified(services.tally, by, SALT, (alias.decode(), ALIAS.decode()))
        created = [await self._stored(code) for code in _CREATED.findall(answers)]
        said = _without_chance(answers.replace(alias, ALIAS))
        return Exchange(
            said,
            found.clicks,
            (found.bots, plain(found.sources), found.visitors),
            outcomes,
            counts,
            created,
            self.fast_answers() - fast_answers,
        )

    async def _stored(self, code: bytes) -> Link | None:
        """Returns the link's row, without code and time."""
        found = await self.app.ctx.services.links.get(code.decode(), None)
        return replace(found, code="", created_at=datetime.fromtimestamp(0, UTC))

    def fast_answers(self) -> int:
        """Returns how many requests the fast path has answered so far."""
        self.app.ctx.fast_path.flush()
        return count(REDIRECTS_FAST_PATH) + count(CREATES_FAST_PATH)

    def counted(self) -> dict[str, float]:
        """Returns the metrics' counts of answers, of timed answers, and of refusals."""
        flush_timings()
        return {
            f"{name}{sorted(zip(metric._labelnames, labels, strict=True))}": _counted(child)
            for name, metric in COUNTS.items()
            for labels, child in metric._metrics.items()
        }

    def outcomes(self) -> dict[str, int]:
        """Returns the metrics' counts of redirects by outcome."""
        self.app.ctx.fast_path.flush()
        return {name: count(REDIRECTS.labels(name)) for name in OUTCOMES}


@dataclass
class Pair:
    """Both services, and the loop that they run on."""

    loop: Loop
    fast: Side
    slow: Side

    def converse(self, *parts: bytes) -> tuple[Exchange, Exchange]:
        """Has the same conversation with both services."""
        return self.loop.run(self.fast.converse(parts)), self.loop.run(self.slow.converse(parts))

    def agree(self, *parts: bytes) -> Exchange:
        """Returns the result with the fast path. Asserts that the other side's is the same."""
        fast, slow = self.converse(*parts)
        assert fast == slow
        assert slow.fast_answers == 0
        return fast

    def create(self, alias: str, **fields: Any) -> None:
        """Creates a link and loads it into L1 of both services."""
        self.loop.run(self.fast.create(alias, **fields))
        self.warm(alias)

    def warm(self, *codes: str) -> None:
        for side in (self.fast, self.slow):
            self.loop.run(side.warm(*codes))


@contextmanager
def paired(settings: Settings, **config: object) -> Iterator[Pair]:
    """Yields both services on empty or initialised shards; `config` is Sanic's."""
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
    """Runs a service in this process, on initialised shards."""
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
    """Yields a plain socket that can read responses sent before a reset. 0 keeps the system's buffer size."""
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
        pass  # the service closed the connection; the responses before that can still be read
    return await read_all(connection)


async def read_all(connection: socket.socket) -> bytes:
    """Returns all bytes until the connection ends, with DATE as their Date. Fails if it never does."""
    answers = bytearray()
    try:
        async with asyncio.timeout(HANG_S):
            while chunk := await asyncio.get_running_loop().sock_recv(connection, 65_536):
                answers += chunk
    except ConnectionResetError:
        pass
    return undated(bytes(answers))


def _counted(child: Any) -> float:
    """Returns the value of a counter, or how much a histogram has observed: `collect` takes ten times as long."""
    values = child._buckets if isinstance(child, Histogram) else [child._value]
    return float(sum(value.get() for value in values))


def count(counter: Any) -> int:
    """Returns the value of a counter of this process."""
    return int(counter._value.get())
