"""Where a click comes from, in a few words: the host that referred and the family of the browser. Pure.

What a browser says of itself and of the page before is cut down to these two as the click is counted: paths,
queries, versions and addresses are kept nowhere. Both functions remember what they have found, since most requests
say what others have said.
"""

from __future__ import annotations

import re
from functools import lru_cache

REMEMBERED = 4_096  # values of each header, before the least recently seen is forgotten

NONE = ""
"""The request does not say."""

OTHER = "*"
"""Something else; also what is beyond a bound."""

_REFERRER = re.compile(
    rb"https?://(?:[^/?#@]*@)?([A-Za-z0-9._-]{1,253}?)\.?(?::[0-9]*)?(?:[/?#]|\Z)", re.IGNORECASE
)

# The first that is found counts: Edge says that it is Chrome, and Chrome that it is Safari.
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


@lru_cache(maxsize=REMEMBERED)
def referrer_of(header: bytes | None) -> str:
    """The host in a `Referer` header, in small letters; NONE without one, OTHER if it is no web address."""
    if not header or not header.strip():
        return NONE
    found = _REFERRER.match(header)
    return found[1].decode("ascii").lower() if found else OTHER


@lru_cache(maxsize=REMEMBERED)
def browser_of(header: bytes | None) -> str:
    """One of BROWSERS, by a `User-Agent` header."""
    if not header or not header.strip():
        return NONE
    return next((name for name, pattern in _BROWSERS if pattern.search(header)), OTHER)
