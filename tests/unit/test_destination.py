"""Where a link leads, by its options and the time."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from snapurl.destination import Destination, destination
from snapurl.errors import Gone, NotYet, SnapURLError, SwitchedOff
from snapurl.model import CachedLink, LinkOptions
from snapurl.rules import Visitor

LINK = CachedLink("https://example.org/", 302, 1, None, deleted=False)
OVER = "https://example.org/over"
NOW = 1_000
VISITOR = Visitor("a", "192.0.2.1", b"Mozilla/5.0 (iPhone)", "", b"", datetime.fromtimestamp(1, UTC))


def leads_to(link: CachedLink, rest: bytes = b"", query: bytes = b"") -> Destination:
    return destination(link, NOW, rest, query, lambda: VISITOR)


@pytest.mark.parametrize(
    ("fields", "options", "leads"),
    [
        ({}, None, Destination(LINK.url)),
        ({"deleted": True}, {"enabled": False}, Gone),
        ({}, {"enabled": False}, SwitchedOff),
        ({"expires_at_ms": NOW}, {"enabled": False, "expired_url": OVER}, SwitchedOff),
        ({"expires_at_ms": NOW}, None, Gone),
        ({"expires_at_ms": NOW}, {"expired_url": OVER}, Destination(OVER, is_click=False)),
        ({"expires_at_ms": NOW + 1}, {"expired_url": OVER}, Destination(LINK.url)),
        ({}, {"starts_at_ms": NOW + 1}, NotYet),
        ({}, {"starts_at_ms": NOW}, Destination(LINK.url)),
        ({"expires_at_ms": NOW}, {"starts_at_ms": NOW + 1}, Gone),
    ],
)
def test_a_link_leads_where_its_options_say(
    fields: dict[str, Any], options: dict[str, Any] | None, leads: Destination | type[SnapURLError]
) -> None:
    """Deleted comes first, then switched off, expired, not yet; an expired link may lead elsewhere, without a
    click."""
    link = replace(LINK, **fields, options=None if options is None else LinkOptions(**options))
    if isinstance(leads, Destination):
        assert leads_to(link) == leads
        return
    with pytest.raises(leads):
        leads_to(link)


@pytest.mark.parametrize(
    ("options", "url"),
    [
        ({}, LINK.url),
        ({"forward_query": True}, LINK.url + "?b"),
        ({"forward_path": True}, LINK.url + "a"),
        ({"forward_path": True, "forward_query": True}, LINK.url + "a?b"),
    ],
)
def test_a_link_forwards_what_it_says(options: dict[str, Any], url: str) -> None:
    """A link forwards the path behind its code, the query, both or neither."""
    link = replace(LINK, options=LinkOptions(**options) if options else None)
    assert leads_to(link, b"a", b"b") == Destination(url)
    expired = replace(LINK, expires_at_ms=NOW, options=LinkOptions(expired_url=OVER, **options))
    assert leads_to(expired, b"a", b"b") == Destination(OVER, is_click=False)


def test_a_rule_comes_before_the_url_and_after_the_expiry() -> None:
    """A rule that holds replaces the URL of a link that works, and what is forwarded goes there."""
    rules = '[{"if":{"os":["ios"]},"url":"https://apps.example/"}]'
    link = replace(LINK, options=LinkOptions(rules=rules, forward_path=True))
    assert leads_to(link, b"x") == Destination("https://apps.example/x")
    with pytest.raises(Gone):
        leads_to(replace(link, expires_at_ms=NOW))
