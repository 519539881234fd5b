"""Charts: from counts to the bars that a page draws, in units of its picture. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from math import ceil, log10

from snapurl.model import DayClicks, SourceClicks, SourceKind

WIDTH, HEIGHT = 720, 180
_GAP = 0.28  # of a bar's place
SOURCES_SHOWN = 8


@dataclass(frozen=True, slots=True)
class Bar:
    """One day: its place in the picture, and what is said of it."""

    x: float
    y: float
    width: float
    height: float
    day: date
    clicks: int


@dataclass(frozen=True, slots=True)
class DayChart:
    """The bars of successive days, oldest first; `top` is the number at the upper edge."""

    bars: tuple[Bar, ...]
    top: int
    clicks: int

    @property
    def first(self) -> date:
        return self.bars[0].day

    @property
    def last(self) -> date:
        return self.bars[-1].day


@dataclass(frozen=True, slots=True)
class Share:
    """One source of clicks, and how many hundredths of the clicks it has."""

    name: str
    clicks: int
    percent: float


def day_chart(found: Sequence[DayClicks], last: date, days: int) -> DayChart:
    """Returns the chart of the `days` days up to `last`. Days without clicks have a bar without height."""
    clicks = {item.day: item.clicks for item in found}
    shown = [last - timedelta(days=days - 1 - number) for number in range(days)]
    counts = [clicks.get(day, 0) for day in shown]
    top = round_up(max(counts))
    place = WIDTH / days
    bars = []
    for number, (day, count) in enumerate(zip(shown, counts, strict=True)):
        height = max(2.0, HEIGHT * count / top) if count else 0.0
        x, width = place * (number + _GAP / 2), place * (1 - _GAP)
        bars.append(
            Bar(round(x, 2), round(HEIGHT - height, 2), round(width, 2), round(height, 2), day, count)
        )
    return DayChart(tuple(bars), top, sum(counts))


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
