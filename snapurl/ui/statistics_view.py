"""What a page of statistics shows: numbers compared with the period before, a chart, and a table per kind. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from snapurl.periods import Report, Series
from snapurl.ui.charts import Chart, chart
from snapurl.ui.source_panels import Panel, panels_of
from snapurl.ui.statistics_query import Asked

_PERCENT_MAX = 999


@dataclass(frozen=True, slots=True)
class Difference:
    """How a number compares with the one before: as it is shown, and as it is read out. `sign` is 1, 0 or -1."""

    text: str
    spoken: str
    sign: int


@dataclass(frozen=True, slots=True)
class Figure:
    """A number of the period, and the one of the period before. `change` is None where that was 0.

    `is_wanted` says whether more of it is better.
    """

    name: str
    number: int
    before: int
    change: Difference | None
    is_estimate: bool = False
    is_wanted: bool = True


@dataclass(frozen=True, slots=True)
class StatisticsView:
    """`place` is the path of the page, and of its tables. `is_partial` says whether a shard's part is missing."""

    place: str
    asked: Asked
    figures: Sequence[Figure]
    chart: Chart
    panels: Sequence[Panel]
    is_partial: bool

    @property
    def table_query(self) -> str:
        """The query string of the page's tables."""
        return self.asked.query()


def view_of(report: Report, asked: Asked, place: str) -> StatisticsView:
    """Returns what is shown of a report that has all kinds and the period before."""
    return StatisticsView(
        place,
        asked,
        _figures(report, has_bots=asked.has_bots),
        chart(report.series, report.previous, has_bots=asked.has_bots, imported=report.imported),
        panels_of(report.sources, report.wholes),
        bool(report.silent),
    )


def _figures(report: Report, *, has_bots: bool) -> list[Figure]:
    now, before = report.series, report.previous
    assert before is not None
    figures = [
        figure("Clicks", now.clicks, before.clicks)
        if has_bots
        else figure("People", people(now), people(before))
    ]
    if now.visitors:
        figures.append(figure("Visitors", now.visitors, before.visitors or 0, is_estimate=True))
    figures.append(replace(figure("Bots", now.bots, before.bots), is_wanted=False))
    return figures


def people(series: Series) -> int:
    return series.clicks - series.bots


def figure(name: str, number: int, before: int, *, is_estimate: bool = False) -> Figure:
    return Figure(name, number, before, difference(number, before), is_estimate)


def difference(number: int, before: int) -> Difference | None:
    """Returns how a number compares with the one before, in per cent; None if that was 0."""
    if not before:
        return None
    percent = round(100 * (number - before) / before)
    if percent == 0:
        return Difference("\N{PLUS-MINUS SIGN}0 %", "as many as before", 0)
    if percent > _PERCENT_MAX:
        return Difference(
            f"\N{MULTIPLICATION SIGN} {number // before:,}",
            f"{number // before:,} times as many as before",
            1,
        )
    if percent > 0:
        return Difference(f"+{percent} %", f"{percent} % more than before", 1)
    return Difference(f"\N{MINUS SIGN}{-percent} %", f"{-percent} % less than before", -1)
