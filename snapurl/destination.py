"""Where a link leads now: to its target, elsewhere, or nowhere. Pure; the time is passed in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snapurl.errors import Gone, NotYet, SwitchedOff
from snapurl.forwarded import forwarded
from snapurl.model import CachedLink
from snapurl.rules import Visitor, target_of


@dataclass(frozen=True, slots=True)
class Destination:
    """A URL to redirect to. `is_click`: whether the link counts the redirect; it does not once it has expired."""

    url: str
    is_click: bool = True


def destination(
    link: CachedLink, now_ms: int, rest: bytes, query: bytes, visitor: Callable[[], Visitor]
) -> Destination:
    """Returns where `link` leads at `now_ms` since 1970, asked for with the path `rest` behind its code and
    `query`.

    `visitor` is called only for a link with rules. Raises Gone, SwitchedOff, NotYet, and what `forwarded` raises.
    """
    options = link.options
    if link.deleted:
        raise Gone("the link was deleted")
    if options is not None and not options.enabled:
        raise SwitchedOff()
    if link.expires_at_ms is not None and link.expires_at_ms <= now_ms:
        return ended(link, "the link has expired")
    if options is not None and options.starts_at_ms is not None and options.starts_at_ms > now_ms:
        raise NotYet("the link begins to work later")
    if options is None:
        return Destination(link.url)
    url = link.url if options.rules is None else target_of(options.rules, visitor()) or link.url
    passed_on = rest if options.forward_path else b"", query if options.forward_query else b""
    return Destination(forwarded(url, *passed_on) if any(passed_on) else url)


def ended(link: CachedLink, why: str) -> Destination:
    """Returns where a link leads that has expired or is used up. Raises Gone, with `why`, if it leads nowhere."""
    if link.options is None or link.options.expired_url is None:
        raise Gone(why)
    return Destination(link.options.expired_url, is_click=False)


def has_address(link: CachedLink, rest: bytes) -> bool:
    """Whether the link has an address with the path `rest` behind its code."""
    return not rest or (link.options is not None and link.options.forward_path)
