"""Heads that could be read in two ways are refused.

Sanic reads some heads otherwise than a proxy in front of it may: a space before a colon makes `Content-Length :` a
header that it does not know, a bare line feed is a part of a value, a folded line is a header, and a length may be
in Arabic digits. Where a proxy sees a body then, Sanic sees the next request: one that nobody in front has checked,
and whose answer may go to somebody else. RFC 9112 has a server refuse these, or lets it; refused, they end the
connection.
"""

from __future__ import annotations

import re
from typing import Any

import sanic
from sanic.compat import Header
from sanic.exceptions import BadRequest
from sanic.models.protocol_types import TransportProtocol

ONE_WAY = re.compile(
    rb"""
    [A-Za-z0-9!#$%&'*+.^_`|~-]++ [ ] [\x21-\x7e\x80-\xff]++ [ ] HTTP/1[.][01]
    (?> (?:
        \r\n
        (?! (?i: content-length ) : (?! [ \t]*+ [0-9]++ [ \t]*+ (?: \r | \Z ) ) )
        [A-Za-z0-9!#$%&'*+.^_`|~-]++ : [\t\x20-\x7e\x80-\xff]*+
    )* )
    """,
    re.VERBOSE,
)
"""A head, without the empty line that ends it, that every parser reads the same way.

The lines are an atomic group, since `)*+` was faulty before Python 3.11.5: it took in half a line."""


class Head(sanic.Request[Any, Any]):
    """A request whose head can be read in one way only. Raises sanic's BadRequest."""

    def __init__(
        self,
        url_bytes: bytes,
        headers: Header,
        version: str,
        method: str,
        transport: TransportProtocol,
        app: Any,
        head: bytes = b"",
        stream_id: int = 0,
    ) -> None:
        if not head:
            # Sanic makes one of these to answer what is no request, with the address that may be why it is none:
            # then it would fail again, with a stack in the log for each, and answer nothing.
            url_bytes = b"*"
        elif ONE_WAY.fullmatch(head) is None:
            raise BadRequest("the head is malformed")
        super().__init__(url_bytes, headers, version, method, transport, app, head, stream_id)
