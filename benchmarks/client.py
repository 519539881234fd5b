"""A small HTTP client for measurements, with one keep-alive connection."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

ANSWER_S_MAX = 15.0


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body. Status 0 means that the connection failed."""

    status: int
    body: bytes

    def json(self) -> Any:
        return json.loads(self.body)


class Connection:
    """Sends requests one at a time. Reconnects for the next request if the server has closed the connection.

    It connects from the address `local` if that is not empty. `more` are header lines of every request.
    """

    def __init__(self, host: str, port: int, local: str = "", more: str = "") -> None:
        self._host = host
        self._port = port
        self._local = (local, 0) if local else None
        self._more = more
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def get(self, path: str) -> Answer:
        return await self._ask(f"GET {path} HTTP/1.1\r\nHost: {self._host}\r\n{self._more}\r\n".encode())

    async def post(self, path: str, body: Any, headers: Mapping[str, str] | None = None) -> Answer:
        """Sends `body` as JSON."""
        data = json.dumps(body).encode()
        more = "".join(f"{name}: {value}\r\n" for name, value in (headers or {}).items())
        head = (
            f"POST {path} HTTP/1.1\r\nHost: {self._host}\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(data)}\r\n{self._more}{more}\r\n"
        )
        return await self._ask(head.encode() + data)

    async def close(self) -> None:
        if self._streams is not None:
            self._streams[1].close()
            self._streams = None

    async def _ask(self, request: bytes) -> Answer:
        try:
            async with asyncio.timeout(ANSWER_S_MAX):
                return await self._exchange(request)
        except (OSError, asyncio.IncompleteReadError, TimeoutError, ValueError):
            await self.close()
            return Answer(0, b"")

    async def _exchange(self, request: bytes) -> Answer:
        if self._streams is None:
            self._streams = await asyncio.open_connection(self._host, self._port, local_addr=self._local)
        reader, writer = self._streams
        writer.write(request)
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").lower()
        status = int(head[9:12])
        _, found, rest = head.partition("\r\ncontent-length:")
        length = int(rest.partition("\r\n")[0]) if found else 0
        body = await reader.readexactly(length) if length else b""
        if "\r\nconnection: close" in head:
            await self.close()
        return Answer(status, body)
