"""Refuses chunk sizes that two parsers could read differently (request smuggling, see `heads.py`).

Sanic accepts as a chunk size whatever `int(_, 16)` accepts: `0x5`, ` 5`, digits outside ASCII, a trailing line
feed. It ignores extensions, and skips two bytes after a chunk without checking them. If a proxy reads another
size or another end of line, then part of the body is the next request here: one that the proxy has not checked.
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

from sanic.exceptions import BadRequest
from sanic.http import Stage

from snapurl.http.wire.pace import DISCARDED_BYTES
from snapurl.http.wire.prompt import PromptHttp

UNAMBIGUOUS_SIZE = re.compile(
    rb"\r\n [0-9A-Fa-f]{1,16} (?: [ \t]*+ ; [\t\x20-\x7e\x80-\xff]*+ )?+ \r\n", re.VERBOSE
)
"""The end of the previous line and a chunk's size line, which every parser reads the same way."""

LINE_BYTES_MAX = 64  # of a size line with its extension; a longer one is refused without waiting for its end

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class StrictHttp(PromptHttp):
    """A reader and writer of HTTP, but only for unambiguous chunk sizes. Discards bodies at their client's pace."""

    __slots__ = ()

    def read(self) -> Coroutine[Any, Any, bytes | None]:
        """Reads the next part of a body. Raises BadRequest also for an ambiguous chunk size."""
        return self._discard() if self.stage is Stage.IDLE else self._read()

    def _read(self) -> Coroutine[Any, Any, bytes | None]:
        kind: Any = self.request_body
        if kind == "chunked" and not self.request_bytes_left:
            return self._read_chunk()
        return super().read()

    async def discard(self) -> None:
        """Reads what is left of a body, at the client's pace. Raises BadRequest as `read` does."""
        while self.request_body:
            await self._discard()

    async def _discard(self) -> None:
        count = len(await self._read() or b"")  # and not kept for the wait
        if count:
            protocol: Any = self.protocol  # a BoundedProtocol
            await protocol.keep_pace(self.request.head, count / DISCARDED_BYTES)

    async def _read_chunk(self) -> bytes | None:
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(CONTINUE)
        buffer = self.recv_buffer
        while buffer.find(b"\r\n", 2) < 0 and len(buffer) <= LINE_BYTES_MAX:
            await self._receive_more()
        if UNAMBIGUOUS_SIZE.match(buffer) is None:
            self.keep_alive = False
            raise BadRequest("the size of a chunk is malformed")
        return await super().read()
