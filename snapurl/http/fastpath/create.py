"""Creates on the fast path: turns a packet into a request of Sanic, and a response into bytes.

Theory. Most of Sanic's work prepares for a request that arrives in parts, in any spelling, at any URL. A create
that is complete and plain needs none of it. Only the two ends are here, reading the head and writing the
response's head, and a test compares both with Sanic's. Everything in between stays the same: the request is one
of Sanic's, the handler is the one that Sanic would have called, and so are its responses and refusals.

A request is read here if all of this holds, otherwise Sanic reads it:

- *The head is plain* (`plain_heads.py`), and has no more headers than are accepted.
- *It has one Content-Length*, in digits only.
- *The body is complete*: there is nothing to wait for, so no time-out and no buffer to bound.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import sanic
from sanic import HTTPResponse
from sanic.compat import Header

from snapurl.http.schema.route import LINKS_PATH
from snapurl.http.wire.heads import HEADERS_MAX

_PATH = LINKS_PATH.encode()
_VERSION = "1.1"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class WholeRequest(sanic.Request[Any, Any]):
    """A request with a complete body: it has no stream."""


def whole_request(head: re.Match[bytes], data: bytes, connection: Any) -> WholeRequest | None:
    """Makes the request from a match of CREATE_HEAD and the body after it in `data`.

    Returns None if Sanic has to read it.
    """
    if head[2] is None:
        return None
    end = head.end() + int(head[2])
    if end > len(data):
        return None
    lines = head[0].decode("ascii").split("\r\n")[1:-2]
    if len(lines) > HEADERS_MAX:
        return None
    pairs = (line.split(":", 1) for line in lines)
    headers = Header([(name.lower(), value.lstrip()) for name, value in pairs])
    if len(headers.getall("content-length")) != 1:
        return None
    request = WholeRequest(_PATH, headers, _VERSION, "POST", connection.transport, connection.app, head[0])
    request.conn_info = connection.conn_info
    request.body = data[head.end() : end]
    return request


def response_bytes(response: HTTPResponse, date: str, *, keep_alive: bool) -> bytes:
    """Returns a response as Sanic would send it, with the value of Date. No header value contains a line break."""
    body = response.body or b""
    lines = "".join([f"{name}: {value}\r\n" for name, value in response.headers.items()])
    head = (
        f"{_STATUS_LINES[response.status]}{lines}date: {date}\r\ncontent-length: {len(body)}\r\n"
        f"connection: {'keep-alive' if keep_alive else 'close'}\r\ncontent-type: {response.content_type}\r\n\r\n"
    )
    return head.encode("ascii") + body
