"""Reads heads as RFC 9112 asks of servers, where Sanic does not, and gives every response a Date.

- What can no longer become a head is refused at once. Sanic waits for the end of the head, which may never come:
  a TLS client waits for an answer to its hello, a client that ends lines with a bare line feed for its response.
- One empty line before a request is skipped: some clients send one after a body. Until the request follows, the
  connection is as idle as before.
- Bytes outside ASCII in the query are percent-encoded, since some clients send them as they are. The path has to be
  ASCII, as every code is.
- A request to upgrade to WebSocket is ignored. For Sanic it would turn the time-outs off.
- What no limit counts is answered at its client's pace (`pace.py`).
"""

from __future__ import annotations

import re
from time import monotonic
from typing import Any

from sanic.http import Http, Stage
from sanic.response import BaseHTTPResponse

from snapurl.errors import BadRequest, TooLarge
from snapurl.http.wire.heads import HEADERS_MAX, REQUEST_LINE
from snapurl.http.wire.pace import DISCARDED_BYTES, is_paced

_END_OF_HEAD = b"\r\n\r\n"
_TLS_HANDSHAKE = 0x16
_CR = 0x0D

IMPOSSIBLE = re.compile(
    rb"""
      \A [^A-Za-z0-9!#$%&'*+.^_`|~-]
    | [\x00-\x08\x0b\x0c\x0e-\x1f\x7f]
    | (?<! \r ) \n
    | \r (?! \n | \Z )
    """,
    re.VERBOSE,
)
"""What no head has: another first byte than that of a method, control characters, half a line end."""


class PromptHttp(Http):
    """Sanic's HTTP reader and writer, with the differences that this module describes."""

    __slots__ = ()

    async def http1_request_header(self) -> None:
        """Receives and parses a head. Raises BadRequest, also Sanic's, and TooLarge for too many headers."""
        buffer = self.recv_buffer
        if buffer[0] == _CR:
            await self._skip_empty_line()
        await self._receive_head()
        end_of_head = buffer.find(_END_OF_HEAD) + 1
        protocol: Any = self.protocol  # a BoundedProtocol
        await protocol.begin(buffer[:end_of_head])
        if buffer.count(b"\r\n", 0, end_of_head) > HEADERS_MAX:
            raise TooLarge(f"a head may have at most {HEADERS_MAX} headers")
        end = buffer.find(b"\r\n")
        if not buffer[:end].isascii():
            buffer[:end] = encode_query(bytes(buffer[:end]))
        await super().http1_request_header()  # type: ignore[no-untyped-call]
        self.upgrade_websocket = False

    async def _skip_empty_line(self) -> None:
        buffer = self.recv_buffer
        while len(buffer) < len(b"\r\n"):
            await self._receive_more()
        if buffer.startswith(b"\r\n"):
            del buffer[:2]
        if not buffer:
            self.stage = Stage.IDLE
            await self._receive_more()
            self.stage = Stage.REQUEST

    async def _receive_head(self) -> None:
        """Waits for the end of the head, or for more bytes than a head may have. Raises BadRequest.

        Each byte of the head is checked, in whatever packets it arrives: the answer must not depend on them.
        """
        buffer, checked, is_line_checked = self.recv_buffer, 0, False
        while True:
            end_of_head = buffer.find(_END_OF_HEAD, max(0, checked - 3))
            received = len(buffer) if end_of_head < 0 else end_of_head + len(_END_OF_HEAD)
            if IMPOSSIBLE.search(buffer, max(0, checked - 1), received):
                raise BadRequest(_reason(buffer))
            if not is_line_checked and (end := buffer.find(b"\r\n", max(0, checked - 1), received)) >= 0:
                if REQUEST_LINE.fullmatch(buffer, 0, end) is None:
                    raise BadRequest(_reason(buffer))
                is_line_checked = True
            if end_of_head >= 0 or received >= self.HEADER_MAX_SIZE:
                return
            checked = received
            await self._receive_more()

    async def http1_response_header(self, data: bytes, end_stream: bool) -> None:
        """Sends the head of a response, and with it the body if that is complete: at the client's pace if no limit
        counts the request."""
        if is_paced(self.request, self.response.status):
            protocol: Any = self.protocol  # a BoundedProtocol
            await protocol.keep_pace(self.request.head, 1.0 + self._drop_body() / DISCARDED_BYTES)
        await super().http1_response_header(data, end_stream)

    def _drop_body(self) -> int:
        """Drops what has arrived of the body of a request that is refused, so that the wait takes no memory.

        Returns how many bytes that was.
        """
        left: int | None = self.request_bytes_left if self.request_body else None
        if not left:
            return 0
        count: int = min(len(self.recv_buffer), left)
        del self.recv_buffer[:count]
        self.request_bytes_left = left - count
        return count

    def respond(self, response: BaseHTTPResponse) -> BaseHTTPResponse:
        """Begins a response, as Sanic's, with a Date."""
        response.headers["date"] = self.protocol.app.ctx.date.at(monotonic())
        return super().respond(response)


def encode_query(request_line: bytes) -> bytes:
    """Returns the request line with the bytes outside ASCII in its query percent-encoded."""
    before, mark, query = request_line.partition(b"?")
    return before + mark + re.sub(rb"[\x80-\xff]", lambda byte: b"%%%02X" % byte[0][0], query)


def _reason(buffer: bytearray) -> str:
    if buffer[0] == _TLS_HANDSHAKE:
        return "this port takes HTTP and not TLS: use http://"
    return "this is not a request of HTTP/1.1, whose lines end with CRLF"
