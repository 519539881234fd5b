"""The encoding of a link in Redis. Pure."""

from __future__ import annotations

from snapurl.model import CachedLink


def encode(link: CachedLink) -> str:
    """Returns `version status expiry deleted url`. The expiry is in ms since 1970, `-` for none."""
    expiry = "-" if link.expires_at_ms is None else str(link.expires_at_ms)
    return f"{link.version} {link.redirect_status} {expiry} {int(link.deleted)} {link.url}"


def decode(text: str) -> CachedLink:
    """Reads what `encode` wrote. Raises ValueError for anything else."""
    version, status, expiry, deleted, url = text.split(" ", 4)
    return CachedLink(url, int(status), int(version), None if expiry == "-" else int(expiry), deleted == "1")
