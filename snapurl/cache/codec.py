"""The encoding of a link in Redis. Pure.

A value is `version 2 status expiry deleted url`, or the version alone: then only the shard has the link, as it is
with every link that has options. The 2 is the number of this encoding. A worker that writes another one knows other
fields of a link, so its values must not be believed. What Redis returns is written into the heads of responses, so
`decode` takes nothing that `encode` would not have written.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from snapurl.codes import is_key
from snapurl.model import CachedLink

URL_CHARS_MAX = 2_000  # of a link in Redis; one with a longer URL is read from its shard, unless L1 has it
_DIGITS = "[0-9]{1,15}"  # Lua computes with 53 bits
_LINK = re.compile(rf"({_DIGITS}) 2 (30[1278]) (-|{_DIGITS}) ([01]) ((?:https?://[!-~]+)?)")
_VERSION = re.compile(_DIGITS)


def fits(link: CachedLink) -> bool:
    """Whether Redis may have the link: it is plain and small enough."""
    return link.options is None and len(link.url) <= URL_CHARS_MAX


def encode(link: CachedLink) -> str:
    """Returns the value of a link that fits. The expiry is in ms since 1970, `-` for none."""
    expiry = "-" if link.expires_at_ms is None else str(link.expires_at_ms)
    return f"{link.version} 2 {link.redirect_status} {expiry} {int(link.deleted)} {link.url}"


def decode(text: str) -> CachedLink | None:
    """Reads what `encode` wrote; None for a version alone. Raises ValueError for anything else."""
    match = _LINK.fullmatch(text)
    if match is None:
        if _VERSION.fullmatch(text):
            return None
        raise ValueError("not a link")
    version, status, expiry, deleted, url = match.groups()
    found = CachedLink(url, int(status), int(version), None if expiry == "-" else int(expiry), deleted == "1")
    if len(url) > URL_CHARS_MAX or bool(url) == found.is_missing:
        raise ValueError("not a link")
    return found


def encode_invalidation(version: int, codes: Sequence[str]) -> str:
    """Returns what the channel says of links that have all reached this version."""
    return f"{version} {' '.join(codes)}"


def decode_invalidation(text: str) -> tuple[list[str], int]:
    """Reads what `encode_invalidation` wrote. Returns codes and version; raises ValueError for anything else."""
    version, *codes = text.split(" ")
    if not _VERSION.fullmatch(version) or not codes or not all(map(is_key, codes)):
        raise ValueError("not an invalidation")
    return codes, int(version)
