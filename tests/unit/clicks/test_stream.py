"""Entries of the click stream: what the consumer makes of the fields that a worker has written."""

from __future__ import annotations

import json
from datetime import date
from typing import Any

import pytest

from snapurl.clicks.stream import decode_entry, visitors_key
from snapurl.model import VALUES_MAX, ClickRow, SourceKind

DAY = date(2026, 11, 28)
HOUR = "2026-11-28T19"


def rows_of(entry_id: bytes = b"7-1", **fields: Any) -> list[ClickRow]:
    return decode_entry(
        entry_id, {name.encode(): json.dumps(value).encode() for name, value in fields.items()}
    )


def test_an_entry_tells_hours_bots_and_sources() -> None:
    """Each row has its day and hour, how many of its clicks are of bots, and its sources by kind."""
    first, second, other = rows_of(
        clicks={HOUR: {"a": 5, "b": 1}, "2026-11-29T00": {"a": 2}},
        bots={HOUR: {"a": 2}},
        sources={HOUR: {"a": {"country": {"DE": 2, "FR": 1}, "bot": {"*": 2}}, "b": {"channel": {"qr": 1}}}},
    )
    assert (first.code, first.day, first.hour, first.clicks, first.bots) == ("a", DAY, 19, 5, 2)
    assert first.sources == {SourceKind.COUNTRY: {"DE": 2, "FR": 1}, SourceKind.BOT: {"*": 2}}
    assert second.sources == {SourceKind.CHANNEL: {"qr": 1}}
    assert (other.day, other.hour, other.clicks, other.bots) == (date(2026, 11, 29), 0, 2, 0)
    assert other.sources == {}


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"planet": {"earth": 1}, "os": {"linux": 1}}, {"os": {"linux": 1}}),
        ({"os": {"linux": 2, "ios": 2}, "device": {"phone": 3}}, {"device": {"phone": 3}}),
        ({"referrer": {"x" * 300: 1}}, {"referrer": {"x" * 255: 1}}),
        ({"referrer": {"x" * 300: 1, f"{'x' * 299}y": 1}}, {"referrer": {"x" * 255: 2}}),
        ({"utm_source": {"a\0b": 1}}, {"utm_source": {"a?b": 1}}),
        ({"referrer": {"": 2, "a.example": 1}}, {"referrer": {"a.example": 1}}),
        ({"utm_source": {"\ud800": 1}}, {}),
        ({"os": {"linux": 0}}, {}),
        ({"os": {"linux": "1"}}, {}),
        ([["a.example", "firefox", 1]], {}),
    ],
)
def test_clicks_count_whatever_is_told_of_them(told: Any, kept: dict[str, dict[str, int]]) -> None:
    """A kind that the consumer does not know, or that says more than the clicks, is left out; values are cut; a
    field that is malformed tells nothing."""
    (row,) = rows_of(clicks={HOUR: {"a": 3}}, bots={HOUR: {"a": 9}}, sources={HOUR: {"a": told}})
    assert (row.clicks, row.bots, row.sources) == (3, 3, kept)


@pytest.mark.parametrize("clicks", [0, -1, True, 1.5, "1", 2**50, None])
def test_an_entry_without_a_number_of_clicks_cannot_be_read(clicks: object) -> None:
    """Clicks are whole numbers from 1 on."""
    with pytest.raises(ValueError, match=r".+"):
        rows_of(clicks={HOUR: {"a": clicks}})


@pytest.mark.parametrize(
    "hour", ["2026-11-28T24", "2026-11-28T-1", "2026-11-28Tx", "2026-11-28", "T19", "2026-13-01T00"]
)
def test_an_entry_of_no_hour_cannot_be_read(hour: str) -> None:
    """An entry whose day or hour there is not is malformed."""
    with pytest.raises(ValueError, match=r".+"):
        rows_of(clicks={hour: {"a": 1}})


def test_each_kind_has_a_bound_of_values() -> None:
    """No kind is without a bound of its values per link and day."""
    assert set(VALUES_MAX) == set(SourceKind)


def test_visitors_of_a_link_have_a_key_per_day() -> None:
    """The key of a link's visitors names the cluster, the day and the link."""
    assert visitors_key("c1", DAY, "a") == "snapurl:c1:clicks:visitors:2026-11-28:a"
