"""Refuses heads that two parsers could read differently (request smuggling).

Sanic reads some heads differently than a proxy in front of it may. With a space before the colon, `Content-Length
:` is a header that Sanic does not know. A bare line feed is part of a value, a folded line is a header of its
own, and a length may be in Arabic digits. Where the proxy sees a body, Sanic then sees the next request: one that
the proxy has not checked, and whose response may reach another client. RFC 9112 requires or allows a server to
refuse such heads. Here a refusal also closes the connection.
"""

from __future__ import annotations

import re
from typing import Any

import sanic
from sanic.compat import Header
from sanic.exceptions import BadRequest
from sanic.models.protocol_types import TransportProtocol

UNAMBIGUOUS_HEAD = re.compile(
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
"""A head that every parser reads the same way, without the empty line that ends it.

The lines are an atomic group, since `)*+` was faulty before Python 3.11.5: it could match half a line.
"""

LIST_CHARS_MAX = 1_000  # of a header with a list
LIST_ITEMS_MAX = 20


def first_items(value: str) -> list[str]:
    """Returns the first items of a header's list, none of them cut in two: all that a request may have parsed."""
    if len(value) > LIST_CHARS_MAX:
        value = value[: LIST_CHARS_MAX + 1].rpartition(",")[0]
    return value.split(",", LIST_ITEMS_MAX)[:LIST_ITEMS_MAX]


class Head(sanic.Request[Any, Any]):
    """A request with an unambiguous head. Raises sanic's BadRequest for any other."""

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
            # Sanic makes such an object to answer an invalid request, with the URL that may be the invalid part.
            # With that URL this would fail again, log a stack trace, and send no response.
            url_bytes = b"*"
        elif UNAMBIGUOUS_HEAD.fullmatch(head) is None:
            raise BadRequest("the head is malformed")
        super().__init__(url_bytes, headers, version, method, transport, app, head, stream_id)
