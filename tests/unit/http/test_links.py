"""Cursors of the list: opaque, exact and strictly checked."""

from __future__ import annotations

import base64
import json
from dataclasses import replace
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.errors import Invalid
from snapurl.http.api.cursors import write_cursor
from snapurl.http.api.lists import described, read_place
from snapurl.http.schema.requests import CURSOR_CHARS_MAX
from snapurl.model import LinkOrder, LinkQuery, PageKey

QUERY = LinkQuery(text="sale", tags_any=("a", "b"))
DIGEST = json.loads(
    base64.urlsafe_b64decode(
        write_cursor(PageKey(datetime(2030, 1, 1, tzinfo=UTC), "abc"), described(QUERY)) + "=="
    )
)[2]


def encoded(value: object) -> str:
    return base64.urlsafe_b64encode(json.dumps(value, separators=(",", ":")).encode()).decode().rstrip("=")


@given(
    st.datetimes(min_value=datetime(2020, 1, 1), max_value=datetime(9000, 1, 1), timezones=st.just(UTC)),  # noqa: DTZ001
    st.from_regex(r"[A-Za-z0-9_-]{1,64}", fullmatch=True),
)
def test_a_cursor_comes_back_as_it_was(created_at: datetime, code: str) -> None:
    """A cursor keeps the time to the microsecond, and is no longer than the API accepts."""
    cursor = write_cursor(PageKey(created_at, code), described(QUERY))
    assert read_place(cursor, QUERY) == PageKey(created_at, code)
    assert len(cursor) <= CURSOR_CHARS_MAX


BY_CLICKS = LinkQuery(order=LinkOrder.CLICKS)
NEW_YEAR = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    "key", [PageKey(None, "abc", 1), PageKey(None, "a" * 64, 2**63 - 1), PageKey(NEW_YEAR, "abc", 0)]
)
def test_a_cursor_by_clicks_comes_back_as_it_was(key: PageKey) -> None:
    """A cursor of a list by clicks has the clicks; where there are none, it has the time of creation."""
    cursor = write_cursor(key, described(BY_CLICKS))
    assert read_place(cursor, BY_CLICKS) == key
    assert len(cursor) <= CURSOR_CHARS_MAX


@pytest.mark.parametrize(
    ("key", "query"),
    [
        (PageKey(None, "abc", 2**63), BY_CLICKS),
        (PageKey(None, "abc", -1), BY_CLICKS),
        (PageKey(NEW_YEAR, "abc", 1), BY_CLICKS),
        (PageKey(None, "abc", 0), BY_CLICKS),
        (PageKey(NEW_YEAR, "abc"), BY_CLICKS),
        (PageKey(NEW_YEAR, "abc", 0), LinkQuery()),
        (PageKey(None, "abc", 1), LinkQuery(order=LinkOrder.CODE)),
    ],
)
def test_a_cursor_that_its_order_never_has_is_refused(key: PageKey, query: LinkQuery) -> None:
    """A made-up cursor with too many clicks, or with a part that its list is not sorted by, is refused."""
    with pytest.raises(Invalid):
        read_place(write_cursor(key, described(query)), query)


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "!!!!",
        "ä",
        "a" * (CURSOR_CHARS_MAX + 1),
        encoded(None),
        encoded([]),
        encoded({"a": 1, "b": 2}),
        encoded(["2030-01-01T00:00:00.000000Z"]),
        encoded(["2030-01-01T00:00:00.000000Z", "abc", 1]),
        encoded(["2030-01-01T00:00:00.000000Z", "abc", DIGEST, 1]),
        encoded(["2030-01-01T00:00:00.000000Z", 7, DIGEST]),
        encoded(["2030-01-01T00:00:00.000000Z", "a b", DIGEST]),
        encoded(["2030-01-01T00:00:00.000000", "abc", DIGEST]),
        encoded(["2030-01-01", "abc", DIGEST]),
        encoded(["0001-01-01T00:00:00+23:59", "abc", DIGEST]),
        encoded([5, "abc", DIGEST]),
        encoded([None, "abc", DIGEST]),
        encoded("ab"),
        encoded(["2030-01-01T00:00:00.000000Z", "abc", DIGEST]) + "=",
        encoded(["2030-01-01T00:00:00.000000Z", "abc", DIGEST]) + "AAAA",
    ],
)
def test_what_we_did_not_write_is_refused(cursor: str) -> None:
    """A cursor that differs in any character is refused with an error that points at the parameter."""
    with pytest.raises(Invalid) as caught:
        read_place(cursor, QUERY)
    assert caught.value.fields[0].pointer == "/query/cursor"


@pytest.mark.parametrize(
    "other",
    [
        LinkQuery(),
        LinkQuery(text="sale"),
        replace(QUERY, ascending=True),
        replace(QUERY, order=LinkOrder.CHANGED),
        replace(QUERY, owner="me"),
    ],
)
def test_a_cursor_of_another_query_is_refused(other: LinkQuery) -> None:
    """A cursor belongs to its query: with another filter, order or key it is refused."""
    cursor = write_cursor(PageKey(datetime(2030, 1, 1, tzinfo=UTC), "abc"), described(QUERY))
    with pytest.raises(Invalid):
        read_place(cursor, other)


@given(st.text(max_size=80))
def test_no_text_can_crash_the_reader(text: str) -> None:
    """Whatever the text, a cursor is either read or refused as Invalid."""
    try:
        read_place(text, QUERY)
    except Invalid:
        return
