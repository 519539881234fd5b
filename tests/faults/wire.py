"""A proxy that reads what a client sends to PostgreSQL, and holds the connection at a given statement.

The steps of a hand-off are sent as readable text, so a fault can be placed between any two of them without a
hook in the program. A `Trip` is set on one text, or on the last of several that follow each other on one
connection:

- *before*: the request has been sent and has not arrived yet;
- *after*: the request has been executed and committed, and its reply has not arrived yet.

The connection is held there until the test decides whether the message is lost or only late.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from enum import StrEnum

from tests.support.tcp_proxy import Proxy

SSL_REQUEST = 80_877_103
READY = b"Z\x00\x00\x00\x05"  # ReadyForQuery: the last message of an answer, before the status byte
EARLIER = (b"G", b"1")  # CopyIn, ParseComplete: the server continues only when the client has received them


class When(StrEnum):
    BEFORE = "before"
    AFTER = "after"


@dataclass
class Trip:
    """Where to hold the connection. `reached` is set when it is held."""

    texts: tuple[str, ...]
    when: When
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    _go: asyncio.Event = field(default_factory=asyncio.Event)

    def lose(self) -> None:
        """Cuts the connection, so the message never arrives."""
        self.lost = True
        self._go.set()

    def deliver(self) -> None:
        """Lets a request arrive late. Drops a reply, which is useless by now."""
        self._go.set()

    async def hold(self) -> None:
        self.reached.set()
        await self._go.wait()


class _Connection:
    """One connection: how many texts of the trip it has sent, and the trip that holds it, if any."""

    def __init__(self) -> None:
        self.matched = 0
        self.withheld: Trip | None = None


class Wire(Proxy):
    """Forwards the messages of PostgreSQL's protocol one by one."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._trip: Trip | None = None

    def set_trip(self, when: When, *texts: str) -> Trip:
        """Sets a trip for the first connection that sends `texts` one after the other."""
        self._trip = Trip(texts, when)
        return self._trip

    def clear_trip(self) -> None:
        """Removes a trip that was not reached."""
        self._trip = None

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back_reader: asyncio.StreamReader,
        back_writer: asyncio.StreamWriter,
    ) -> None:
        connection = _Connection()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(connection, reader, back_writer))
                group.create_task(self._replies(connection, back_reader, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass

    async def _requests(
        self, connection: _Connection, reader: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        await _start_up(reader, server)
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            if head[:1] in b"QP" and (trip := self._stops(connection, body)):
                if trip.when is When.AFTER:
                    connection.withheld = trip
                else:
                    await trip.hold()
                    if trip.lost:
                        raise ConnectionResetError
            server.write(head + body)
            await server.drain()

    def _stops(self, connection: _Connection, body: bytes) -> Trip | None:
        trip = self._trip
        if trip is None or trip.texts[connection.matched].encode() not in body:
            return None
        connection.matched += 1
        if connection.matched < len(trip.texts):
            return None
        self._trip = None
        return trip

    async def _replies(
        self, connection: _Connection, server: asyncio.StreamReader, client: asyncio.StreamWriter
    ) -> None:
        while data := await server.read(65_536):
            if (trip := connection.withheld) is not None:
                if data[-6:-1] != READY and data[:1] not in EARLIER:
                    continue
                await trip.hold()
                raise ConnectionResetError
            client.write(data)
            await client.drain()
        raise ConnectionResetError


async def _start_up(reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
    """Forwards the messages that have no type yet: the SSLRequest, then the StartupMessage."""
    code = SSL_REQUEST
    while code == SSL_REQUEST:
        head = await reader.readexactly(8)
        size, code = struct.unpack("!II", head)
        server.write(head + await reader.readexactly(size - 8))
        await server.drain()


@contextlib.asynccontextmanager
async def wire_to(host: str, port: int) -> AsyncIterator[Wire]:
    """Yields a running wire to `host:port`, and stops it at the end."""
    wire = Wire(host, port)
    await wire.start()
    try:
        yield wire
    finally:
        await wire.stop()
