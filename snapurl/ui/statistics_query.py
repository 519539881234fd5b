"""What a page of statistics was asked for in its query string: days, interval, with bots or without. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta, tzinfo
from urllib.parse import urlencode

from snapurl.periods import DAYS_MAX, DateRange, Interval

PRESETS = {1: "Today", 7: "7 days", 30: "30 days", 90: "90 days", 365: "1 year"}
"""The periods that a page offers, by their days: they end today."""
DAYS_DEFAULT = 30
RANGE_FAULT = f"This is no range of days that has begun, of at most {DAYS_MAX:,} days."
BARS_MAX = 170  # of a chart
DAYS_OF = {
    Interval.HOUR: (1, BARS_MAX // 24),
    Interval.DAY: (2, BARS_MAX),
    Interval.WEEK: (14, BARS_MAX * 7 - 7),
    Interval.MONTH: (60, DAYS_MAX),
}
"""How many days a period has at least and at most so that it is shown by an interval."""
_DAY_BARS, _WEEK_BARS = 92, 92  # beyond them a page chooses the next interval by itself


@dataclass(frozen=True, slots=True)
class Asked:
    """`period` has both bounds. `preset` is its number of days if it is one of PRESETS, else 0.

    `others` are further parameters of the page, which its links keep. `fault` says why the range that was typed is
    not shown.
    """

    period: DateRange
    today: date
    preset: int
    interval: Interval | None = None
    has_bots: bool = False
    fault: str = ""
    others: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        query: Mapping[str, str],
        now: datetime,
        zone: tzinfo = UTC,
        others: Mapping[str, str] | None = None,
    ) -> Asked:
        """Reads a query string; what is wrong in it is left out."""
        today = now.astimezone(zone).date()
        typed = [query.get(name, "").strip() for name in ("from", "to")]
        chosen = read_range(typed[0], typed[1], today) if any(typed) else None
        preset = DAYS_DEFAULT
        if query.get("days", "") in map(str, PRESETS):
            preset = int(query["days"])
        first, last = chosen or (today - timedelta(preset - 1), today)
        days = (last - first).days + 1
        wanted = query.get("interval", "")
        interval = Interval(wanted) if wanted in intervals_of(days) else None
        return cls(
            DateRange(first, last, interval or _interval_of(days), zone),
            today,
            0 if chosen else preset,
            interval,
            query.get("bots") == "yes",
            RANGE_FAULT if any(typed) and not chosen else "",
            others or {},
        )

    @property
    def presets(self) -> Mapping[int, str]:
        return PRESETS

    @property
    def first(self) -> date:
        assert self.period.first is not None
        return self.period.first

    @property
    def last(self) -> date:
        assert self.period.last is not None
        return self.period.last

    @property
    def days(self) -> int:
        return (self.last - self.first).days + 1

    @property
    def intervals(self) -> list[Interval]:
        """The intervals by which the period can be shown."""
        return intervals_of(self.days)

    @property
    def zone(self) -> str:
        """The name of the time zone of the days."""
        return str(self.period.zone)

    def query(self, **changed: str | int) -> str:
        """Returns the query string of this page with some parameters changed; "" takes one away."""
        kept: dict[str, str | int] = dict(self.others)
        kept |= {"days": self.preset} if self.preset else {"from": f"{self.first}", "to": f"{self.last}"}
        kept |= {"interval": self.interval or "", "bots": "yes" if self.has_bots else ""}
        return urlencode({name: value for name, value in (kept | changed).items() if value != ""})

    def period_query(self, days: int) -> str:
        """Returns the query string of this page with one of PRESETS."""
        return self.query(days=days, **{"from": "", "to": ""})

    @property
    def fields(self) -> dict[str, str]:
        """The fields of a form that asks for another range, besides that range."""
        return {**self.others, **({"bots": "yes"} if self.has_bots else {})}


def intervals_of(days: int) -> list[Interval]:
    """Returns the intervals by which so many days can be shown."""
    return [interval for interval, (least, most) in DAYS_OF.items() if least <= days <= most]


def _interval_of(days: int) -> Interval:
    """Returns the interval by which so many days are shown unless another one is asked for."""
    if days == 1:
        return Interval.HOUR
    if days <= _DAY_BARS:
        return Interval.DAY
    return Interval.WEEK if days <= 7 * _WEEK_BARS else Interval.MONTH


def read_range(first: str, last: str, today: date) -> tuple[date, date] | None:
    """Returns the first and the last day of a range that was typed; None if it is none.

    A range without an end goes up to today. It ends no later than that.
    """
    try:
        begin = date.fromisoformat(first)
        end = min(date.fromisoformat(last), today) if last else today
    except ValueError:
        return None
    return (begin, end) if 1 <= (end - begin).days + 1 <= DAYS_MAX else None
