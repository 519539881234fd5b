"""Charts: from intervals with clicks to the bars and the line that a page draws, in units of its picture. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from math import log10

from snapurl.periods import DateRange, Interval, Point, Series

WIDTH, HEIGHT = 720, 180
_TO = " \N{EN DASH} "
_GAP = 0.28  # of a bar's place


@dataclass(frozen=True, slots=True)
class Bar:
    """One interval: its place in the picture, what it is called, and its clicks.

    `before` are those of the interval that has its place in the period before; None if there is none. Those that
    another service counted, `imported`, stand above the bar.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    clicks: int
    visitors: int | None
    before: int | None
    imported: int = 0
    imported_y: float = 0.0
    imported_height: float = 0.0


@dataclass(frozen=True, slots=True)
class Chart:
    """The intervals of a period, oldest first. `line` has the points of the period before, as SVG has them.

    `top` is the number at the upper edge.
    """

    interval: Interval
    bars: tuple[Bar, ...]
    line: str
    top: int

    @property
    def size(self) -> tuple[int, int]:
        return WIDTH, HEIGHT

    @property
    def has_clicks(self) -> bool:
        return any(bar.clicks or bar.imported for bar in self.bars)

    @property
    def has_imported(self) -> bool:
        return any(bar.imported for bar in self.bars)

    @property
    def has_visitors(self) -> bool:
        return any(bar.visitors for bar in self.bars)


def chart(
    series: Series, previous: Series | None, *, has_bots: bool, imported: Series | None = None
) -> Chart:
    """Returns the chart of a period with both bounds. Where nobody clicked, a bar has no height."""
    starts = series.period.starts()
    found = _by_start(series)
    counts = [_clicks(found.get(start), has_bots) for start in starts]
    before = _counts_before(previous, len(starts), has_bots)
    others = {} if imported is None else _by_start(imported)
    above = [_clicks(others.get(start), has_bots) for start in starts]
    top = round_up(max([*map(sum, zip(counts, above, strict=True)), *before]))
    place = WIDTH / len(starts)
    bars = []
    for number, (start, count) in enumerate(zip(starts, counts, strict=True)):
        height = max(2.0, HEIGHT * count / top) if count else 0.0
        x, width = place * (number + _GAP / 2), place * (1 - _GAP)
        box = round(x, 2), round(HEIGHT - height, 2), round(width, 2), round(height, 2)
        point = found.get(start)
        rest = round(HEIGHT * above[number] / top, 2)
        bars.append(
            Bar(
                *box,
                label(series.period, start),
                count,
                None if point is None else point.visitors,
                before[number] if number < len(before) else None,
                above[number],
                round(HEIGHT - height - rest, 2),
                rest,
            )
        )
    corners = (
        f"{place * (number + 0.5):.1f},{HEIGHT - HEIGHT * count / top:.1f}"
        for number, count in enumerate(before)
    )
    return Chart(series.period.interval, tuple(bars), " ".join(corners) if any(before) else "", top)


def label(period: DateRange, start: str) -> str:
    """Returns what people call the interval of a period that begins at `start`."""
    if period.interval is Interval.HOUR:
        return f"{datetime.fromisoformat(start):%-d %b %Y, %H:%M}"
    assert period.first is not None and period.last is not None
    begin = date.fromisoformat(start)
    match period.interval:
        case Interval.MONTH:
            return f"{begin:%b %Y}"
        case Interval.WEEK:
            first, last = max(begin, period.first), min(begin + timedelta(6), period.last)
            return f"{first:%-d %b %Y}{_TO}{last:%-d %b %Y}" if first < last else f"{first:%-d %b %Y}"
        case _:
            return f"{begin:%-d %b %Y}"


def _by_start(series: Series) -> Mapping[str, Point]:
    return {point.start: point for point in series.points}


def _clicks(point: Point | None, has_bots: bool) -> int:
    if point is None:
        return 0
    return point.clicks if has_bots else point.clicks - point.bots


def _counts_before(previous: Series | None, intervals: int, has_bots: bool) -> Sequence[int]:
    """Returns the clicks of the intervals before, as many as there are now or fewer."""
    if previous is None:
        return []
    found = _by_start(previous)
    return [_clicks(found.get(start), has_bots) for start in previous.period.starts()[:intervals]]


def round_up(number: int) -> int:
    """Returns the smallest of 4, 5, 10, 20, 50, 100, … that is not below the number."""
    if number <= 4:
        return 4
    magnitude: int = 10 ** int(log10(number))
    return next(step * magnitude for step in (1, 2, 5, 10) if step * magnitude >= number)
