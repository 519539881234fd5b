"""What a request says for its click: the headers that statistics are made of, as the request has them.

Nothing is examined here: `clicks/classifier.py` does that at the next flush. On the fast path the same is in the
groups of `plain_heads.REDIRECT_HEAD`.
"""

from __future__ import annotations

from typing import Any

from sanic import Request

from snapurl.clicks.sources import HEADER_BYTES_MAX
from snapurl.clicks.tally import Said

NO_TRACKING_HEADERS = ("dnt", "sec-gpc")


def said_of(request: Request[Any, Any], query: bytes) -> Said:
    """Returns what a request says, with the query of its URL."""
    headers = request.headers
    refuses = any(value.strip() == "1" for name in NO_TRACKING_HEADERS for value in headers.getall(name, ()))
    return (
        query[:HEADER_BYTES_MAX] or None,
        last_header(request, "referer"),
        last_header(request, "user-agent"),
        last_header(request, "accept-language"),
        b"1" if refuses else None,
    )


def last_header(request: Request[Any, Any], name: str) -> bytes | None:
    """Returns the first HEADER_BYTES_MAX of the last header of that name."""
    values = request.headers.getall(name, None)
    return (
        values[-1][:HEADER_BYTES_MAX].encode(errors="surrogateescape")[:HEADER_BYTES_MAX] if values else None
    )
