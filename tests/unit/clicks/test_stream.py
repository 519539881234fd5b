"""Entries of the click stream: what the consumer makes of the fields that a worker has written."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime
from typing import Any

import pytest

from snapurl.clicks.stream import decode_entry, visitors_key
from snapurl.model import VALUES_MAX, ClickRow, SourceClicks, SourceKind

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
    assert first.sources == (
        SourceClicks(SourceKind.COUNTRY, "DE", 2),
        SourceClicks(SourceKind.COUNTRY, "FR", 1),
        SourceClicks(SourceKind.BOT, "*", 2),
    )
    assert second.sources == (SourceClicks(SourceKind.CHANNEL, "qr", 1),)
    assert (other.day, other.hour, other.clicks, other.bots) == (date(2026, 11, 29), 0, 2, 0)
    assert other.sources == ()


@pytest.mark.parametrize(
    ("told", "kept"),
    [
        ({"planet": {"earth": 1}, "os": {"linux": 1}}, [("os", "linux", 1)]),
        ({"os": {"linux": 2, "ios": 2}, "device": {"phone": 3}}, [("device", "phone", 3)]),
        ({"referrer": {"x" * 300: 1}}, [("referrer", "x" * 255, 1)]),
        ({"utm_source": {"a\0\ud800b": 1}}, [("utm_source", "a??b", 1)]),
        ({"referrer": {"": 2, "a.example": 1}}, [("referrer", "a.example", 1)]),
    ],
)
def test_clicks_count_whatever_is_told_of_them(told: Any, kept: list[tuple[str, str, int]]) -> None:
    """A kind that the consumer does not know, or that says more than the clicks, is left out; values are cut."""
    (row,) = rows_of(clicks={HOUR: {"a": 3}}, bots={HOUR: {"a": 9}}, sources={HOUR: {"a": told}})
    assert (row.clicks, row.bots) == (3, 3)
    assert [(str(kind), value, clicks) for kind, value, clicks in row.sources] == kept


@pytest.mark.parametrize(("day", "hour"), [(DAY, 19), (date(2026, 11, 27), 23)])
def test_an_entry_of_an_older_worker_counts_in_the_hour_in_which_it_was_added(day: date, hour: int) -> None:
    """Where an entry only names a day, its clicks are in the hour of its id, or in the last one of a day that is
    over."""
    added_ms = int(datetime(2026, 11, 28, 19, 30, tzinfo=UTC).timestamp() * 1000)
    (row,) = rows_of(
        f"{added_ms}-0".encode(),
        clicks={day.isoformat(): {"a": 3}},
        sources={day.isoformat(): {"a": [["a.example", "", 2], ["", "firefox", 3]]}},
    )
    assert (row.day, row.hour, row.bots) == (day, hour, 0)
    assert row.sources == (
        SourceClicks(SourceKind.REFERRER, "a.example", 2),
        SourceClicks(SourceKind.BROWSER, "firefox", 3),
    )


@pytest.mark.parametrize("hour", ["2026-11-28T24", "2026-11-28T-1", "2026-11-28Tx", "T19", "2026-13-01T00"])
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
