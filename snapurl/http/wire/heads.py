"""Refuses heads that two parsers could read differently (request smuggling).

Sanic reads some heads differently than a proxy in front of it may. With a space before the colon, `Content-Length
:` is a header that Sanic does not know. A bare line feed is part of a value, a folded line is a header of its
own, and a length may be in Arabic digits. Where the proxy sees a body, Sanic then sees the next request: one that
the proxy has not checked, and whose response may reach another client. RFC 9112 requires or allows a server to
refuse such heads. Here a refusal also closes the connection.

The same holds for Host: a request of HTTP/1.1 has one, and none has two or an ill-formed one. A proxy and this
service could otherwise take a request for one of different sites.
"""

from __future__ import annotations

import re
from typing import Any

import sanic
from sanic.compat import Header
from sanic.models.protocol_types import TransportProtocol

from snapurl.addresses import Clients
from snapurl.errors import BadRequest

_REQUEST_LINE = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]++ [ ] [\x21-\x7e\x80-\xff]++ [ ] HTTP/1[.][01]"
REQUEST_LINE = re.compile(_REQUEST_LINE, re.VERBOSE)

UNAMBIGUOUS_HEAD = re.compile(
    _REQUEST_LINE
    + rb"""
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

HOST = re.compile(
    r"""
    (?: (?: [A-Za-z0-9._~!$&'()*+,;=-] | % [0-9A-Fa-f]{2} )* | \[ [0-9A-Fa-f:.]+ \] )
    (?: : [0-9]* )?
    """,
    re.VERBOSE,
)
"""The value of Host: a name or an address, and a port. RFC 9110 allows an empty name."""

HEADERS_MAX = 100  # each costs its parsing, however short it is; a redirect's on the fast path are not parsed
LIST_CHARS_MAX = 1_000  # of a header with a list
LIST_ITEMS_MAX = 20


_FORWARDED_FOR = re.compile(rb"\r\n(?i:x-forwarded-for):([^\r]*)")
_FORWARDED = re.compile(rb"\r\n(?i:forwarded):([^\r]*)")


def client_of_head(clients: Clients, peer: str, head: bytes | bytearray) -> str:
    """Returns the client of a request whose head is not parsed, as `rate_limits.address_of` does of one that is."""
    if not clients.is_proxy(peer):
        return clients.of_request(peer, "", "")
    return clients.of_request(peer, _lines(_FORWARDED_FOR, head), _lines(_FORWARDED, head))


def _lines(header: re.Pattern[bytes], head: bytes | bytearray) -> str:
    """Returns the values of all lines of a header, joined by commas."""
    return b",".join(value.strip() for value in header.findall(head)).decode("latin-1")


def first_items(value: str) -> list[str]:
    """Returns the first items of a header's list, none of them cut in two: all that a request may have parsed."""
    if len(value) > LIST_CHARS_MAX:
        value = value[: LIST_CHARS_MAX + 1].rpartition(",")[0]
    return value.split(",", LIST_ITEMS_MAX)[:LIST_ITEMS_MAX]


class Head(sanic.Request[Any, Any]):
    """A request with an unambiguous head. Raises BadRequest for any other."""

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
        else:
            _check_host(headers, version)
            _read_encoding(headers, version)
        super().__init__(url_bytes, headers, version, method, transport, app, head, stream_id)


def _check_host(headers: Header, version: str) -> None:
    hosts = headers.getall("host", [])
    if not hosts and version == "1.1":
        raise BadRequest("the Host header is missing")
    if len(hosts) > 1:
        raise BadRequest("there is more than one Host header")
    if hosts and HOST.fullmatch(hosts[0].strip(" \t")) is None:
        raise BadRequest("the Host header is malformed")


def _read_encoding(headers: Header, version: str) -> None:
    """Spells the transfer encoding as Sanic expects it. HTTP/1.0 has none (RFC 9112, 6.1)."""
    encoding = headers.get("transfer-encoding")
    if encoding is None:
        return
    if version != "1.1":
        raise BadRequest("HTTP/1.0 has no Transfer-Encoding")
    if encoding.isascii():  # otherwise a Kelvin sign would become the k of `chunked`
        headers["transfer-encoding"] = encoding.lower()
