"""Plain heads: the only spelling of a request that the fast path reads.

A head is plain if every parser reads it the same way and no header changes how the request is read or answered:

- The request line is exact: `GET` or `HEAD` of a code without `%`, with or without a query, or `POST` to LINKS_PATH
  without a query; `HTTP/1.1`.
- Header names are tokens, header values are ASCII. A bare line feed, a space before a colon and a folded line are
  not plain; neither is anything that Sanic would refuse.
- There is one `Host`, well formed and without percent-encoding.
- There is no `Transfer-Encoding`, `Expect` or `Upgrade`, and no `Connection` but `keep-alive`, since the response
  says that. A redirect has no `Content-Length`; a create has one, in digits only.
- A redirect has none of the `PURPOSE_HEADERS`: Sanic's path tells prefetches, which are no clicks, from the rest.

Matching takes linear time: no part of a pattern is tried more than twice. Header lines are an atomic group
(`(?> … )`) and not `( … )*+`, which was faulty before Python 3.11.5: it could match half a line. The first letter
of a name is a set and not `(?i: … )`, since `re` finds the matching alternative much faster by a set.
"""

from __future__ import annotations

import re
from string import ascii_letters

from snapurl.clicks.sources import HEADER_BYTES_MAX, PURPOSE_HEADERS
from snapurl.http.schema.route import LINKS_PATH
from snapurl.http.wire.said import NO_TRACKING_HEADERS

_NAME = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]++"
_VALUE = rb"[\t\x20-\x7e]*+"
_START_OF_VALUE = rb"[\t\x20-\x7e]{0,%d}+" % HEADER_BYTES_MAX
_QUERY = rb"[A-Za-z0-9._~!$&'()*+,;=:@/?%-]"
_HOST = rb"(?: [A-Za-z0-9._~!$&'()*+,;=-]*+ | \[ [0-9A-Fa-f:.]++ \] ) (?: : [0-9]*+ )?+"


def _header(name: bytes) -> bytes:
    """Returns the pattern of a header name (given in lower case) in any case, and the colon after it."""
    return rb"[%b%b] (?i: %b ) :" % (name[:1].upper(), name[:1], name[1:])


def _lines(special: bytes, host_group: int, *refused: bytes) -> bytes:
    """Returns the pattern of plain header lines, one of them Host, and the empty line after them.

    `refused` are names (in lower case) that make a head not plain. `special` are alternatives that are tried
    before the pattern of any other line. `host_group` is the number of the group that has the value of Host.
    """
    initials = {name[0] for name in (*refused, b"connection", b"host")}
    return rb"""
    (?> (?: (?:
        %(host)b (?(%(group)d) (?!) ) [ \t]*+ ( %(host_value)b ) |
        %(special)b
        (?: [%(other_initials)b] [A-Za-z0-9!#$%%&'*+.^_`|~-]*+
          | (?! %(refused)b )
            (?! %(connection)b (?! [ \t]*+ (?i: keep-alive ) \r\n ) )
            %(name)b
        ) : %(value)b
    ) \r\n )* )
    (?(%(group)d) | (?!) ) \r\n
    """ % {
        b"host": _header(b"host"),
        b"group": host_group,
        b"host_value": _HOST,
        b"special": special,
        b"other_initials": "".join(
            letter for letter in ascii_letters if ord(letter.lower()) not in initials
        ).encode(),
        b"refused": b" | ".join(map(_header, (*refused, b"host"))),
        b"connection": _header(b"connection"),
        b"name": _NAME,
        b"value": _VALUE,
    }


_SAID = rb"%b | (?: %b ) [ \t]*+ ( 1 ) [ \t]*+ (?= \r ) |" % (
    b" | ".join(
        rb"%b [ \t]*+ ( %b ) %b" % (_header(name), _START_OF_VALUE, _VALUE)
        for name in (b"referer", b"user-agent", b"accept-language")
    ),
    b" | ".join(_header(name.encode()) for name in NO_TRACKING_HEADERS),
)

REDIRECT_HEAD = re.compile(
    rb"""
    (?: GET | HEAD ) [ ] / ( [A-Za-z0-9_-]++ )
    (?: [?] ( %b{0,%d}+ ) %b*+ )?+
    [ ] HTTP/1[.]1 \r\n
    %b
    """
    % (
        _QUERY,
        HEADER_BYTES_MAX,
        _QUERY,
        _lines(
            _SAID,
            3,
            b"content-length",
            b"transfer-encoding",
            b"expect",
            b"upgrade",
            *(name.encode() for name in PURPOSE_HEADERS),
        ),
    ),
    re.VERBOSE,
)
"""The plain head of a redirect: its code, query and Host, its last Referer, User-Agent and Accept-Language, and `1`
if it has `DNT: 1` or `Sec-GPC: 1`.

All but the code and Host are what `wire/said.py` takes from a request, cut to HEADER_BYTES_MAX.
"""

CREATE_HEAD = re.compile(
    rb"""
    POST [ ] %b [ ] HTTP/1[.]1 \r\n
    %b
    """
    % (
        LINKS_PATH.encode(),
        _lines(
            rb"%b [ \t]*+ ( [0-9]{1,9} ) |" % _header(b"content-length"),
            1,
            b"content-length",
            b"transfer-encoding",
            b"expect",
            b"upgrade",
        ),
    ),
    re.VERBOSE,
)
"""The plain head of a create: its Host, its last Content-Length."""
