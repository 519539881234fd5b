"""What is read from a source: links, and rows that are none, with the reason. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, tzinfo

VISIT_DAYS_MAX = 2_000_000  # of all links of a source, in memory
FIRST_DAY = date(1990, 1, 1)


class FileRefused(ValueError):
    """The file as a whole cannot be read; the text says why."""


class RowRefused(ValueError):
    """A row cannot become a link; the text says why."""


@dataclass(frozen=True, slots=True)
class Reading:
    """How to read what a source leaves open: times without a zone, and what is in the future; whether visits are
    wanted."""

    zone: tzinfo
    now: datetime
    has_visits: bool = True


class VisitDays:
    """Visits of a source by link and UTC day. Those that cannot be true are left out."""

    def __init__(self, reading: Reading) -> None:
        self._last = reading.now.astimezone(UTC).date()
        self._days: dict[str, dict[date, tuple[int, int]]] = {}
        self._count = 0

    def add(self, code: str, day: date, *, clicks: int = 1, bots: int = 0) -> None:
        """Raises FileRefused beyond VISIT_DAYS_MAX days of links."""
        if not FIRST_DAY <= day <= self._last:
            return
        days = self._days.setdefault(code, {})
        if day not in days:
            self._count += 1
            if self._count > VISIT_DAYS_MAX:
                raise FileRefused(
                    f"its visits are on more than {VISIT_DAYS_MAX:,} days of links: import it with --no-visits"
                )
        before, bots_before = days.get(day, (0, 0))
        days[day] = before + clicks, bots_before + bots

    def of(self, code: str) -> Mapping[date, tuple[int, int]] | None:
        """Returns the days of a link, None if it has no visits."""
        return self._days.get(code)


def add_visits(found: Found, days: Mapping[date, tuple[int, int]] | None) -> None:
    """Gives a link its visits. Of two numbers of clicks the larger is taken: either may have been pruned there."""
    if days:
        found.days = days
        found.clicks = max(found.clicks or 0, sum(clicks for clicks, _ in days.values()))


@dataclass(frozen=True, slots=True)
class Row:
    """A row of a source. `place` counts its rows from 1; `fault` says why it cannot be read, "" if it can."""

    place: int
    cells: Sequence[str]
    fault: str = ""


@dataclass(slots=True)
class Found:
    """A link of a source, in the words of its API here.

    Without a `code` it gets one that the service makes up. `domain` is the host that the source names, "" for none.
    `days` are clicks, and those of bots among them, by UTC day, None without visits. `remarks` say what is not as
    it was in the source.
    """

    url: str
    code: str | None = None
    domain: str = ""
    title: str | None = None
    note: str | None = None
    tags: tuple[str, ...] = ()
    created_at: datetime | None = None
    starts_at: datetime | None = None
    expires_at: datetime | None = None
    max_clicks: int | None = None
    clicks: int | None = None
    enabled: bool = True
    days: Mapping[date, tuple[int, int]] | None = None
    others: dict[str, object] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
