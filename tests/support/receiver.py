"""A receiver of webhooks on loopback, which answers as a test says and verifies signatures as receivers do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from standardwebhooks.webhooks import Webhook as Verifier

OK = b"HTTP/1.1 204 No Content\r\n\r\n"


@dataclass(frozen=True, slots=True)
class Received:
    """One request. `headers` have names in lower case."""

    headers: dict[str, str]
    body: bytes

    @property
    def message_id(self) -> str:
        return self.headers["webhook-id"]

    @property
    def told(self) -> dict[str, Any]:
        told: dict[str, Any] = json.loads(self.body)
        return told

    @property
    def code(self) -> str:
        code: str = self.told["data"]["link"]["code"]
        return code

    @property
    def kind(self) -> str:
        kind: str = self.told["type"]
        return kind

    def verify(self, secret: str) -> Any:
        """Returns the body, if it is signed with the secret. Raises WebhookVerificationError."""
        return Verifier(secret).verify(self.body, self.headers)


@dataclass
class Receiver:
    """`answer` returns the bytes that answer a request; None: nothing, while the connection stays open."""

    url: str
    answer: Callable[[Received], bytes | None] = lambda received: OK
    received: list[Received] = field(default_factory=list)

    def kinds_of(self, code: str) -> list[str]:
        """Returns what it was told of a link, in order."""
        return [each.kind for each in self.received if each.told["data"].get("link", {}).get("code") == code]

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            first, *lines = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in lines if line)
            }
            assert first.startswith("POST "), first
            received = Received(headers, await reader.readexactly(int(headers["content-length"])))
            self.received.append(received)
            answer = self.answer(received)
            if answer is None:
                await reader.read()
            else:
                writer.write(answer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


@asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """Runs a receiver."""
    receiver = Receiver("")
    server = await asyncio.start_server(receiver.serve, "127.0.0.1", 0)
    receiver.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/hooks"
    try:
        yield receiver
    finally:
        server.close()
