"""A TCP proxy that fails on demand: in front of a shard or Redis, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator


class Proxy:
    """Forwards connections to `host:port`; five switches make it fail.

    `refuse` closes new connections, `deaf` never answers them, and a cleared `forwarding` holds bytes back.
    A connection that sends `mute_after` is held open, and nothing more goes through it.
    `lose_replies` passes that many requests on, but cuts the connection when the reply arrives: the request is
    carried out and its outcome lost.
    """

    def __init__(self, host: str, port: int) -> None:
        self._target = (host, port)
        self.refuse = False
        self.deaf = False
        self.replies_to_lose = 0
        self._lose_after = b""
        self.mute_after = b""
        self.muted = 0
        self._stopped = asyncio.Event()
        self.forwarding = asyncio.Event()
        self.forwarding.set()
        self.replies_lost = 0
        self.accepted = 0
        self._writers: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()
        self.forwarding.set()
        self._stopped.set()
        self.cut()

    def lose_replies(self, count: int, *, after: str = "") -> None:
        """Loses the next `count` replies, from the first request on that contains `after`.

        What else is sent meanwhile, such as a query that a pool repeats every second, then takes no loss away from
        the request that is to have it.
        """
        self._lose_after = after.encode()
        self.replies_to_lose = count

    def cut(self) -> None:
        """Drops all open connections."""
        for writer in list(self._writers):
            writer.transport.abort()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        if self.refuse:
            writer.transport.abort()
            return
        if self.deaf:
            self._writers.add(writer)
            return
        try:
            back_reader, back_writer = await asyncio.open_connection(*self._target)
        except OSError:
            writer.transport.abort()
            return
        pair = {writer, back_writer}
        self._writers |= pair
        try:
            await self._forward(reader, writer, back_reader, back_writer)
        except OSError:
            pass
        finally:
            self._writers -= pair
            for end in pair:
                end.transport.abort()

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        back_reader: asyncio.StreamReader,
        back_writer: asyncio.StreamWriter,
    ) -> None:
        """Forwards the bytes of one connection in both directions until an end closes; then raises OSError."""
        await asyncio.gather(
            self._pump(reader, back_writer, replies=False), self._pump(back_reader, writer, replies=True)
        )

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, replies: bool
    ) -> None:
        while data := await reader.read(65_536):
            await self.forwarding.wait()
            if not replies and self._lose_after in data:
                self._lose_after = b""
            if not replies and self.mute_after and self.mute_after in data:
                self.muted += 1
                await self._stopped.wait()
            if replies and self.replies_to_lose and not self._lose_after:
                self.replies_to_lose -= 1
                self.replies_lost += 1
                raise ConnectionResetError
            writer.write(data)
            await writer.drain()
        raise ConnectionResetError


@contextlib.asynccontextmanager
async def proxy_to(host: str, port: int) -> AsyncIterator[Proxy]:
    """Runs a proxy to `host:port` and stops it at the end of the block."""
    proxy = Proxy(host, port)
    await proxy.start()
    try:
        yield proxy
    finally:
        await proxy.stop()
