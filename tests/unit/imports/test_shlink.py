"""Shlink: the CSV of its web client, and the columns of its own importer."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from snapurl.imports.rows import FileRefused, Reading
from snapurl.imports.shlink_pages import ShlinkPages
from tests.unit.imports.reading import NOW, links, read

HEAD = '"createdAt","domain","shortCode","shortUrl","longUrl","title","tags","visits"\n'


def test_the_csv_of_the_web_client() -> None:
    """Codes are decoded once, tags are joined by |, the host of the default domain is a domain like any other."""
    rows = [
        '"2023-04-05T06:07:08+02:00","s.test","%C3%BCber","https://s.test/%C3%BCber","https://example.org/",'
        '"A, ""b""","x|y z",7',
        '"2023-04-05T06:07:08+00:00","go.test","a/b","https://go.test/a/b","https://example.org/","","",0',
    ]
    first, second = links("shlink", HEAD + "\n".join(rows))  # no newline at the end
    assert (first.domain, first.code, first.title, first.tags, first.clicks) == (
        "s.test",
        "über",
        'A, "b"',
        ("x", "y z"),
        7,
    )
    assert first.created_at == datetime(2023, 4, 5, 4, 7, 8, tzinfo=UTC)
    assert (second.domain, second.code, second.title, second.tags) == ("go.test", "a/b", None, ())


def test_the_columns_of_its_importer() -> None:
    """Names with spaces in any case, `;`, and a row without a code, which is no link of Shlink."""
    content = "LONG url;short CODE;Title;Tags\nhttps://example.org/;abc;t;a|b\nhttps://example.org/;;t;\n"
    found = read("shlink", content)
    assert found[1] == "it has no code"
    assert links("shlink", content.rsplit("\n", 2)[0])[0].tags == ("a", "b")


def short_url(code: str, **fields: Any) -> dict[str, Any]:
    return {
        "shortUrl": f"https://s.test/{code}", "shortCode": code, "longUrl": "https://example.org/", "domain": None,
        "dateCreated": "2023-04-05T06:07:08+02:00", "tags": [], "title": None, "forwardQuery": False,
        "meta": {"validSince": None, "validUntil": None, "maxVisits": None},
        "visitsSummary": {"total": 0, "nonBots": 0, "bots": 0}, "hasRedirectRules": False, **fields,
    }  # fmt: skip


def test_the_pages_of_its_api() -> None:
    """What is no column of its CSV comes along: validity, limits, forwarding; rules are named."""
    meta = {
        "validSince": "2024-01-01T00:00:00+00:00",
        "validUntil": "2031-01-01T00:00:00+00:00",
        "maxVisits": 10,
    }
    pages = [
        [short_url("a", tags=["x", "y|z"], forwardQuery=True, visitsSummary={"total": 4}, meta=meta)],
        [
            short_url("b/c", domain="go.test", hasRedirectRules=True),
            short_url("d", meta={"maxVisits": 3}, visitsCount=3, visitsSummary=None),
        ],
    ]
    asked = []

    def fetch(page: int) -> dict[str, Any]:
        asked.append(page)
        return {
            "shortUrls": {
                "data": pages[page - 1],
                "pagination": {"currentPage": page, "pagesCount": 2, "totalItems": 3},
            }
        }

    source = ShlinkPages(fetch, Reading(UTC, NOW))
    first, second, third = (source.link(row) for row in source.rows())
    assert asked == [1, 2] and source.pages_read == source.pages
    assert (first.code, first.domain, first.tags, first.clicks, first.max_clicks) == (
        "a",
        "s.test",
        ("x", "y|z"),
        4,
        6,
    )
    assert first.starts_at == datetime(2024, 1, 1, tzinfo=UTC) and first.expires_at == datetime(
        2031, 1, 1, tzinfo=UTC
    )
    assert first.others == {"forward_query": True} and first.enabled
    assert (second.domain, second.code, second.remarks) == (
        "go.test",
        "b/c",
        ["its redirect rules are not imported"],
    )
    assert not third.enabled and third.others == {"forward_query": False}


def test_a_link_that_is_hidden_by_a_deleted_one_is_missed() -> None:
    """The links that were read must be as many as the last page counts."""
    page = {"shortUrls": {"data": [short_url("a")], "pagination": {"pagesCount": 1, "totalItems": 2}}}
    with pytest.raises(FileRefused, match="only 1 of 2"):
        list(ShlinkPages(lambda _: page, Reading(UTC, NOW)).rows())


def test_an_answer_that_is_not_shlinks_is_one_line() -> None:
    """Whatever stands there."""
    answers: list[dict[str, Any]] = [
        {},
        {"shortUrls": []},
        {"shortUrls": {"data": [1], "pagination": {"pagesCount": 1, "totalItems": 1}}},
    ]
    for answer in answers:
        with pytest.raises(FileRefused, match="not that of Shlink"):
            list(ShlinkPages(lambda _, answer=answer: answer, Reading(UTC, NOW)).rows())  # type: ignore[misc]
