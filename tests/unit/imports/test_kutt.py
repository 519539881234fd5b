"""Kutt: its table of links, as PostgreSQL and SQLite write it."""

from __future__ import annotations

from datetime import UTC, datetime

from tests.unit.imports.reading import links

HEAD = "id,address,description,banned,password,target,visit_count,created_at,expire_in,domain,link\n"


def test_links_with_their_states() -> None:
    """Banned and protected links are switched off; times have a zone, or are in UTC."""
    plain, banned, protected, expiring = links(
        "kutt",
        HEAD
        + "1,a,About,f,,https://example.org/,3,2023-01-02T03:04:05.678Z,,,https://k.test/a\n"
        + "2,b,,t,,https://example.org/,0,2023-01-02 03:04:05.678+00,,,\n"
        + "3,c,,0,$2b$10$abc,https://example.org/,0,2023-01-02 03:04:05,,,\n"
        + "4,d,,0,,https://example.org/,0,2023-01-02 03:04:05,2031-01-01 00:00:00,GO.test,https://go.test/d\n",
    )
    assert (plain.code, plain.title, plain.clicks, plain.enabled) == ("a", "About", 3, True)
    assert plain.created_at == datetime(2023, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    assert (banned.enabled, protected.enabled, expiring.enabled) == (False, False, True)
    assert "password" in protected.remarks[0]
    assert (expiring.expires_at, expiring.domain) == (datetime(2031, 1, 1, tzinfo=UTC), "go.test")
