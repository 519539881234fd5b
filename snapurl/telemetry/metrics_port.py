"""The metrics port of a program: its metrics, and its readiness with names and causes.

It is a port of its own, which visitors cannot reach: what it says is for operators. It speaks as much of HTTP/1.1
as Prometheus, curl and health checks need: GET, and one request per connection. Each answer is made once for all
who wait for it. The workers of a service share one listening socket: any of them answers, with the metrics of all.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from http import HTTPStatus
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest

from snapurl.errors import ConfigError
from snapurl.tasks import CachedCall
from snapurl.telemetry.metrics import flush_timings
from snapurl.telemetry.multiprocess import collect

log = logging.getLogger("snapurl.metrics")

CONNECTIONS_MAX = 32  # per process; more are closed at once
HEAD_BYTES_MAX = 8_192
REQUEST_S_MAX = 5.0  # for the head to arrive, and again for the answer to be taken
BACKLOG = 64


@dataclass(frozen=True, slots=True)
class Reply:
    status: int
    content_type: str
    body: bytes

    @classmethod
    def of(cls, document: Mapping[str, object], status: int = 200) -> Reply:
        """Returns a JSON answer."""
        return cls(status, "application/json", json.dumps(document).encode())


async def metrics(flush: Callable[[], None] = lambda: None) -> Reply:
    """Returns the metrics of all processes that share a directory for them, else those of this process.

    `flush` adds what this process has counted since it last did so. Other processes do that once a second.
    """
    flush()
    flush_timings()
    shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    text = await asyncio.to_thread(collect, Path(shared)) if shared else generate_latest(REGISTRY)
    return Reply(200, CONTENT_TYPE_LATEST, text)


def bind(host: str, port: int) -> socket.socket:
    """Opens the listening socket; port 0 is any free port. Raises ConfigError."""
    try:
        family, kind, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(BACKLOG)
        except BaseException:
            listener.close()
            raise
    except OSError as error:
        raise ConfigError(f"cannot serve metrics on {host}:{port}: {error.strerror}") from None
    listener.setblocking(False)
    return listener


@asynccontextmanager
async def serving(host: str, port: int, fault: Callable[[], str | None]) -> AsyncIterator[None]:
    """Serves the metrics of this process and its readiness during the block, unless `port` is 0.

    `fault` returns why the program does not work; None if it does. Raises ConfigError.
    """
    if not port:
        yield
        return

    async def ready() -> Reply:
        found = fault()
        status = "down" if found else "ok"
        return Reply.of({"status": status, "detail": found or "works"}, 503 if found else 200)

    own = MetricsPort({"/metrics": metrics, "/health/ready": ready})
    with bind(host, port) as listener:
        await own.start(listener)
        try:
            yield
        finally:
            await own.close()


class MetricsPort:
    """Serves `answers`, by path, until it is closed."""

    def __init__(self, answers: Mapping[str, Callable[[], Awaitable[Reply]]]) -> None:
        self._answers = {path: CachedCall(answer, age_s_max=0.0) for path, answer in answers.items()}
        self._server: asyncio.Server | None = None
        self._connections: set[asyncio.Task[None]] = set()

    async def start(self, listener: socket.socket) -> None:
        self._server = await asyncio.start_server(self._accept, sock=listener, limit=HEAD_BYTES_MAX)

    async def close(self) -> None:
        """Stops listening and drops the requests in progress."""
        if self._server is not None:
            self._server.close()
        for task in self._connections:
            task.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)
        for answer in self._answers.values():
            await answer.close()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if len(self._connections) >= CONNECTIONS_MAX:
            writer.close()
            return
        self._connections.add(task)
        try:
            with contextlib.suppress(OSError, TimeoutError, asyncio.CancelledError):
                await self._serve(reader, writer)
        finally:
            self._connections.discard(task)
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            async with asyncio.timeout(REQUEST_S_MAX):
                head = await reader.readuntil(b"\r\n\r\n")
        except (asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            return
        method, _, rest = head.partition(b"\r\n")[0].decode("latin-1").partition(" ")
        answer = await self._answer(method, rest.partition(" ")[0].partition("?")[0])
        writer.write(
            f"HTTP/1.1 {answer.status} {HTTPStatus(answer.status).phrase}\r\n"
            f"content-type: {answer.content_type}\r\ncontent-length: {len(answer.body)}\r\n"
            "cache-control: no-store\r\nconnection: close\r\n\r\n".encode()
        )
        writer.write(answer.body if method == "GET" else b"")
        async with asyncio.timeout(REQUEST_S_MAX):
            await writer.drain()

    async def _answer(self, method: str, path: str) -> Reply:
        found = self._answers.get(path)
        if found is None:
            return Reply.of({"paths": sorted(self._answers)}, 404)
        if method not in ("GET", "HEAD"):
            return Reply.of({"methods": ["GET", "HEAD"]}, 405)
        try:
            return await found()
        except Exception:
            log.exception("%s was not answered", path)
            return Reply.of({}, 500)
