"""Plain heads: the only spelling of a request that the fast path reads.

A head is plain if every parser reads it the same way and no header changes how the request is read or answered:

- The request line is exact: `GET` or `HEAD` of a code without `%`, with or without a query, or `POST` to LINKS_PATH
  without a query; `HTTP/1.1`.
- Header names are tokens, header values are ASCII. A bare line feed, a space before a colon and a folded line are
  not plain; neither is anything that Sanic would refuse.
- There is no `Transfer-Encoding`, `Expect` or `Upgrade`, and no `Connection` but `keep-alive`, since the response
  says that. A redirect has no `Content-Length`; a create has one, in digits only.
- A redirect has none of the `PURPOSE_HEADERS`: Sanic's path counts the clicks of a browser that only prefetches.

Matching takes linear time: no part of a pattern is tried more than twice. Header lines are an atomic group
(`(?> … )`) and not `( … )*+`, which was faulty before Python 3.11.5: it could match half a line.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from snapurl.clicks.sources import HEADER_BYTES_MAX, PURPOSE_HEADERS
from snapurl.http.schema.route import LINKS_PATH

_NAME = rb"[A-Za-z0-9!#$%&'*+.^_`|~-]++"
_VALUE = rb"[\t\x20-\x7e]*+"
_START_OF_VALUE = rb"[\t\x20-\x7e]{0,%d}+" % HEADER_BYTES_MAX


def _lines(refused: Sequence[str], special: bytes) -> bytes:
    """Returns the pattern of plain header lines and the empty line after them.

    `refused` are names in lower case that make a head not plain; `special` stands before the pattern of any other
    line: alternatives that are tried first.
    """
    # A refused name is its first letter, then the rest: the class of first letters passes most lines at once.
    # Mixing both up refuses a few more names, and those heads go to Sanic.
    firsts = "".join(sorted({letter for name in refused for letter in (name[0], name[0].upper())}))
    rests = " | ".join(name[1:] for name in refused)
    return rb"""
    (?> (?:
        (?! [%b] (?i: %b ) : )
        (?! [Cc] (?i: onnection ) : (?! [ \t]* (?i: keep-alive ) \r\n ) )
        (?: %b %b : %b ) \r\n
    )* )
    \r\n
    """ % (firsts.encode(), rests.encode(), special, _NAME, _VALUE)


REDIRECT_HEAD = re.compile(
    rb"""
    (?: GET | HEAD ) [ ] / ( [A-Za-z0-9_-]++ )
    (?: [?] [A-Za-z0-9._~!$&'()*+,;=:@/?%%-]*+ )?+
    [ ] HTTP/1[.]1 \r\n
    %b
    """
    % _lines(
        ("content-length", "transfer-encoding", "expect", "upgrade", *PURPOSE_HEADERS),
        rb"(?i: referer ) : [ \t]*+ ( %b ) %b | (?i: user-agent ) : [ \t]*+ ( %b ) %b |"
        % (_START_OF_VALUE, _VALUE, _START_OF_VALUE, _VALUE),
    ),
    re.VERBOSE,
)
"""The plain head of a redirect: its code, its last Referer, its last User-Agent; both cut to HEADER_BYTES_MAX."""

CREATE_HEAD = re.compile(
    rb"""
    POST [ ] %b [ ] HTTP/1[.]1 \r\n
    %b
    """
    % (
        LINKS_PATH.encode(),
        _lines(
            ("transfer-encoding", "expect", "upgrade"),
            rb"(?i: content-length ) : [ \t]*+ ( [0-9]{1,9} ) | (?! (?i: content-length ) : )",
        ),
    ),
    re.VERBOSE,
)
"""The plain head of a create: its last Content-Length."""
