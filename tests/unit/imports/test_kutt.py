"""Kutt: its tables of links and of visits, as PostgreSQL and SQLite write them."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest

from snapurl.imports.rows import FileRefused
from tests.unit.imports.reading import links, with_visits

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


LINKS = (
    HEAD
    + "7,a,,f,,https://example.org/,3,2023-01-02T03:04:05.678Z,,,\n"
    + "8,b,,f,,https://example.org/,900,2023-01-02T03:04:05.678Z,,,\n"
    + "9,c,,f,,https://example.org/,0,2023-01-02T03:04:05.678Z,,,\n"
)
VISITS = "id,br_chrome,countries,created_at,updated_at,link_id,referrers,total\n"


def test_visits_of_its_table_are_days_of_their_links() -> None:
    """Sums of hours become those of UTC days, however the database writes times. What no link of the file had, has
    no clicks or cannot be true is left out; of two totals the larger one is taken."""
    rows = [
        '1,2,"{""de"":2}",2024-02-03 22:10:00+00,2024-02-03,7,"{""a, b"":1}",2',
        "2,2,,2024-02-04 00:30:00+01,,7,,5",
        "3,0,,2024-02-04T23:59:59.999Z,,7,,1",
        "4,0,,1707091200000,,8,,40",
        "5,0,,2024-02-05 00:00:00,,8,,NULL",
        "6,0,,2999-01-01 00:00:00,,8,,9",
        "7,0,,2024-02-05 00:00:00,,12345,,9",
    ]
    first, second, third = with_visits("kutt", LINKS, VISITS + "\n".join(rows))
    assert first.days == {date(2024, 2, 3): (7, 0), date(2024, 2, 4): (1, 0)}
    assert (first.clicks, second.clicks) == (8, 900)
    assert second.days == {date(2024, 2, 5): (40, 0)}
    assert third.days is None


@pytest.mark.parametrize(
    ("content", "visits", "why"),
    [
        (LINKS, "link_id,total\n7,1\n", "the file with the visits needs the columns link_id, created_at and total"),
        (LINKS, VISITS + "1,0,,2024-02-03 22:10:00,,7,,many\n", "row 1 of the file with the visits: 'many' is no"),
        (LINKS, VISITS + "1,0,,03.02.2024,,7,,1\n", "row 1 of the file with the visits: '03.02.2024' is no date"),
        (LINKS, VISITS + "1,0,,,,7,,1\n", "row 1 of the file with the visits: it has no day"),
        (LINKS, VISITS + "1,0,,2024-02-03 22:10:00,,7", "row 1 of the file with the visits: the file ends in the"),
        (LINKS, "", "the file is empty"),
        ("address,target\na,https://example.org/\n", VISITS, "needs the column id, which its visits name"),
    ],
)  # fmt: skip
def test_visits_that_cannot_be_read_refuse_the_import(content: str, visits: str, why: str) -> None:
    """Nothing is imported with a part of its visits: what is wrong is named with its row."""
    with pytest.raises(FileRefused, match=why):
        with_visits("kutt", content, visits)
