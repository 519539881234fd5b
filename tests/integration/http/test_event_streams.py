"""Streams of events: bounded, of the newest state only, and over as soon as the worker stops."""

from __future__ import annotations

import asyncio
import itertools
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from sanic import HTTPResponse, Request, Sanic

from snapurl.errors import RateLimited, SnapURLError
from snapurl.http import event_streams
from snapurl.http.event_streams import EventStreams
from tests.support.waits import unless_hung, until

SIZE = 100_000  # of an event: more than the kernel keeps for a reader


class State:
    """A state that changes when a test says so. Each event is its number, filled up to SIZE characters."""

    def __init__(self) -> None:
        self.number = 0
        self.sent: list[int] = []
        self.watchers = 0
        self._changed = asyncio.Event()

    def change(self) -> None:
        self.number += 1
        self._changed.set()
        self._changed = asyncio.Event()

    @contextmanager
    def watch(self) -> Iterator[Callable[[], Awaitable[str]]]:
        seen = 0

        async def newest() -> str:
            nonlocal seen
            while seen == self.number:
                await self._changed.wait()
            seen = self.number
            self.sent.append(seen)
            return f"{seen}".ljust(SIZE)

        self.watchers += 1
        try:
            yield newest
        finally:
            self.watchers -= 1


@dataclass
class Running:
    streams: EventStreams
    state: State
    port: int
    is_valid: bool = True

    async def open(self, method: str = "GET") -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        connection.setblocking(False)
        await asyncio.get_running_loop().sock_connect(connection, ("127.0.0.1", self.port))
        reader, writer = await asyncio.open_connection(sock=connection, limit=2_048)
        writer.write(f"{method} /events HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        return reader, writer


@asynccontextmanager
async def running() -> AsyncIterator[Running]:
    """Runs a server with nothing but a stream of events."""
    app: Any = Sanic(f"events-{next(_NUMBERS)}", configure_logging=False)
    app.config.TOUCHUP = False
    listener = socket.create_server(("127.0.0.1", 0))
    own = Running(EventStreams(), State(), listener.getsockname()[1])

    async def may_go_on() -> bool:
        return own.is_valid

    async def events(request: Request[Any, Any]) -> HTTPResponse:
        try:
            return own.streams.respond(request, request.ip, {}, own.state.watch(), may_go_on)
        except SnapURLError as refusal:
            return HTTPResponse(refusal.slug, refusal.status)

    app.add_route(events, "/events", ["GET", "HEAD"])
    server = await app.create_server(sock=listener, access_log=False, return_asyncio_server=True)
    await server.startup()
    await server.start_serving()
    try:
        yield own
    finally:
        own.streams.close()
        server.server.close()
        for connection in list(server.connections):
            connection.abort()
        type(app).unregister_app(app)


_NUMBERS = itertools.count()


async def events_of(reader: asyncio.StreamReader, last: int) -> list[int]:
    """Reads until the event `last` has begun. Returns the numbers of all that have."""
    found: list[int] = []
    rest = b""
    while last not in found:
        rest += await unless_hung(reader.read(65_536))
        *lines, rest = rest.split(b"\n")
        for line in [*lines, rest]:
            if line.startswith(b"data: ") and b" " in line[6:]:
                number = int(line[6:].split(b" ")[0])
                if number not in found:
                    found.append(number)
    return found


async def test_a_slow_reader_gets_the_newest_state_and_not_those_between() -> None:
    """While a reader takes nothing, states pass it by; when it reads again, the next event is the newest state."""
    async with running() as own:
        reader, writer = await own.open()
        await unless_hung(reader.readuntil(b"retry"))
        own.state.change()
        await until(lambda: own.state.sent == [1])
        for _ in range(50):
            own.state.change()
            await asyncio.sleep(0)
        seen = await events_of(reader, 51)
        assert seen[-1] == 51 and len(seen) <= 4  # those that were on their way, and the newest
        writer.close()
        await until(lambda: not own.state.watchers)


async def test_streams_end_with_the_worker_also_if_nobody_reads() -> None:
    """`close` ends a stream that waits by the end of its response, one whose reader is stuck by its connection."""
    async with running() as own:
        idle, idle_writer = await own.open()
        _, stuck_writer = await own.open()
        await until(lambda: own.state.watchers == 2)
        found = bytearray()

        async def read() -> None:
            while piece := await idle.read(65_536):
                found.extend(piece)

        reading = asyncio.create_task(read())
        own.state.change()
        await until(lambda: own.state.sent == [1, 1])
        await until(lambda: found.endswith(b" \n\n\r\n"))  # this stream waits for the next event
        own.streams.close()
        await unless_hung(reading)
        assert found.endswith(b"\r\n0\r\n\r\n")
        await until(lambda: not own.state.watchers)
        late, late_writer = await own.open()
        assert (await unless_hung(late.readline())).startswith(b"HTTP/1.1 503 ")
        for writer in (idle_writer, stuck_writer, late_writer):
            writer.close()


async def test_streams_are_bounded_and_a_place_becomes_free_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond the bound of a client it gets 429, beyond that of the worker 503; who leaves makes room."""
    monkeypatch.setattr(event_streams, "STREAMS_PER_CLIENT_MAX", 2)
    async with running() as own:
        first = [await own.open() for _ in range(2)]
        await until(lambda: own.state.watchers == 2)
        refused, refused_writer = await own.open()
        assert (await unless_hung(refused.readline())).startswith(f"HTTP/1.1 {RateLimited.status} ".encode())
        first[0][1].close()
        await until(lambda: own.state.watchers == 1)
        again, again_writer = await own.open()
        assert (await unless_hung(again.readline())).startswith(b"HTTP/1.1 200 ")
        monkeypatch.setattr(event_streams, "STREAMS_MAX", 2)
        other, other_writer = await own.open()
        assert (await unless_hung(other.readline())).startswith(b"HTTP/1.1 503 ")
        for writer in (first[1][1], refused_writer, again_writer, other_writer):
            writer.close()


async def test_a_stream_ends_when_its_session_does() -> None:
    """Who may no longer watch gets no further event."""
    async with running() as own:
        reader, writer = await own.open()
        await until(lambda: own.state.watchers == 1)
        own.is_valid = False
        own.state.change()
        answer = await unless_hung(reader.read())
        assert answer.endswith(b"\r\n0\r\n\r\n") and b"data: 2" not in answer
        writer.close()


async def test_a_head_request_for_events_has_an_end() -> None:
    """HEAD is answered at once, and opens no stream."""
    async with running() as own:
        reader, writer = await own.open("HEAD")
        head = await unless_hung(reader.readuntil(b"\r\n\r\n"))
        assert b"text/event-stream" in head and not own.state.watchers
        writer.close()


async def test_a_quiet_stream_shows_that_it_lives(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without a change a comment follows from time to time, so that no proxy ends the stream."""
    monkeypatch.setattr(event_streams, "HEARTBEAT_S", 0.01)
    async with running() as own:
        reader, writer = await own.open()
        await unless_hung(reader.readuntil(b":\n\n"))
        await unless_hung(reader.readuntil(b":\n\n"))
        writer.close()
