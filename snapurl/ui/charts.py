"""Charts: from counts to the bars that a page draws, in units of its picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, log10

from snapurl.http.schema.statistics import spreadsheet_cell
from snapurl.model import SourceClicks, SourceKind
from snapurl.periods import DayCounts

WIDTH, HEIGHT = 720, 180
_GAP = 0.28  # of a bar's place
SOURCES_SHOWN = 8


BARS_MAX = 92  # then a bar stands for a week, then for 30 days
BAR_DAYS = (1, 7, 30)
RANGE_DAYS_MAX = BARS_MAX * BAR_DAYS[-1]


@dataclass(frozen=True, slots=True)
class Bar:
    """One day, or some days from `day` to `last`: its place in the picture, and what is said of it."""

    x: float
    y: float
    width: float
    height: float
    day: date
    last: date
    clicks: int


@dataclass(frozen=True, slots=True)
class DayChart:
    """The bars of successive days, oldest first; `top` is the number at the upper edge.

    `before` are the clicks of as many days before the first.
    """

    bars: tuple[Bar, ...]
    top: int
    clicks: int
    before: int

    @property
    def first(self) -> date:
        return self.bars[0].day

    @property
    def last(self) -> date:
        return self.bars[-1].last

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def bar_days(self) -> int:
        """How many days a bar stands for; the last one may have fewer."""
        return (self.bars[0].last - self.bars[0].day).days + 1


@dataclass(frozen=True, slots=True)
class Share:
    """One source of clicks, and how many hundredths of the clicks it has."""

    name: str
    clicks: int
    percent: float


def day_chart(found: Sequence[DayCounts], last: date, days: int) -> DayChart:
    """Returns the chart of the `days` days up to `last`, at most RANGE_DAYS_MAX. Where nobody clicked, a bar has no
    height."""
    clicks = {item.day: item.clicks for item in found}
    shown = [last - timedelta(days=days - 1 - number) for number in range(days)]
    step = next(step for step in BAR_DAYS if days <= step * BARS_MAX)
    parts = [shown[number : number + step] for number in range(0, days, step)]
    counts = [sum(clicks.get(day, 0) for day in part) for part in parts]
    top = round_up(max(counts))
    place = WIDTH / len(parts)
    bars = []
    for number, (part, count) in enumerate(zip(parts, counts, strict=True)):
        height = max(2.0, HEIGHT * count / top) if count else 0.0
        x, width = place * (number + _GAP / 2), place * (1 - _GAP)
        box = round(x, 2), round(HEIGHT - height, 2), round(width, 2), round(height, 2)
        bars.append(Bar(*box, part[0], part[-1], count))
    begin = shown[0] - timedelta(days=days)
    before = sum(item.clicks for item in found if begin <= item.day < shown[0])
    return DayChart(tuple(bars), top, sum(counts), before)


def read_range(first: str, last: str, today: date) -> tuple[date, int] | None:
    """Returns the last day and the number of days of a range that was typed; None if it is none.

    A range without an end goes up to today. It ends no later than that.
    """
    try:
        begin = date.fromisoformat(first)
        end = min(date.fromisoformat(last), today) if last else today
    except ValueError:
        return None
    days = (end - begin).days + 1
    return (end, days) if 1 <= days <= RANGE_DAYS_MAX else None


def round_up(number: int) -> int:
    """Returns the smallest of 4, 5, 10, 20, 50, 100, … that is not below the number."""
    if number <= 4:
        return 4
    magnitude: int = 10 ** int(log10(number))
    return next(step * magnitude for step in (1, 2, 5, 10) if step * magnitude >= number)


def shares(found: Sequence[SourceClicks], kind: SourceKind, names: dict[str, str]) -> list[Share]:
    """Returns the sources of one kind, most clicks first, and the rest of them as one. `names` are for people."""
    listed = [item for item in found if item.kind is kind]
    total = sum(item.clicks for item in listed)
    shown, rest = listed[:SOURCES_SHOWN], listed[SOURCES_SHOWN:]
    result = [_share(names.get(item.value, item.value), item.clicks, total) for item in shown]
    return result + ([_share(f"{len(rest)} more", sum(item.clicks for item in rest), total)] if rest else [])


def _share(name: str, clicks: int, total: int) -> Share:
    return Share(name, clicks, ceil(1000 * clicks / total) / 10)


def source_rows(found: Sequence[SourceClicks], kind: SourceKind) -> list[tuple[str, int]]:
    """Returns the sources of one kind for a spreadsheet, which takes none of them for a formula."""
    return [(spreadsheet_cell(item.value), item.clicks) for item in found if item.kind is kind]
