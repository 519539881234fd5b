"""Every source, whatever is in it: each row becomes its link, or is named with a reason, and stops no other."""

from __future__ import annotations

import csv
import json
from datetime import UTC
from io import StringIO
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from snapurl.imports.bitly_pages import BitlyPages
from snapurl.imports.cells import plain
from snapurl.imports.rows import FileRefused, Found, Reading, RowRefused
from snapurl.imports.shlink_pages import ShlinkPages
from tests.unit.imports.reading import NOW, read
from tests.unit.imports.test_yourls import quoted

ODD = [
    "https://example.org/", "mailto:a@example.org", "abc", "a/b", "", "NULL", "1e5", "007", "'=x", '"', "%C3%BC",
    "%", "2026-01-01", "0000-00-00 00:00:00", "11/23/2026", "true", "1,234", "-1", "1790000000", "_root",
    "https://s.test/", "x" * 9_000, "'; DROP TABLE", "),(", "\\", "\n", "😀",
]  # fmt: skip
CELL = st.one_of(st.text(max_size=30), st.sampled_from(ODD))
HEADER = ("code", "url", "title", "tags", "created", "expires", "clicks", "domain", "enabled", "link", "max visits",
          "archived", "password")  # fmt: skip


def check(found: Found | str, target: str) -> None:
    """Fails unless this is a link to the target, or a reason in one line."""
    if isinstance(found, str):
        assert found and len(found.splitlines()) == 1
    else:
        assert found.url == target


@given(
    header=st.permutations(HEADER),
    rows=st.lists(st.lists(CELL, max_size=len(HEADER) + 1), max_size=6),
    source=st.sampled_from(["csv", "shlink", "yourls", "kutt", "bitly", "dub"]),
    delimiter=st.sampled_from([",", ";", "\t"]),
)
def test_rows_of_a_csv(header: list[str], rows: list[list[str]], source: str, delimiter: str) -> None:
    """Of each source that has written it, in any order of columns."""
    text = StringIO(newline="")
    writer = csv.writer(text, delimiter=delimiter)
    writer.writerow(header)
    writer.writerows(rows)
    found = read(source, text.getvalue())
    filled = [row for row in rows if any(row)]
    assert len(found) == len(filled)
    place = header.index("url")
    for each, row in zip(found, filled, strict=True):
        check(each, plain(row[place]) if place < len(row) else "")


@given(rows=st.lists(st.tuples(*(st.one_of(st.none(), CELL) for _ in range(6))), min_size=1, max_size=6))
def test_rows_of_a_dump(rows: list[tuple[str | None, ...]]) -> None:
    """Of YOURLS' database, with any value in any column, or none."""
    values = ",".join(
        f"({','.join('NULL' if cell is None else quoted(cell) for cell in row)})" for row in rows
    )
    found = read("yourls", f"-- dump\nINSERT INTO `yourls_url` VALUES {values};\n")
    assert len(found) == len(rows)
    for each, row in zip(found, rows, strict=True):
        check(each, plain(row[1] or ""))


def said(value: object) -> str:
    """Returns the target that a value of Shlink's JSON stands for."""
    return str(value).lower() if isinstance(value, bool) else plain(str(value))


JSON = st.one_of(
    st.none(), st.booleans(), st.integers(), CELL, st.lists(CELL, max_size=3),
    st.dictionaries(CELL, CELL, max_size=2),
)  # fmt: skip
MEMBERS = ("title", "tags", "meta", "visitsSummary", "domain", "forwardQuery", "hasRedirectRules", "shortUrl")


@given(
    items=st.lists(
        st.fixed_dictionaries(
            {"longUrl": JSON, "shortCode": JSON, "dateCreated": JSON},
            optional=dict.fromkeys(MEMBERS, JSON),
        ),
        max_size=4,
    )
)
def test_short_urls_of_a_shlink(items: list[dict[str, Any]]) -> None:
    """Of its API, with any JSON in any member; what is not of its shape at all refuses the run, in one line."""
    page = {"data": items, "pagination": {"currentPage": 1, "pagesCount": 1, "totalItems": len(items)}}
    pages = ShlinkPages(lambda number: json.loads(json.dumps({"shortUrls": page})), Reading(UTC, NOW))
    try:
        rows = list(pages.rows())
    except FileRefused as refusal:
        assert "\n" not in str(refusal)
        return
    assert len(rows) == len(items)
    for row, item in zip(rows, items, strict=True):
        try:
            check(pages.link(row), said(item["longUrl"]))
        except RowRefused as refusal:
            check(str(refusal), "")


@given(
    items=st.lists(
        st.fixed_dictionaries(
            {"id": CELL, "long_url": JSON},
            optional=dict.fromkeys(("title", "tags", "created_at", "archived", "custom_bitlinks"), JSON),
        ),
        max_size=4,
    ),
    clicks=st.lists(
        st.fixed_dictionaries({"clicks": st.one_of(st.integers(), JSON), "date": CELL}), max_size=3
    ),
)
def test_links_of_bitly(items: list[dict[str, Any]], clicks: list[dict[str, Any]]) -> None:
    """Of its API, likewise: at least one row for each link."""

    def fetch(path: str, _: object) -> Any:
        if path == "groups":
            return {"groups": [{"guid": "g"}]}
        return {"link_clicks": clicks} if path.startswith("bitlinks/") else {"links": items, "pagination": {}}

    pages = BitlyPages(fetch, Reading(UTC, NOW))
    try:
        rows = list(pages.rows())
        assert len(rows) >= len(items)
        targets = {plain(str(item["long_url"])) for item in items}
        for row in rows:
            try:
                assert pages.link(row).url in targets
            except RowRefused as refusal:
                check(str(refusal), "")
    except FileRefused as refusal:
        assert "\n" not in str(refusal)
