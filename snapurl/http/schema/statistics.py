"""Response bodies of statistics: their schemas for OpenAPI, and the functions that build them. Pure."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterable, Sequence
from datetime import datetime
from typing import Any

from pydantic import Field

from snapurl.http.schema.responses import DOMAIN, PARTIAL, Answer, missing, moment, named
from snapurl.link_exports import spreadsheet_cell
from snapurl.model import Share, SourceClicks, SourceKind
from snapurl.periods import Interval, Report, Series

_DATE: dict[str, Any] = {"format": "date"}
_COMPLETE = "False while a shard does not answer: its part is missing."
_MONTHS = "Months of the period whose days are no longer kept. In `clicks`; in the series only by month."
_VISITORS = "Different people per UTC day, an estimate, added up over days. Null where it is not known."


class Day(Answer):
    day: str = Field(json_schema_extra=_DATE, description="UTC")
    clicks: int = Field(ge=1)


class Referrer(Answer):
    host: str = Field(description="Host of the page with the link; empty if not told, `*` for any other.")
    clicks: int = Field(ge=1)


class Browser(Answer):
    family: str = Field(description="Empty if not told, `bot` and `program` among them, `*` for any other.")
    clicks: int = Field(ge=1)


class Value(Answer):
    value: str = Field(description="Empty if not told, `*` for all values beyond the bound.")
    clicks: int = Field(ge=1)


class StatsPoint(Answer):
    start: str = Field(
        description="Begin of the interval: a date, or a time with its offset where it is an hour."
    )
    clicks: int = Field(ge=1)
    bots: int = Field(ge=0)
    visitors: int | None = Field(ge=0, description=_VISITORS)


class StatsMonth(Answer):
    """A month (of UTC) that is known as a whole alone, since its days are no longer kept."""

    month: str = Field(json_schema_extra=_DATE, description="Its first day.")
    clicks: int = Field(ge=1)
    bots: int = Field(ge=0)
    visitors: int | None = Field(ge=0, description=_VISITORS)
    counted: bool = Field(
        description="Whether the period has the whole month. If not, it counts nowhere: how much of it was in the "
        "period is not known."
    )


class StatsSeries(Answer):
    """What was counted in a period. Intervals without clicks are left out."""

    first: str | None = Field(alias="from", json_schema_extra=_DATE, description="First day. Null: no bound.")
    last: str | None = Field(alias="to", json_schema_extra=_DATE, description="Last day. Null: no bound.")
    clicks: int = Field(ge=0, description="All clicks. People are `clicks` less `bots`.")
    bots: int = Field(ge=0)
    visitors: int | None = Field(ge=0, description=_VISITORS)
    series: list[StatsPoint]
    months: list[StatsMonth] = Field(description=_MONTHS)


class GroupStats(StatsSeries):
    """Clicks of all links of a group. A click counts under what its link had when it was counted."""

    interval: Interval
    tz: str
    previous: StatsSeries | None = Field(description="The period of the same length before it, if asked for.")
    complete: bool = Field(description=_COMPLETE)
    partial: list[str] | None = Field(description=PARTIAL)


class ImportedPoint(Answer):
    start: str = Field(description="As in `series`.")
    clicks: int = Field(ge=1)
    bots: int = Field(ge=0)


class ImportedStats(Answer):
    """What another service had counted in the period, as far as it was imported by day. In no other number."""

    clicks: int = Field(ge=0)
    bots: int = Field(ge=0)
    series: list[ImportedPoint]


class Stats(StatsSeries):
    """Clicks of a link; days without any are left out. Of referrers those with the most clicks are shown.

    Clicks that were counted without a source, before there were any or beyond their bound, are under the empty one.
    Days, referrers and browsers are of UTC days.
    """

    code: str
    domain: str | None = DOMAIN
    interval: Interval
    tz: str
    previous: StatsSeries | None = Field(description="The period of the same length before it, if asked for.")
    imported: ImportedStats
    days: list[Day]
    referrers: list[Referrer]
    browsers: list[Browser]


class KindStats(Answer):
    """Clicks by the values of one kind, those with the most clicks first; of UTC days.

    They add up to `clicks`, unless there are more values than asked for.
    """

    kind: SourceKind
    first: str | None = Field(alias="from", json_schema_extra=_DATE)
    last: str | None = Field(alias="to", json_schema_extra=_DATE)
    clicks: int = Field(ge=0)
    values: list[Value]
    months: list[StatsMonth] = Field(description="Months of the period whose days are no longer kept.")
    complete: bool = Field(description=_COMPLETE)
    partial: list[str] | None = Field(description=PARTIAL)


class PublicStats(Answer):
    """The public link to the statistics of a link. Whoever has it reads them without a key, until it is revoked."""

    code: str
    domain: str | None = DOMAIN
    url: str | None = Field(json_schema_extra={"format": "uri"}, description="Null: there is none.")
    created_at: datetime | None
    created_by: str | None = Field(description="The id of the API key.")


def public_stats_body(key: str, found: Share | None, url_of: Callable[[str, str], str]) -> dict[str, Any]:
    """Returns a `PublicStats`. `url_of` makes the URL of a key and a secret."""
    return {
        **named(key),
        "url": None if found is None else url_of(key, found.secret),
        "created_at": None if found is None else moment(found.made_at),
        "created_by": None if found is None else found.made_by,
    }


def link_stats_body(key: str, report: Report) -> dict[str, Any]:
    """Returns a `Stats`."""
    return {
        **named(key),
        **_report(report),
        "imported": _imported(report.imported),
        "days": [{"day": each.day.isoformat(), "clicks": each.clicks} for each in report.days],
        "referrers": _by_value(report.sources, SourceKind.REFERRER, "host"),
        "browsers": _by_value(report.sources, SourceKind.BROWSER, "family"),
    }


def group_stats_body(report: Report, *, is_admin: bool) -> dict[str, Any]:
    """Returns a `GroupStats`."""
    return {**_report(report), **missing(report.silent, is_admin)}


def kind_stats_body(kind: SourceKind, report: Report, *, is_admin: bool) -> dict[str, Any]:
    """Returns a `KindStats`."""
    period = report.series.period
    return {
        "kind": kind,
        "from": period.first and period.first.isoformat(),
        "to": period.last and period.last.isoformat(),
        "clicks": report.clicks,
        "values": _by_value(report.sources, kind, "value"),
        "months": _months(report.series),
        **missing(report.silent, is_admin),
    }


def series_rows(series: Series) -> list[tuple[object, ...]]:
    """Returns the rows of a CSV file, its head first. A month whose days are no longer kept starts at `2030-01`."""
    rows: list[tuple[object, ...]] = [("start", "clicks", "bots", "visitors")]
    rows += [(f"{each.day:%Y-%m}", each.clicks, each.bots, each.visitors) for each in series.separate_months]
    return rows + [(each.start, each.clicks, each.bots, each.visitors) for each in series.points]


def value_rows(sources: Iterable[SourceClicks]) -> list[tuple[object, ...]]:
    """Returns the rows of a CSV file, its head first."""
    return [("value", "clicks"), *((each.value, each.clicks) for each in sources)]


def csv_text(rows: Sequence[Sequence[object]]) -> str:
    """Returns the text of a CSV file, whose first row is its head."""
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow(rows[0])
    writer.writerows((spreadsheet_cell(str(first)), *rest) for first, *rest in rows[1:])
    return text.getvalue()


def _report(report: Report) -> dict[str, Any]:
    return {
        **_series(report.series),
        "interval": report.series.period.interval,
        "tz": str(report.series.period.zone),
        "previous": None if report.previous is None else _series(report.previous),
    }


def _series(series: Series) -> dict[str, Any]:
    period = series.period
    return {
        "from": period.first and period.first.isoformat(),
        "to": period.last and period.last.isoformat(),
        "clicks": series.clicks,
        "bots": series.bots,
        "visitors": series.visitors,
        "series": [
            {"start": each.start, "clicks": each.clicks, "bots": each.bots, "visitors": each.visitors}
            for each in series.points
        ],
        "months": _months(series),
    }


def _imported(series: Series | None) -> dict[str, Any]:
    points = [] if series is None else series.points
    return {
        "clicks": sum(each.clicks for each in points),
        "bots": sum(each.bots for each in points),
        "series": [{"start": each.start, "clicks": each.clicks, "bots": each.bots} for each in points],
    }


def _months(series: Series) -> list[dict[str, Any]]:
    return [
        {
            "month": each.day.isoformat(),
            "clicks": each.clicks,
            "bots": each.bots,
            "visitors": each.visitors,
            "counted": series.period.has_all_of(each),
        }
        for each in series.months
    ]


def _by_value(sources: Sequence[SourceClicks], kind: SourceKind, name: str) -> list[dict[str, Any]]:
    return [{name: source.value, "clicks": source.clicks} for source in sources if source.kind is kind]
