"""A proxy that reads what a client says to PostgreSQL, and stops the talk at a given statement.

The steps of a hand-off go over the wire as readable text, so a fault can be put between any two of them with no
hook in the product. A `Trip` is laid across one text, or across the last of several that follow each other on
one connection:

- *before*: the request has been made and has not arrived yet;
- *after*: it has been carried out and committed, and its reply has not arrived yet.

The talk waits there until the test says whether the message is lost or only late.
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
EARLIER = (b"G", b"1")  # CopyIn, ParseComplete: the server goes on only when the client has had them


class When(StrEnum):
    BEFORE = "before"
    AFTER = "after"


@dataclass
class Trip:
    """Where the talk is to stop. `reached` is set when it has."""

    texts: tuple[str, ...]
    when: When
    reached: asyncio.Event = field(default_factory=asyncio.Event)
    lost: bool = False
    _go: asyncio.Event = field(default_factory=asyncio.Event)

    def lose(self) -> None:
        """The message never arrives: its connection is cut."""
        self.lost = True
        self._go.set()

    def deliver(self) -> None:
        """A request arrives late; a reply, which is of no use to anybody by now, is lost."""
        self._go.set()

    async def hold(self) -> None:
        self.reached.set()
        await self._go.wait()


class _Talk:
    """One connection: how much of the trip's texts it has said, and the trip it is stopped at, if any."""

    def __init__(self) -> None:
        self.matched = 0
        self.withheld: Trip | None = None


class Wire(Proxy):
    """Forwards the messages of PostgreSQL's protocol one by one."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(host, port)
        self._trip: Trip | None = None

    def lay(self, when: When, *texts: str) -> Trip:
        """A trip at the first connection that says `texts` one after the other."""
        self._trip = Trip(texts, when)
        return self._trip

    def lift(self) -> None:
        """Takes away a trip that was not reached."""
        self._trip = None

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back_reader: asyncio.StreamReader,
        back_writer: asyncio.StreamWriter,
    ) -> None:
        talk = _Talk()
        try:
            async with asyncio.TaskGroup() as group:
                group.create_task(self._requests(talk, reader, back_writer))
                group.create_task(self._replies(talk, back_reader, writer))
        except* (OSError, asyncio.IncompleteReadError):
            pass

    async def _requests(
        self, talk: _Talk, reader: asyncio.StreamReader, server: asyncio.StreamWriter
    ) -> None:
        await _start_up(reader, server)
        while True:
            head = await reader.readexactly(5)
            body = await reader.readexactly(struct.unpack("!I", head[1:])[0] - 4)
            if head[:1] in b"QP" and (trip := self._stops(talk, body)):
                if trip.when is When.AFTER:
                    talk.withheld = trip
                else:
                    await trip.hold()
                    if trip.lost:
                        raise ConnectionResetError
            server.write(head + body)
            await server.drain()

    def _stops(self, talk: _Talk, body: bytes) -> Trip | None:
        trip = self._trip
        if trip is None or trip.texts[talk.matched].encode() not in body:
            return None
        talk.matched += 1
        if talk.matched < len(trip.texts):
            return None
        self._trip = None
        return trip

    async def _replies(self, talk: _Talk, server: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        while data := await server.read(65_536):
            if (trip := talk.withheld) is not None:
                if data[-6:-1] != READY and data[:1] not in EARLIER:
                    continue
                await trip.hold()
                raise ConnectionResetError
            client.write(data)
            await client.drain()
        raise ConnectionResetError


async def _start_up(reader: asyncio.StreamReader, server: asyncio.StreamWriter) -> None:
    """Forwards the messages that come before any has a type: a question for TLS, then the greeting."""
    code = SSL_REQUEST
    while code == SSL_REQUEST:
        head = await reader.readexactly(8)
        size, code = struct.unpack("!II", head)
        server.write(head + await reader.readexactly(size - 8))
        await server.drain()


@contextlib.asynccontextmanager
async def wire_to(host: str, port: int) -> AsyncIterator[Wire]:
    """A running wire to `host:port`, stopped at the end."""
    wire = Wire(host, port)
    await wire.start()
    try:
        yield wire
    finally:
        await wire.stop()
