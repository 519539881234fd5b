"""Periods of statistics: which days one has, and how counts of UTC hours become its intervals. Pure.

Clicks are kept by UTC hour. An interval of another time zone is made of the UTC hours that begin in it. With half
an hour of offset, clicks around midnight may be on the neighbouring day. Clicks whose hour is not known, which are
old ones, count at noon. Visitors are known per UTC day only, and are shown on the day of that date.

Days that are no longer kept have become months (of UTC), which are known as a whole alone. A period counts a month
of which it has all days. By hour, day or week such a month is beside the series, not in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, time, timedelta, tzinfo
from enum import StrEnum

from snapurl.model import SourceClicks, SourceKind

HOUR_DAYS_MAX = 31  # of a period by hour
DAYS_MAX = 3_660  # of any period
_NOON = 12
_DAY_MINUTES = 1_440


class Interval(StrEnum):
    HOUR = "hour"
    DAY = "day"
    WEEK = "week"
    MONTH = "month"


@dataclass(frozen=True, slots=True)
class DayCounts:
    """What was counted on a UTC day. `hours` and `bot_hours` may be empty, and say less than there is.

    `visitors` is an estimate, None where there is none. If `is_month`, it is what was counted in the month that
    begins with the day, and `visitors` are those of its days, added up.
    """

    day: date
    clicks: int
    bots: int
    visitors: int | None = None
    hours: Mapping[int, int] = field(default_factory=dict)
    bot_hours: Mapping[int, int] = field(default_factory=dict)
    is_month: bool = False

    @property
    def last_day(self) -> date:
        if not self.is_month:
            return self.day
        return (self.day + timedelta(31)).replace(day=1) - timedelta(1)


@dataclass(frozen=True, slots=True)
class Point:
    """What was counted in an interval. `start` is ISO 8601: a date, or a time with its offset for an hour."""

    start: str
    clicks: int
    bots: int
    visitors: int | None


@dataclass(frozen=True, slots=True)
class DateRange:
    """Days from `first` to `last`, both included, of the time zone `zone`; None is no bound."""

    first: date | None = None
    last: date | None = None
    interval: Interval = Interval.DAY
    zone: tzinfo = UTC

    @property
    def needs_hours(self) -> bool:
        return self.interval is Interval.HOUR or self.zone is not UTC

    @property
    def utc_days(self) -> tuple[date | None, date | None]:
        """The first and the last UTC day that may have a part of the period."""
        around = timedelta(0 if self.zone is UTC else 1)
        return self.first and self.first - around, self.last and self.last + around

    def has(self, day: date) -> bool:
        """Whether the period has this date."""
        return (self.first is None or self.first <= day) and (self.last is None or day <= self.last)

    def has_all_of(self, counts: DayCounts) -> bool:
        return self.has(counts.day) and self.has(counts.last_day)

    def has_some_of(self, counts: DayCounts) -> bool:
        return (self.first is None or self.first <= counts.last_day) and (
            self.last is None or counts.day <= self.last
        )

    def with_previous(self) -> DateRange:
        """Returns the period of both: the one before this, and this."""
        return DateRange(self.before().first, self.last, self.interval, self.zone)

    def before(self) -> DateRange:
        """Returns the period of the same length that ends where this one, which has both bounds, begins."""
        assert self.first is not None and self.last is not None
        days = timedelta((self.last - self.first).days + 1)
        return DateRange(self.first - days, self.last - days, self.interval, self.zone)

    def starts(self) -> list[str]:
        """Returns where each interval of the period, which has both bounds, begins, oldest first."""
        assert self.first is not None and self.last is not None
        begin = datetime.combine(self.first, time(), self.zone)
        end = datetime.combine(self.last + timedelta(1), time(), self.zone)
        if self.interval is Interval.HOUR:
            begin = begin.astimezone(UTC).replace(minute=0)
            hours = -((begin - end.astimezone(UTC)) // timedelta(hours=1))
            moments = [(begin + timedelta(hours=hour)).astimezone(self.zone) for hour in range(hours)]
        else:
            moments = [begin + timedelta(day) for day in range((self.last - self.first).days + 1)]
        starts = (self._start(moment) for moment in moments)
        return list(dict.fromkeys(start[1] for start in starts if start is not None))

    def points(self, found: Sequence[DayCounts]) -> list[Point]:
        """Returns the intervals that have clicks, oldest first; by month, also months that are known as a whole."""
        found = [each for each in found if not each.is_month or self._shows(each)]
        sums: dict[tuple[datetime, str], list[int]] = {}
        has_visitors = self.interval is not Interval.HOUR and any(each.visitors is not None for each in found)
        for counts in found:
            for moment, clicks, bots in self._by_moment(counts):
                start = self._start(moment)
                if start is not None:
                    point = sums.setdefault(start, [0, 0, 0])
                    point[0] += clicks
                    point[1] += bots
            start = self._start(datetime.combine(counts.day, time(), self.zone))
            if has_visitors and start in sums:
                sums[start][2] += counts.visitors or 0
        return [
            Point(text, clicks, bots, visitors if has_visitors else None)
            for (_, text), (clicks, bots, visitors) in sorted(sums.items())
        ]

    def series(self, found: Sequence[DayCounts]) -> Series:
        months = [each for each in found if each.is_month and self.has_some_of(each)]
        return Series(self, self.points(found), months)

    def _shows(self, month: DayCounts) -> bool:
        return self.interval is Interval.MONTH and self.has_all_of(month)

    def _by_moment(self, counts: DayCounts) -> Iterable[tuple[datetime, int, int]]:
        """Yields local moments, and the clicks and bots that count at each."""
        midnight = datetime.combine(counts.day, time(), UTC)
        if counts.is_month or not self.needs_hours:
            yield midnight.replace(tzinfo=self.zone), counts.clicks, counts.bots
        elif self.interval is Interval.HOUR:
            for hour, clicks, bots in _by_hour(counts):
                yield (midnight + timedelta(hours=hour)).astimezone(self.zone), clicks, bots
        else:
            yield from self._by_local_date(midnight, _by_hour(counts))

    def _by_local_date(
        self, midnight: datetime, by_hour: Iterable[tuple[int, int, int]]
    ) -> Iterable[tuple[datetime, int, int]]:
        """Yields local moments, one per local date. A year has 8,760 hours, and to convert each one would take
        most of the time of an answer."""
        begin, end = (each.astimezone(self.zone) for each in (midnight, midnight + timedelta(hours=23)))
        is_even = begin.utcoffset() == end.utcoffset()
        minutes = begin.hour * 60 + begin.minute
        sums: dict[date, list[int]] = {}
        for hour, clicks, bots in by_hour:
            if is_even:
                day = end.date() if minutes + 60 * hour >= _DAY_MINUTES else begin.date()
            else:  # clocks change on this day
                day = (midnight + timedelta(hours=hour)).astimezone(self.zone).date()
            of_day = sums.setdefault(day, [0, 0])
            of_day[0] += clicks
            of_day[1] += bots
        for day, (clicks, bots) in sums.items():
            yield datetime.combine(day, time(), self.zone), clicks, bots

    def _start(self, local: datetime) -> tuple[datetime, str] | None:
        """Returns where the interval of a moment begins, to sort by and as text; None outside of the period."""
        day = local.date()
        if not self.has(day):
            return None
        match self.interval:
            case Interval.HOUR:
                local = local.replace(minute=0)
                return local.astimezone(UTC), local.isoformat(timespec="minutes")
            case Interval.WEEK:
                day -= timedelta(day.weekday())
            case Interval.MONTH:
                day = day.replace(day=1)
        return datetime.combine(day, time(), UTC), day.isoformat()


@dataclass(frozen=True, slots=True)
class Series:
    """The intervals of a period that have clicks. `visitors` is an estimate: None where there is none.

    `months` are those of the period that are known as a whole alone, also those of which it has only a part.
    """

    period: DateRange
    points: list[Point]
    months: Sequence[DayCounts] = ()

    @property
    def separate_months(self) -> list[DayCounts]:
        """The months that count and are in no point."""
        if self.period.interval is Interval.MONTH:
            return []
        return [each for each in self.months if self.period.has_all_of(each)]

    @property
    def clicks(self) -> int:
        return sum(each.clicks for each in self._counted)

    @property
    def bots(self) -> int:
        return sum(each.bots for each in self._counted)

    @property
    def visitors(self) -> int | None:
        known = [each.visitors for each in self._counted if each.visitors is not None]
        return sum(known) if known else None

    @property
    def _counted(self) -> list[Point | DayCounts]:
        return [*self.points, *self.separate_months]


@dataclass(frozen=True, slots=True)
class Report:
    """What was counted in a period, and in the one before it if that was asked for.

    `sources` is what is told of the clicks of the UTC days of these dates, `wholes` by kind are the clicks that its
    values add up to. `imported` is what another service had counted for a link, in no other number. `silent` are
    the shards whose part is missing.
    """

    series: Series
    previous: Series | None
    sources: list[SourceClicks]
    days: list[DayCounts]
    silent: tuple[str, ...] = ()
    imported: Series | None = None
    wholes: Mapping[SourceKind, int] = field(default_factory=dict)

    @property
    def clicks(self) -> int:
        """The clicks of which `sources` tells: of UTC days and months."""
        return clicks_of_dates(self.series.period, [*self.days, *self.series.months])


def clicks_of_dates(period: DateRange, found: Iterable[DayCounts]) -> int:
    """Returns the clicks of the UTC days, and of the whole months, that have dates of the period."""
    return sum(each.clicks for each in found if period.has_all_of(each))


def _by_hour(counts: DayCounts) -> Iterable[tuple[int, int, int]]:
    """Yields hour, clicks and bots of the hours that have clicks; those without an hour at noon."""
    clicks = counts.clicks - sum(counts.hours.values())
    bots = counts.bots - sum(counts.bot_hours.values())
    for hour in range(24):
        of_hour = counts.hours.get(hour, 0) + (clicks if hour == _NOON else 0)
        if of_hour:
            yield hour, of_hour, counts.bot_hours.get(hour, 0) + (bots if hour == _NOON else 0)
