"""What the caches keep of a link, and its one spelling in Redis. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from snapurl.ports import Link


@dataclass(frozen=True, slots=True)
class CachedLink:
    """As much of a link as a redirect needs. Version 0 says that there is no such link."""

    url: str
    redirect_status: int
    version: int
    expires_at_ms: int | None
    deleted: bool

    @property
    def is_missing(self) -> bool:
        return self.version == 0

    @classmethod
    def from_link(cls, link: Link) -> CachedLink:
        expires_at_ms = int(link.expires_at.timestamp() * 1000) if link.expires_at else None
        return cls(link.url, link.redirect_status, link.version, expires_at_ms, link.deleted_at is not None)

    def encode(self) -> str:
        """`version status expiry deleted url`; the expiry is in ms since 1970, `-` for none."""
        expiry = "-" if self.expires_at_ms is None else str(self.expires_at_ms)
        return f"{self.version} {self.redirect_status} {expiry} {int(self.deleted)} {self.url}"

    @classmethod
    def decode(cls, text: str) -> CachedLink:
        """Raises ValueError on anything that `encode` did not write."""
        version, status, expiry, deleted, url = text.split(" ", 4)
        return cls(url, int(status), int(version), None if expiry == "-" else int(expiry), deleted == "1")


MISSING = CachedLink("", 302, 0, None, deleted=False)
"""There is no such link, says the shard that would own it."""
