"""Dub: its CSV of chosen columns."""

from __future__ import annotations

from datetime import UTC, datetime

from snapurl.imports.rows import Found
from tests.unit.imports.reading import read


def test_chosen_columns_and_the_root_of_a_domain() -> None:
    """The code is the path; `_root` and the bare domain are no links; archived links are switched off."""
    found = read(
        "dub",
        "Short link,Destination URL,Clicks,Leads,Created at,Tags,Archived\n"
        'https://go.test/sale,https://example.org/,5,1,2024-01-02T03:04:05.678Z,"red, Blue, red",false\n'
        "https://dub.sh/a/b,https://example.org/,0,0,,,true\n"
        "https://go.test/_root,https://example.org/,0,0,,,false\n"
        "https://go.test,https://example.org/,0,0,,,false\n",
    )
    assert isinstance(found[0], Found) and isinstance(found[1], Found)
    assert (found[0].domain, found[0].code, found[0].tags, found[0].clicks) == (
        "go.test",
        "sale",
        ("red", "Blue"),
        5,
    )
    assert found[0].created_at == datetime(2024, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    assert (found[1].domain, found[1].code, found[1].enabled) == ("", "a/b", False)
    assert [isinstance(each, str) for each in found[2:]] == [True, True]
