"""The source of a click: the referring host and the browser family. Pure.

Headers are reduced to these two values when the click is counted. No path, query, version or address is kept. Both
functions cache their results, since most requests repeat the headers of others.
"""

from __future__ import annotations

import re
from functools import lru_cache

CACHED_HEADERS_MAX = 4_096  # per header; the least recently used goes

NONE = ""
"""The request has no such header."""

OTHER = "*"
"""Any other value, and values beyond a bound."""

_REFERRER = re.compile(
    rb"https?://(?:[^/?#@]*@)?([A-Za-z0-9._-]{1,253}?)\.?(?::[0-9]*)?(?:[/?#]|\Z)", re.IGNORECASE
)

# The first match counts: Edge also names Chrome, and Chrome also names Safari.
_BROWSERS = (
    ("bot", re.compile(rb"bot\b|crawl|spider|slurp|preview|facebookexternalhit|monitor", re.IGNORECASE)),
    ("program", re.compile(rb"curl/|wget/|python|go-http|okhttp|java/|libwww", re.IGNORECASE)),
    ("edge", re.compile(rb"Edg(?:e|A|iOS)?/")),
    ("opera", re.compile(rb"OPR/|Opera")),
    ("samsung", re.compile(rb"SamsungBrowser/")),
    ("firefox", re.compile(rb"Firefox/|FxiOS/")),
    ("chrome", re.compile(rb"Chrome/|CriOS/|Chromium/")),
    ("safari", re.compile(rb"Safari/")),
)

BROWSERS = (NONE, *(name for name, _ in _BROWSERS), OTHER)


@lru_cache(maxsize=CACHED_HEADERS_MAX)
def referrer_of(header: bytes | None) -> str:
    """Returns the host of a `Referer` header in lower case; NONE without a header, OTHER if it is not an HTTP
    URL."""
    if not header or not header.strip():
        return NONE
    found = _REFERRER.match(header)
    return found[1].decode("ascii").lower() if found else OTHER


@lru_cache(maxsize=CACHED_HEADERS_MAX)
def browser_of(header: bytes | None) -> str:
    """Returns the browser family, one of BROWSERS, of a `User-Agent` header."""
    if not header or not header.strip():
        return NONE
    return next((name for name, pattern in _BROWSERS if pattern.search(header)), OTHER)
