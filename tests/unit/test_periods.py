"""Periods: which days they have, and how counts of UTC hours become intervals of a time zone."""

from __future__ import annotations

from datetime import UTC, date, timedelta
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.periods import DateRange, DayCounts, Interval, Point

DAY = date(2026, 3, 28)
BERLIN, KOLKATA = ZoneInfo("Europe/Berlin"), ZoneInfo("Asia/Kolkata")


def counted(day: date, hours: dict[int, int], bots: dict[int, int] | None = None) -> DayCounts:
    bot_hours = bots or {}
    return DayCounts(day, sum(hours.values()), sum(bot_hours.values()), 3, hours, bot_hours)


@pytest.mark.parametrize(
    ("interval", "zone", "points"),
    [
        (Interval.DAY, UTC, [("2026-03-28", 7), ("2026-03-29", 5)]),
        (Interval.DAY, BERLIN, [("2026-03-28", 4), ("2026-03-29", 8)]),
        (Interval.DAY, KOLKATA, [("2026-03-28", 3), ("2026-03-29", 9)]),
        (Interval.WEEK, UTC, [("2026-03-23", 12)]),
        (Interval.MONTH, UTC, [("2026-03-01", 12)]),
        (
            Interval.HOUR,
            BERLIN,  # where clocks went from 02:00 to 03:00 on the second day
            [
                ("2026-03-28T13:00+01:00", 3),
                ("2026-03-28T20:00+01:00", 1),
                ("2026-03-29T00:00+01:00", 3),
                ("2026-03-29T01:00+01:00", 4),
                ("2026-03-29T03:00+02:00", 1),
            ],
        ),
        (
            Interval.HOUR,
            KOLKATA,  # UTC+5:30: an hour begins in the middle of a local one
            [
                ("2026-03-28T17:00+05:30", 3),
                ("2026-03-29T00:00+05:30", 1),
                ("2026-03-29T04:00+05:30", 3),
                ("2026-03-29T05:00+05:30", 4),
                ("2026-03-29T06:00+05:30", 1),
            ],
        ),
    ],
)
def test_hours_become_intervals_of_a_time_zone(
    interval: Interval, zone: ZoneInfo, points: list[tuple[str, int]]
) -> None:
    """Each UTC hour counts in the interval of the time zone in which it begins."""
    found = [
        counted(DAY, {12: 3, 19: 1, 23: 3}),
        counted(date(2026, 3, 29), {0: 4, 1: 1}),
    ]
    shown = DateRange(None, None, interval, zone).points(found)
    assert [(point.start, point.clicks) for point in shown] == points


def test_clicks_without_an_hour_count_on_their_day() -> None:
    """What was counted before hours were kept stays on its day, and at noon by hour; bots go with it."""
    old = DayCounts(DAY, 5, 2, 4, {8: 1}, {8: 1})
    assert DateRange(DAY, DAY, Interval.DAY, BERLIN).points([old]) == [Point("2026-03-28", 5, 2, 4)]
    assert DateRange(DAY, DAY, Interval.HOUR).points([old]) == [
        Point("2026-03-28T08:00+00:00", 1, 1, None),
        Point("2026-03-28T12:00+00:00", 4, 1, None),
    ]


JANUARY = DayCounts(date(2026, 1, 1), 40, 4, 9, is_month=True)
FEBRUARY = DayCounts(date(2026, 2, 1), 20, 2, None, is_month=True)


@pytest.mark.parametrize("zone", [UTC, BERLIN, KOLKATA, ZoneInfo("America/New_York")])
def test_months_without_days_are_beside_the_series_or_in_it(zone: ZoneInfo) -> None:
    """A month whose days are no longer kept is a point by month; by day it counts beside the points. A period that
    has only a part of it says so, and counts none of it."""
    found = [JANUARY, FEBRUARY, counted(DAY, {12: 3})]
    by_month = DateRange(None, None, Interval.MONTH, zone).series(found)
    assert [(point.start, point.clicks, point.visitors) for point in by_month.points] == [
        ("2026-01-01", 40, 9),
        ("2026-02-01", 20, 0),
        ("2026-03-01", 3, 3),
    ]
    assert (by_month.clicks, by_month.bots, by_month.visitors) == (63, 6, 12)
    by_day = DateRange(None, None, Interval.DAY, zone).series(found)
    assert [(point.start, point.clicks) for point in by_day.points] == [("2026-03-28", 3)]
    assert (by_day.clicks, by_day.bots, by_day.visitors) == (63, 6, 12)
    for interval in (Interval.DAY, Interval.MONTH):
        cut = DateRange(date(2026, 1, 2), date(2026, 3, 28), interval, zone).series(found)
        assert cut.months == [JANUARY, FEBRUARY]
        assert (cut.clicks, cut.period.has_all_of(JANUARY)) == (23, False)
    assert DateRange(date(2026, 3, 1), None, Interval.DAY, zone).series(found).months == []


def test_a_period_leaves_out_what_is_outside_of_it_in_its_time_zone() -> None:
    """Hours before the first and after the last local day do not count, and neither do visitors of other dates."""
    found = [counted(DAY, {22: 1, 23: 2}), counted(date(2026, 3, 29), {21: 4, 22: 8})]
    second = date(2026, 3, 29)
    period = DateRange(second, second, Interval.DAY, BERLIN)
    assert period.utc_days == (DAY, date(2026, 3, 30))
    assert period.points(found) == [Point("2026-03-29", 6, 0, 3)]


@given(st.integers(1, 400), st.sampled_from(list(Interval)), st.sampled_from([UTC, BERLIN, KOLKATA]))
def test_the_period_before_is_as_long_and_ends_where_it_begins(
    days: int, interval: Interval, zone: ZoneInfo
) -> None:
    """The period to compare with has as many days, and none in common or between."""
    period = DateRange(DAY, DAY + timedelta(days - 1), interval, zone)
    before = period.before()
    assert before.last == DAY - timedelta(1)
    assert before.first is not None and (before.last - before.first).days == days - 1


HOURS = st.dictionaries(st.integers(0, 23), st.integers(1, 9), min_size=1)


@given(st.lists(HOURS, max_size=40), st.sampled_from(list(Interval)), st.sampled_from([UTC, BERLIN, KOLKATA]))
def test_no_click_is_lost_or_counted_twice(
    hours: list[dict[int, int]], interval: Interval, zone: ZoneInfo
) -> None:
    """Whatever interval and time zone, all clicks and bots are in exactly one interval."""
    found = [counted(DAY + timedelta(number), each, each) for number, each in enumerate(hours)]
    points = DateRange(None, None, interval, zone).points(found)
    assert sum(point.clicks for point in points) == sum(each.clicks for each in found)
    assert sum(point.bots for point in points) == sum(each.bots for each in found)
    assert len({point.start for point in points}) == len(points)


@pytest.mark.parametrize("interval", list(Interval))
@given(zone=st.sampled_from((UTC, BERLIN, KOLKATA, ZoneInfo("America/St_Johns"))), days=st.integers(1, 100))
def test_every_point_begins_where_an_interval_begins(interval: Interval, zone: ZoneInfo, days: int) -> None:
    """The intervals of a period are all there, in order, and have every point of its clicks."""
    period = DateRange(DAY - timedelta(days - 1), DAY + timedelta(1), interval, zone)
    found = [counted(DAY - timedelta(back), dict.fromkeys(range(24), 1)) for back in range(-2, days + 1)]
    starts = period.starts()
    points = [point.start for point in period.points(found)]
    assert points == starts
