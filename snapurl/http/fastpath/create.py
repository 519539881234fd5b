"""Creates that come whole in one packet, made into requests of Sanic's without Sanic, and answers into bytes.

Theory. Most of what Sanic does for a request is to be ready for one that comes in parts, in any spelling, to any
address. A create that is there whole, plain, and to the one address of creates needs none of it. Everything that
makes it what it is stays where it is: the request is one of Sanic's, its handler is the one that Sanic would have
called, and so are the answers, refusals among them. Only the two ends are here, the reading of the head and the
writing of the answer's, and a test holds both to what Sanic does.

A request is read here if all of this holds, else Sanic reads it:

- *The head is plain*, as in `fast.py`: one address without a query, `HTTP/1.1`, header names that are tokens, ASCII
  values; no `Transfer-Encoding`, no `Expect`, no `Upgrade`, no `Connection` but `keep-alive`.
- *Its length is said once*, in digits and nothing else.
- *All of the body is there*: nobody has to wait for the rest of it, within which time, and in which room.
"""

from __future__ import annotations

import re
from http import HTTPStatus
from typing import Any

import sanic
from sanic import HTTPResponse
from sanic.compat import Header

POST = re.compile(
    rb"""
    POST [ ] /api/v1/links [ ] HTTP/1[.]1 \r\n
    (?> (?:
        (?! (?i: transfer-encoding | expect | upgrade ) : )
        (?! (?i: connection ) : (?! [ \t]* (?i: keep-alive ) \r\n ) )
        (?: (?i: content-length ) : [ \t]*+ ( [0-9]{1,9} )
          | (?! (?i: content-length ) : ) [A-Za-z0-9!#$%&'*+.^_`|~-]++ : [\t\x20-\x7e]*+
        ) \r\n
    )* )
    \r\n
    """,
    re.VERBOSE,
)
"""The whole plain head of a create, and the last length that it says. (For `(?> … )` see `heads.py`.)"""

PATH = b"/api/v1/links"
_VERSION = "1.1"
_STATUS_LINES = {status.value: f"HTTP/1.1 {status.value} {status.phrase}\r\n" for status in HTTPStatus}


class WholeRequest(sanic.Request[Any, Any]):
    """A request whose body is there: it has no stream."""


def whole_request(head: re.Match[bytes], data: bytes, connection: Any) -> WholeRequest | None:
    """The request whose head matches POST and whose body follows it in `data`; None if it is Sanic's to read."""
    if head[1] is None:
        return None
    end = head.end() + int(head[1])
    if end > len(data):
        return None
    lines = head[0].decode("ascii").split("\r\n")[1:-2]
    pairs = (line.split(":", 1) for line in lines)
    headers = Header([(name.lower(), value.lstrip()) for name, value in pairs])
    if len(headers.getall("content-length")) != 1:
        return None
    request = WholeRequest(PATH, headers, _VERSION, "POST", connection.transport, connection.app, head[0])
    request.conn_info = connection.conn_info
    request.body = data[head.end() : end]
    return request


def answer_bytes(response: HTTPResponse, *, keep_alive: bool) -> bytes:
    """An answer with a body as Sanic sends it. No header of ours holds a line break."""
    body = response.body or b""
    lines = "".join([f"{name}: {value}\r\n" for name, value in response.headers.items()])
    head = (
        f"{_STATUS_LINES[response.status]}{lines}content-length: {len(body)}\r\n"
        f"connection: {'keep-alive' if keep_alive else 'close'}\r\ncontent-type: {response.content_type}\r\n\r\n"
    )
    return head.encode("ascii") + body
