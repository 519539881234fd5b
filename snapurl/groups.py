"""Groups of links whose clicks are counted together: those of a domain, an account or a tag. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from snapurl.model import Scope


@dataclass(frozen=True, slots=True)
class Group:
    """All links of a key; without one, of all keys. Every link is of one domain, so ALL are all links."""

    scope: Scope
    key: str | None = None


ALL = Group(Scope.DOMAIN)


@dataclass(frozen=True, slots=True)
class TagClicks:
    """The clicks of the links with a tag; `bots` is a part of them."""

    tag: str
    clicks: int
    bots: int
