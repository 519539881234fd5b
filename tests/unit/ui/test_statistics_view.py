"""Pages of statistics: what was asked for, the chart, and how numbers compare with those before."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta

import pytest

from snapurl.model import SourceClicks, SourceKind
from snapurl.periods import DAYS_MAX, DayCounts, Interval, Series
from snapurl.ui.charts import chart
from snapurl.ui.source_panels import VALUES_SHOWN, panels_of
from snapurl.ui.statistics_query import BARS_MAX, Asked, read_range
from snapurl.ui.statistics_view import difference

NOW = datetime(2030, 6, 1, 15, tzinfo=UTC)


@pytest.mark.parametrize("interval", ["", *Interval])
@pytest.mark.parametrize("days", [1, 2, 7, 31, BARS_MAX, BARS_MAX + 1, 365, 2_000, DAYS_MAX])
def test_a_chart_of_any_range_has_all_its_clicks_in_few_bars(days: int, interval: str) -> None:
    """However long the range, the bars are few, and together have every click of it and of no other day; the line
    has no more points than there are bars."""
    begin = NOW.date() - timedelta(days - 1)
    asked = Asked.of({"from": f"{begin}", "interval": interval}, NOW)
    assert not interval or (asked.period.interval == interval) == (interval in asked.intervals)
    past = [NOW.date() - timedelta(back) for back in range(2 * days + 1)]
    counted = [DayCounts(day, 3, 1, hours={7: 3}, bot_hours={7: 1}) for day in past]
    before = asked.period.before()
    series, previous = (Series(period, period.points(counted)) for period in (asked.period, before))
    for has_bots, each in ((True, 3), (False, 2)):
        made = chart(series, previous, has_bots=has_bots)
        assert len(made.line.split()) <= len(made.bars) <= BARS_MAX
        assert sum(bar.clicks for bar in made.bars) == each * days
        assert len({bar.label for bar in made.bars}) == len(made.bars)


@pytest.mark.parametrize(
    ("first", "last", "expected"),
    [
        ("2030-01-01", "2030-01-31", (date(2030, 1, 1), date(2030, 1, 31))),
        ("2030-01-31", "", (date(2030, 1, 31), date(2030, 2, 1))),
        ("2030-01-31", "2031-01-01", (date(2030, 1, 31), date(2030, 2, 1))),
        ("2030-02-02", "", None), ("2030-01-02", "2030-01-01", None), ("", "2030-01-01", None),
        ("1900-01-01", "", None), ("x", "", None),
    ],
)  # fmt: skip
def test_a_range_is_read(first: str, last: str, expected: tuple[date, date] | None) -> None:
    """A range has days that have begun, in order, and not too many."""
    assert read_range(first, last, date(2030, 2, 1)) == expected


@pytest.mark.parametrize(
    ("number", "before", "text"),
    [(12, 10, "+20 %"), (9, 12, "\N{MINUS SIGN}25 %"), (1_001, 1_000, "\N{PLUS-MINUS SIGN}0 %"),
     (500, 7, "\N{MULTIPLICATION SIGN} 71"), (0, 4, "\N{MINUS SIGN}100 %"), (4, 0, None)],
)  # fmt: skip
def test_a_number_is_compared_with_the_one_before(number: int, before: int, text: str | None) -> None:
    """A change is in per cent, a great one says how many times, and there is none from nothing."""
    found = difference(number, before)
    assert (found and found.text) == text


def test_a_table_adds_up_to_all_clicks() -> None:
    """What is beyond the rows of a table, or beyond the bound of a day, is one row: all others."""
    values = [SourceClicks(SourceKind.COUNTRY, f"{number}", 40 - number) for number in range(20)]
    sources = [SourceClicks(SourceKind.COUNTRY, "*", 99), *values]
    (panel,) = panels_of(sources, {SourceKind.COUNTRY: 1_000})
    assert len(panel.rows) == VALUES_SHOWN + 1
    assert sum(row.clicks for row in panel.rows) == 1_000
    assert panel.rows[-1].name == "All others"


def test_imported_clicks_stand_above_those_that_were_counted() -> None:
    """A bar shows both within the picture; the counted ones stay what they are."""
    asked = Asked.of({"from": f"{NOW.date() - timedelta(6)}"}, NOW)
    counted, imported = (
        Series(asked.period, asked.period.points([DayCounts(NOW.date(), clicks, 1)])) for clicks in (3, 8)
    )
    (bar,) = [bar for bar in chart(counted, None, has_bots=False, imported=imported).bars if bar.clicks]
    assert (bar.clicks, bar.imported) == (2, 7) and bar.imported_y >= 0
    assert bar.imported_y + bar.imported_height == pytest.approx(bar.y)
    assert chart(Series(asked.period, []), None, has_bots=True, imported=imported).has_clicks
    assert not chart(counted, None, has_bots=True).has_imported
