"""Too many connections, requests that never end, and bodies that would fill the memory."""

from __future__ import annotations

import asyncio
import json
from contextlib import suppress
from typing import Any

from snapurl.app import App
from snapurl.config import Settings
from snapurl.http.wire.connections import BUSY_RESPONSE, BodyBudget, ConnectionBudget
from tests.integration.http.test_app import served
from tests.support.waits import HANG_S

DRIP_S = 0.05
HEAD = b"GET /health/live HTTP/1.1\r\nHost: s\r\n\r\n"

Streams = tuple[asyncio.StreamReader, asyncio.StreamWriter]


async def connect(client: Any) -> Streams:
    return await asyncio.open_connection("127.0.0.1", client.base_url.port)


async def ask(streams: Streams) -> bytes:
    """Returns the head of the answer to a small request, empty if the connection is closed."""
    reader, writer = streams
    with suppress(ConnectionError, asyncio.IncompleteReadError):
        writer.write(HEAD)
        head = await reader.readuntil(b"\r\n\r\n")
        await reader.readexactly(int(head.lower().partition(b"content-length:")[2].split()[0]))
        return head
    return b""


async def drip(streams: Streams, text: bytes) -> bytes:
    """Sends one byte at a time without end, and returns the answer."""

    async def send() -> None:
        with suppress(ConnectionError):
            while True:
                streams[1].write(text)
                await streams[1].drain()
                await asyncio.sleep(DRIP_S)

    answer = bytearray()
    sending = asyncio.create_task(send())
    try:
        async with asyncio.timeout(HANG_S):
            with suppress(ConnectionError):  # the server closes during a write: its answer has arrived before
                while part := await streams[0].read(4_096):
                    answer += part
    finally:
        sending.cancel()
    return bytes(answer)


async def test_a_head_that_is_dripped_is_ended(settings: Settings) -> None:
    """A head that never ends is answered with an error and its connection closed, although each byte is in time."""
    async with served(settings, REQUEST_TIMEOUT=0.4) as (_, client):
        streams = await connect(client)
        streams[1].write(b"GET /health/live HTTP/1.1\r\nX-Slow: ")
        assert (await drip(streams, b"x")).startswith(b"HTTP/1.1 408 ")


async def test_a_body_that_is_dripped_is_ended(settings: Settings) -> None:
    """The service does not wait for a body that never ends, whether or not it needs the body."""
    body = b"Content-Type: application/json\r\nContent-Length: 60000\r\nHost: s\r\n\r\n{"
    open_to_all = settings.model_copy(update={"anonymous_creation": True})
    async with served(open_to_all, RESPONSE_TIMEOUT=0.4, KEEP_ALIVE_TIMEOUT=0.6) as (_, client):
        for line, status in (("POST /api/v1/links", b"503"), ("GET /api/v1/links", b"401")):
            streams = await connect(client)
            streams[1].write(f"{line} HTTP/1.1\r\n".encode() + body)
            answer = await drip(streams, b"x")
            assert answer.startswith(b"HTTP/1.1 " + status), answer


async def test_a_body_that_comes_steadily_may_take_its_time(settings: Settings) -> None:
    """A body that arrives at the minimum rate or faster may take longer than the time-out."""
    open_to_all = settings.model_copy(update={"anonymous_creation": True})
    async with served(open_to_all, RESPONSE_TIMEOUT=1.5) as (_, client):
        body = json.dumps({"url": "https://example.org/", "title": "x"}).encode() + b" " * 60_000
        reader, writer = await connect(client)
        head = f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\nHost: s\r\n\r\n"
        writer.write(f"POST /api/v1/links HTTP/1.1\r\n{head}".encode())
        for at in range(0, len(body), 4_000):
            writer.write(body[at : at + 4_000])
            await asyncio.sleep(0.15)
        assert (await reader.readuntil(b"\r\n")).startswith(b"HTTP/1.1 201 ")
        writer.close()


async def test_bodies_fill_their_room_and_no_more(settings: Settings) -> None:
    """While other bodies use up the memory budget, a body is refused with Retry-After; later it is accepted."""
    open_to_all = settings.model_copy(update={"anonymous_creation": True})
    async with served(open_to_all) as (app, client):
        app.ctx.body_budget = BodyBudget(1)
        app.ctx.body_budget._left = 50_000
        _, writer = await connect(client)
        head = "Content-Type: application/json\r\nContent-Length: 50000\r\nHost: s\r\n\r\n"
        writer.write(f"POST /api/v1/links HTTP/1.1\r\n{head}".encode() + b" " * 49_990)
        async with asyncio.timeout(HANG_S):
            while app.ctx.body_budget._left > 10:
                await asyncio.sleep(0.01)
        answer = await client.post("/api/v1/links", json={"url": "https://example.org/"})
        assert answer.status_code == 503 and answer.headers["retry-after"] == "1"
        writer.close()
        async with asyncio.timeout(HANG_S):
            while app.ctx.body_budget._left < 50_000:
                await asyncio.sleep(0.01)
        answer = await client.post("/api/v1/links", json={"url": "https://example.org/"})
        assert answer.status_code == 201
        assert app.ctx.body_budget._left == 50_000


def limit_connections(app: App, most: int, most_per_address: int) -> None:
    app.ctx.connection_budget = ConnectionBudget(most, most_per_address, most)


async def test_an_idle_connection_is_closed_for_a_new_one(settings: Settings) -> None:
    """At the connection limit, the oldest idle connection is closed in favour of a new one."""
    async with served(settings) as (app, client):
        limit_connections(app, 4, 9)
        idle = [await connect(client) for _ in range(4)]
        for streams in idle[1:]:
            assert (await ask(streams)).startswith(b"HTTP/1.1 200 ")
        late = await connect(client)
        assert (await ask(late)).startswith(b"HTTP/1.1 200 ")
        assert await ask(idle[0]) == b""
        assert (await ask(idle[3])).startswith(b"HTTP/1.1 200 ")
        for _, writer in (*idle, late):
            writer.close()


async def test_a_connection_over_the_limit_gets_503(settings: Settings) -> None:
    """Without an idle connection, or above the limit per address, a new one gets 503 until others close."""
    async with served(settings) as (app, client):
        for most, each in ((2, 2), (9, 2)):
            limit_connections(app, most, each)
            busy = [await connect(client) for _ in range(2)]
            for _, writer in busy:
                writer.write(b"GET /health/live HT")
            await asyncio.sleep(0.1)
            reader, writer = await connect(client)
            assert await reader.read() == BUSY_RESPONSE
            writer.close()
            for _, writer in busy:
                writer.close()
            async with asyncio.timeout(HANG_S):
                while not (await ask(again := await connect(client))).startswith(b"HTTP/1.1 200 "):
                    await asyncio.sleep(0.02)
            again[1].close()
            await asyncio.sleep(0.1)
