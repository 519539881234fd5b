"""The source of a click: the referring host and the browser family. Pure.

Headers are reduced to these two values when the click is counted. No path, query, version or address is kept. Both
functions cache their results, since most requests repeat the headers of others. So callers cut a header to
HEADER_BYTES_MAX first: that bounds the caches in bytes, and the time of a search.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

CACHED_HEADERS_MAX = 4_096  # per header; the least recently used goes
HEADER_BYTES_MAX = 512  # of a header that is read; the bytes after it are not looked at

NONE = ""
"""The request has no such header."""

OTHER = "*"
"""Any other value, and values beyond a bound."""

_REFERRER = re.compile(
    rb"https?://(?:[^/?#@]*@)?([A-Za-z0-9._-]{1,253}?)\.?(?::[0-9]*)?(?:[/?#]|\Z)", re.IGNORECASE
)

# Headers with which a browser says that it loads a page in advance, and nobody has clicked yet.
PURPOSE_HEADERS = ("sec-purpose", "purpose", "x-purpose", "x-moz")
_IN_ADVANCE = re.compile(r"\s*(?:prefetch|prerender|preview|instant)\b", re.IGNORECASE)

# The first match counts: bots often name a browser, Edge also names Chrome, and Chrome also names Safari. Cubot
# makes phones.
BOT = "bot"
PROGRAM = "program"
_BROWSERS = (
    (
        BOT,
        re.compile(
            rb"(?<!cu)bot(?:\b|_)|crawl|spider|slurp|scanner|preview|monitor|uptime|headless|lighthouse|phantomjs"
            rb"|facebookexternalhit|facebookcatalog|whatsapp/|skypeuri|slack-imgproxy|embedly|iframely|unfurl"
            rb"|mastodon|pleroma|akkoma|misskey|lemmy|feedfetcher|feedly|mediapartners|ia_archiver|archive\.org",
            re.IGNORECASE,
        ),
    ),
    (
        PROGRAM,
        re.compile(
            rb"curl/|wget/|python|go-http|okhttp|java/|libwww|axios|undici|cfnetwork|dalvik/|powershell|jsdom/|zgrab"
            rb"|\A(?:node|ruby|php|perl|got|deno|bun)\b",
            re.IGNORECASE,
        ),
    ),
    ("edge", re.compile(rb"Edg(?:e|A|iOS)?/")),
    ("opera", re.compile(rb"OPR/|Opera")),
    ("samsung", re.compile(rb"SamsungBrowser/")),
    ("firefox", re.compile(rb"Firefox/|FxiOS/")),
    ("chrome", re.compile(rb"Chrome/|CriOS/|Chromium/")),
    ("safari", re.compile(rb"Safari/")),
    # Browsers begin with Mozilla/; libraries say their name and version.
    (PROGRAM, re.compile(rb"\A(?!Mozilla/)[A-Za-z0-9_.-]+/v?[0-9]")),
)

BROWSERS = tuple(dict.fromkeys((NONE, *(name for name, _ in _BROWSERS), OTHER)))


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


def is_prefetch(purposes: Iterable[str]) -> bool:
    """Whether one of the values of PURPOSE_HEADERS says that a page is loaded in advance."""
    return any(_IN_ADVANCE.match(purpose) for purpose in purposes)
