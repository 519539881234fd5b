"""Shlink: the CSV of its web client, and the columns of its own importer."""

from __future__ import annotations

from datetime import UTC, date, datetime
from typing import Any

import pytest

from snapurl.imports.rows import FileRefused, Reading
from snapurl.imports.shlink_pages import ShlinkPages
from tests.unit.imports.reading import NOW, links, read, with_visits

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


LINKS = HEAD + "\n".join(
    f'"2023-04-05T06:07:08+02:00","{host}","{code}","https://{host}/{code}","https://example.org/","","",{clicks}'
    for host, code, clicks in (
        ("s.test", "abc", 2),
        ("go.test", "abc", 0),
        ("s.test", "%C3%BC", 9),
        ("s.test", "d", 0),
    )
)
WEB = (
    '"date","potentialBot","userAgent","os","browser","referer","country","region","city","latitude","longitude",'
    '"visitedUrl","type"\n'
)
CLI = "Date,Potential bot,User agent,Referer,Country,Region,City,Visited URL,Redirect URL,Type\n"


def web_visit(moment: str, url: str, is_bot: str = "false", kind: str = "") -> str:
    return f'"{moment}",{is_bot},"Mozilla, 5","Linux","Firefox","Direct","","","",,,"{url}","{kind}"\n'


def test_visits_of_the_web_client_are_days_of_their_links() -> None:
    """The URL that was visited says which link it was, on which domain; orphans belong to no link."""
    visits = WEB + "".join(
        (
            web_visit("2024-02-03T23:30:00-01:00", "https://s.test/abc"),
            web_visit("2024-02-04T10:00:00+00:00", "https://S.test:443/abc/?qr=1", "true"),
            web_visit("2024-02-04T10:00:00.123Z", "http://go.test/abc"),
            web_visit("2024-02-04T10:00:00+00:00", "https://s.test/%C3%BC"),
            web_visit("2024-02-04T10:00:00+00:00", "https://s.test/", kind="base_url"),
            web_visit("2024-02-04T10:00:00+00:00", "https://s.test/nothing/here", kind="regular_404"),
            web_visit("2024-02-04T10:00:00+00:00", ""),
        )
    )
    first, other, umlaut, none = with_visits("shlink", LINKS, visits.removesuffix("\n"))
    assert first.days == {date(2024, 2, 4): (2, 1)} and first.clicks == 2
    assert other.days == umlaut.days == {date(2024, 2, 4): (1, 0)}
    assert (other.clicks, umlaut.clicks) == (1, 9)
    assert none.days is None


def test_visits_of_its_command_line_are_days_of_their_links() -> None:
    """Its bots are a word, its columns have other names; a file of links without domains finds them by the code, if
    one domain alone has it."""
    visits = (
        CLI
        + "2024-02-03T10:00:00+00:00,,curl/8,,Unknown,Unknown,Unknown,https://s.test/d,https://example.org/,\n"
        + "2024-02-03T11:00:00+00:00,Potential bot,bot,,Unknown,Unknown,Unknown,https://s.test/d,https://example.org/,\n"
        + "2024-02-03T11:00:00+00:00,,x,,Unknown,Unknown,Unknown,https://s.test/abc,https://example.org/,\n"
        + "2024-02-03T11:00:00+00:00,,x,,Unknown,Unknown,Unknown,https://go.test/abc,https://example.org/,\n"
    )
    content = "Long URL;Short code\nhttps://example.org/;d\nhttps://example.org/;abc\n"
    found, twice = with_visits("shlink", content, visits)
    assert found.days == {date(2024, 2, 3): (2, 1)}
    assert twice.days is None


@pytest.mark.parametrize(
    ("visits", "why"),
    [
        (WEB + web_visit("2024-02-04T10:00:00Z", ""), "does not say which links were visited"),
        (
            WEB + web_visit("yesterday", "https://s.test/abc"),
            "row 1 of the file with the visits: 'yesterday' is no",
        ),
        (LINKS, "the file with the visits needs the columns date and visitedUrl"),
        (WEB + '"2024-02-04T10:00:00Z",false,"', "row 1 of the file with the visits: "),
    ],
)
def test_visits_that_cannot_be_read_refuse_the_import(visits: str, why: str) -> None:
    """What is no file of visits, or not whole, is named with its row."""
    with pytest.raises(FileRefused, match=why):
        with_visits("shlink", LINKS, visits)
