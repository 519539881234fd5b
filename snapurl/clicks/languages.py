"""The language of a visitor, from `Accept-Language`. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from snapurl.clicks.sources import CACHED_HEADERS_MAX, NONE, OTHER

LANGUAGES_MAX = 10  # of a header that are looked at

_ITEM = re.compile(
    r"[ \t]*([A-Za-z]{1,8}(?:-[A-Za-z0-9]{1,8})*)[ \t]*(?:;[ \t]*q=([01](?:\.[0-9]{0,3})?))?[ \t]*"
)
_TAG = re.compile(r"([a-z]{2,3})(?:-[a-z]{4})?(?:-([a-z]{2}|[0-9]{3}))?(?:-.*)?")


@lru_cache(maxsize=CACHED_HEADERS_MAX)
def preferred_language(header: str) -> str:
    """Returns the language of an `Accept-Language` header that is preferred, in lower case; "" without one."""
    best, best_q = "", 0.0
    for item in header.split(",", LANGUAGES_MAX)[:LANGUAGES_MAX]:
        found = _ITEM.fullmatch(item)
        if found is not None and (q := float(found[2] or 1)) > best_q:
            best, best_q = found[1].lower(), q
    return best


@lru_cache(maxsize=CACHED_HEADERS_MAX)
def language_of(header: bytes | None) -> str:
    """Returns the preferred language and its region, such as `de` or `pt-BR`.

    Script and variants are left out. Returns NONE without a header, OTHER if it names no language.
    """
    if not header or not header.strip():
        return NONE
    found = _TAG.fullmatch(preferred_language(header.decode("latin-1")))
    if found is None:
        return OTHER
    language, region = found.groups()
    return f"{language}-{region.upper()}" if region else language
