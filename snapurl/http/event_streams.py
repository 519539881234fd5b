"""Server-Sent Events: responses that go on, of which each event is the newest state as a whole.

A reader that is slow gets fewer events, never older ones: the next event is taken only when the one before it has
left this process. A reader that takes nothing for `app.RESPONSE_S_MAX` is disconnected like any other. Streams are
bounded in number, per worker and per client; beyond it a page asks now and then instead. They end when the worker
stops, without being waited for, and after STREAM_S_MAX: the browser then connects again by itself.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, cast

from sanic import HTTPResponse, Request
from sanic.http import Http
from sanic.response import ResponseStream

from snapurl.errors import RateLimited, Unavailable
from snapurl.telemetry.metrics import WATCHERS, WATCHERS_REFUSED

STREAMS_MAX = 256  # per worker
STREAMS_PER_CLIENT_MAX = 32  # and worker: an office behind one address
STREAM_S_MAX = 900.0
HEARTBEAT_S = (
    10.0  # without an event a comment follows, so that proxies and the browser see that the stream lives
)
RETRY_MS = 3_000  # until a browser connects again
RETRY_AFTER_S = 30.0
SEND_BYTES = 32_768  # that the kernel keeps for a reader; Linux doubles it

HEARTBEAT = ":\n\n"
MEDIA = "text/event-stream"
HEADERS = {"cache-control": "no-store", "x-accel-buffering": "no"}

Source = AbstractContextManager[Callable[[], Awaitable[str]]]
"""Gives the function that waits for the next event's data, which is one line."""


class EventStreams:
    """The streams of one worker. `close` ends them and refuses further ones."""

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._transports: set[Any] = set()
        self._closing = asyncio.Event()

    def respond(
        self,
        request: Request[Any, Any],
        client: str,
        headers: Mapping[str, str],
        source: Source,
        may_go_on: Callable[[], Awaitable[bool]],
    ) -> HTTPResponse:
        """Returns a response with the events of `source` while `may_go_on`, which is asked before each.

        Raises Unavailable if there are too many streams, RateLimited if the client has too many.
        """
        if whose := self._is_full_for(client):
            WATCHERS_REFUSED.labels(whose).inc()
            if whose == "address":
                raise RateLimited("too many pages are open from here", retry_after_s=RETRY_AFTER_S)
            raise Unavailable("too many pages are open", is_public=True, retry_after_s=RETRY_AFTER_S)
        if request.method == "HEAD":
            return HTTPResponse(None, 200, {**headers, **HEADERS}, MEDIA)
        http = cast(Http, request.stream)
        http.keep_alive = False
        send = partial(self._send, http.protocol, client, source, may_go_on)
        # It is sent by its own method, and has the status and the headers that callers look at.
        return cast(HTTPResponse, ResponseStream(send, 200, {**headers, **HEADERS}, MEDIA))

    def close(self) -> None:
        """Ends all streams: one that waits for an event by its last byte, one whose reader is stuck by force."""
        self._closing.set()
        for transport in self._transports:
            if transport.get_write_buffer_size():
                transport.abort()

    def _is_full_for(self, client: str) -> str:
        """Returns whose bound a further stream would exceed, "" if none."""
        if len(self._transports) >= STREAMS_MAX or self._closing.is_set():
            return "all"
        return "address" if self._counts.get(client, 0) >= STREAMS_PER_CLIENT_MAX else ""

    async def _send(
        self,
        protocol: Any,
        client: str,
        source: Source,
        may_go_on: Callable[[], Awaitable[bool]],
        response: Any,
    ) -> None:
        if self._is_full_for(client):
            return  # others began between the check and this
        transport = protocol.transport
        # A write has left when the buffer is empty, and the kernel keeps little for a reader that is slow.
        transport.set_write_buffer_limits(high=0)
        transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        self._transports.add(transport)
        self._counts[client] = self._counts.get(client, 0) + 1
        WATCHERS.inc()

        async def write(text: str) -> None:
            await response.write(text)
            await protocol._can_write.wait()

        try:
            await write(f"retry: {RETRY_MS}\n\n")
            with source as newest:
                await self._send_events(newest, may_go_on, write)
        finally:
            WATCHERS.dec()
            self._transports.discard(transport)
            self._counts[client] -= 1
            if not self._counts[client]:
                del self._counts[client]

    async def _send_events(
        self,
        newest: Callable[[], Awaitable[str]],
        may_go_on: Callable[[], Awaitable[bool]],
        write: Callable[[str], Awaitable[None]],
    ) -> None:
        clock = asyncio.get_running_loop().time
        ends_s = clock() + STREAM_S_MAX
        closing = asyncio.ensure_future(self._closing.wait())
        event = asyncio.ensure_future(newest())
        try:
            while clock() < ends_s:
                await asyncio.wait((event, closing), timeout=HEARTBEAT_S, return_when=asyncio.FIRST_COMPLETED)
                if closing.done() or not await may_go_on():
                    return
                if event.done():
                    await write(f"data: {event.result()}\n\n")
                    event = asyncio.ensure_future(newest())
                else:
                    await write(HEARTBEAT)
        finally:
            closing.cancel()
            event.cancel()
