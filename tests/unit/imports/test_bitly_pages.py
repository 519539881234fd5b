"""Bitly's API: groups, pages, custom links, and clicks by day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Any

import pytest

from snapurl.imports.bitly_pages import BitlyPages
from snapurl.imports.rows import FileRefused, Found, Reading, RowRefused
from tests.unit.imports.reading import NOW

ROOT = "https://api.test/v4/"
Answers = Mapping[tuple[str, str], Any]


def bitlink(name: str, **fields: Any) -> dict[str, Any]:
    return {
        "id": f"bit.ly/{name}", "link": f"https://bit.ly/{name}", "long_url": f"https://example.org/{name}",
        "created_at": "2020-10-26T17:20:40+0000", "archived": False, "tags": [], "custom_bitlinks": [], "title": "",
        "deeplinks": [], **fields,
    }  # fmt: skip


def page(*links: dict[str, Any], after: str = "") -> dict[str, Any]:
    following = f"{ROOT}groups/Bg1/bitlinks?size=100&archived=both&search_after={after}" if after else ""
    return {"links": list(links), "pagination": {"next": following, "size": 100}}


def opened(answers: Answers, reading: Reading = Reading(UTC, NOW)) -> BitlyPages:  # noqa: B008
    """Returns a source that is answered by path and by what is searched after."""
    return BitlyPages(lambda path, query: answers[path, query.get("search_after", "")], reading)


def read(pages: BitlyPages) -> list[Found | str]:
    found: list[Found | str] = []
    for row in pages.rows():
        try:
            found.append(pages.link(row))
        except RowRefused as refusal:
            found.append(str(refusal))
    return found


GROUPS = {"groups": [{"guid": "Bg1"}, {"guid": "Bg2"}]}
NO_CLICKS = {"unit": "day", "units": -1, "link_clicks": []}


def test_links_of_each_page_and_group_with_their_clicks_by_day() -> None:
    """A custom link wins; one with several has them all, and its clicks once; what is archived is switched off."""
    customs = ["https://go.test/Sale", "http://bit.ly/sale"]
    answers = {
        ("groups", ""): GROUPS,
        ("groups/Bg1/bitlinks", ""): page(
            bitlink("3xYz", custom_bitlinks=customs, title="a\x0bb", tags=["x", "y, z"]), after="next"
        ),
        ("groups/Bg1/bitlinks", "next"): page(bitlink("4", archived=True), bitlink("5", long_url=None)),
        ("groups/Bg2/bitlinks", ""): page(bitlink("6", created_at=None, custom_bitlinks=None, tags=None)),
        ("bitlinks/bit.ly/3xYz/clicks", ""): {
            "link_clicks": [
                {"clicks": 2, "date": "2021-02-04T00:00:00+0000"},
                {"clicks": 0, "date": "2021-02-03T00:00:00+0000"},
                {"clicks": 5, "date": "2021-01-30T00:00:00+0000"},
                {"clicks": 9, "date": "2999-01-30T00:00:00+0000"},
            ]
        },
        ("bitlinks/bit.ly/4/clicks", ""): NO_CLICKS,
        ("bitlinks/bit.ly/6/clicks", ""): NO_CLICKS,
    }
    pages = opened(answers)
    sale, also, archived, without, last = read(pages)
    assert isinstance(sale, Found) and isinstance(also, Found)
    assert isinstance(archived, Found) and isinstance(last, Found)
    assert (sale.code, sale.domain, sale.title, sale.tags) == ("Sale", "go.test", "a b", ("x", "y, z"))
    assert sale.created_at == datetime(2020, 10, 26, 17, 20, 40, tzinfo=UTC)
    assert (sale.days, sale.clicks) == ({date(2021, 2, 4): (2, 0), date(2021, 1, 30): (5, 0)}, 7)
    assert (also.code, also.domain, also.url, also.days) == ("sale", "", "https://example.org/3xYz", None)
    assert (archived.code, archived.domain, archived.enabled) == ("4", "", False)
    assert without == "it has no target"
    assert (last.code, last.days, last.clicks) == ("6", None, None)
    assert pages.groups_read == pages.groups == 2
    reading = Reading(UTC, NOW, has_visits=False)
    few = {key: answer for key, answer in answers.items() if not key[0].startswith("bitlinks/")}
    first, *_ = read(opened(few, reading))
    assert isinstance(first, Found) and first.days is None


@pytest.mark.parametrize(
    "answers",
    [
        {("groups", ""): []},
        {("groups", ""): {"groups": [7]}},
        {("groups", ""): GROUPS, ("groups/Bg1/bitlinks", ""): {"links": [{}], "pagination": {}}},
        {("groups", ""): GROUPS, ("groups/Bg1/bitlinks", ""): page(bitlink("a")),
         ("bitlinks/bit.ly/a/clicks", ""): {"link_clicks": [{"clicks": "many", "date": ""}]}},
    ],
)  # fmt: skip
def test_an_answer_that_is_not_bitlys_is_one_line(answers: Answers) -> None:
    """Whatever stands there."""
    with pytest.raises(FileRefused, match="not that of Bitly's API"):
        read(opened(answers))


def test_a_list_that_goes_round_ends() -> None:
    """A page that names itself as the next one is no list without end."""
    answers = {
        ("groups", ""): GROUPS,
        ("groups/Bg1/bitlinks", ""): page(after="a"),
        ("groups/Bg1/bitlinks", "a"): page(after="a"),
    }
    with pytest.raises(FileRefused, match="lists a page twice"):
        read(opened(answers))
