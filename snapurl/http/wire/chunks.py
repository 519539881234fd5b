"""Chunks whose length could be read in two ways are refused.

Sanic takes as the size of a chunk whatever Python takes as a hexadecimal number (`0x5`, ` 5`, other digits than
ASCII's, a line feed behind it), looks at no extension, and skips two bytes behind a chunk without looking at them.
Where a proxy in front reads another size, or the end of a line where there is none, what it sees as a part of the
body is the next request here: one that nobody has checked (see `heads.py`).
"""

from __future__ import annotations

import re
from collections.abc import Coroutine
from typing import Any

from sanic.exceptions import BadRequest
from sanic.http import Http

ONE_WAY = re.compile(rb"\r\n [0-9A-Fa-f]{1,16} (?: [ \t]*+ ; [\t\x20-\x7e\x80-\xff]*+ )?+ \r\n", re.VERBOSE)
"""The end of what came before, and a chunk's size, that every parser reads the same way."""

LINE_BYTES_MAX = 64  # of a size with its extension, as far as one may be waited for

CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class OneWayHttp(Http):
    """Sanic's reading and writing of HTTP, for chunks that can be read in one way only."""

    __slots__ = ()

    def read(self) -> Coroutine[Any, Any, bytes | None]:
        """The next part of a body, as Sanic's; raises BadRequest also where that would have to guess."""
        kind: Any = self.request_body
        if kind == "chunked" and not self.request_bytes_left:
            return self._read_chunk()
        return super().read()

    async def _read_chunk(self) -> bytes | None:
        if self.expecting_continue:
            self.expecting_continue = False
            await self._send(CONTINUE)
        buffer = self.recv_buffer
        while buffer.find(b"\r\n", 2) < 0 and len(buffer) <= LINE_BYTES_MAX:
            await self._receive_more()
        if ONE_WAY.match(buffer) is None:
            self.keep_alive = False
            raise BadRequest("the size of a chunk is malformed")
        return await super().read()
