"""Visits: lists made from counts, since no single visit is kept here; and the handlers that answer with them.

Clicks are counted per link and hour, and apart from that by referring host, browser, country and so on. A visit of
a list is one click: it has the hour in which it was counted, and values such that all visits of the list have as
many of each as were counted. Which values a visit has together means nothing. So every chart that tells one thing
is right, and one that combines two is not.

What is told of clicks is known per UTC day, so the values of a list are those of the days that it touches. They are
spread evenly over its visits.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time, timedelta
from functools import partial
from itertools import accumulate
from math import gcd
from typing import Any

from sanic import HTTPResponse

from snapurl.errors import Forbidden, Unavailable
from snapurl.groups import ALL, Group
from snapurl.http.schema.requests import TAG_CHARS_MAX, read_words
from snapurl.http.shlink.call import Call, pagination, stamp, summary
from snapurl.http.shlink.problems import ShlinkProblem, invalid
from snapurl.model import LinkQuery, Scope, SourceClicks, SourceKind
from snapurl.periods import HOUR_DAYS_MAX, DateRange, Interval, Report

PAGE_VISITS_MAX = 5_000  # what the web client asks for; clients that ask for more or for all get pages, too
LOOP_VISITS = 100  # more of them are made in a thread
VALUES_MAX = 1_000  # of a kind
KINDS = (SourceKind.REFERRER, SourceKind.BROWSER, SourceKind.COUNTRY, SourceKind.CITY)
YEARS = range(1970, 9_000)

BOT = "bot"
UNKNOWN = ("", "*")
_AGENTS = {
    "edge": "Mozilla/5.0 Edg/120.0",
    "chrome": "Mozilla/5.0 Chrome/120.0",
    "firefox": "Mozilla/5.0 Firefox/120.0",
    "safari": "Mozilla/5.0 Version/17.0 Safari/605.1.15",
    "opera": "Mozilla/5.0 OPR/105.0",
    "samsung": "Mozilla/5.0 SamsungBrowser/23.0",
}
"""For each browser what the web client takes for it. The versions mean nothing."""

# Between two visits of one value; the golden ratio spreads any share of them evenly. Each kind has another one.
_STEPS = (0.618034, 0.414214, 0.732051, 0.236068)


# -- from counts to visits ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Interval:
    """Clicks of one hour or day. `people_before` and `bots_before` are in the intervals after it: newest first."""

    at: datetime
    people: int
    bots: int
    people_before: int
    bots_before: int


class _Spread:
    """Gives each of `total` clicks a value, each as often as it was counted, and `other` to those that are left."""

    def __init__(
        self, counts: Sequence[tuple[Any, int]], total: int, step: float, other: str | None = ""
    ) -> None:
        self._other = other
        self._values = [value for value, _ in counts]
        self._ends = list(accumulate(count for _, count in counts))
        self._total = total
        self._stride = max(1, round(total * step))
        while gcd(self._stride, total) > 1:
            self._stride += 1

    def at(self, number: int) -> Any:
        place = bisect_right(self._ends, number * self._stride % self._total)
        return self._values[place] if place < len(self._values) else self._other


class Visits:
    """The visits of a report, newest first, between two moments."""

    def __init__(
        self, report: Report, since: datetime | None, until: datetime | None, now: datetime, *, bots: bool
    ) -> None:
        self._bots = bots
        self._now = now
        intervals: list[_Interval] = []
        people = of_bots = 0
        for point in reversed(report.series.points):
            at = _moment(point.start)
            intervals.append(_Interval(at, point.clicks - point.bots, point.bots, people, of_bots))
            people, of_bots = people + point.clicks - point.bots, of_bots + point.bots
        counts = {kind: _counts(report.sources, kind) for kind in KINDS}
        browsers = [item for item in counts[SourceKind.BROWSER] if item[0] != BOT]
        clicks = max(1, people + of_bots)
        self._referrers = _Spread(counts[SourceKind.REFERRER], clicks, _STEPS[0])
        self._browsers = _Spread(browsers, max(1, people), _STEPS[1])
        self._locations = _Spread(_locations(counts), clicks, _STEPS[2], None)
        self._intervals = [
            each
            for each in intervals
            if (since is None or since <= each.at) and (until is None or each.at <= until)
        ]
        self._ends = list(accumulate(each.people + each.bots * bots for each in self._intervals))

    @property
    def total(self) -> int:
        return self._ends[-1] if self._ends else 0

    def rows(self, first: int, count: int) -> list[dict[str, Any]]:
        """Returns `count` visits behind the first `first` ones."""
        return [self._row(*each) for each in self._numbered(first, min(first + count, self.total))]

    def _numbered(self, first: int, end: int) -> Iterator[tuple[_Interval, int]]:
        """Yields for each visit its interval and which one of that it is. In an interval, bots come last."""
        place = bisect_right(self._ends, first)
        while first < end:
            interval = self._intervals[place]
            begin = self._ends[place - 1] if place else 0
            last = min(end, self._ends[place])
            for number in range(first - begin, last - begin):
                yield interval, number
            first, place = last, place + 1

    def _row(self, interval: _Interval, number: int) -> dict[str, Any]:
        is_bot = number >= interval.people
        person = interval.people_before + min(number, interval.people)
        click = interval.people_before + interval.bots_before + number
        browser = BOT if is_bot else self._browsers.at(person)
        return {
            "referer": self._referrers.at(click),
            "date": stamp(min(interval.at, self._now)),
            "userAgent": _AGENTS.get(browser, browser),
            "visitLocation": _location(self._locations.at(click)),
            "potentialBot": is_bot,
            "visitedUrl": None,
            "redirectUrl": None,
        }


def _moment(start: str) -> datetime:
    """Returns when visits of an interval are said to be: an hour at its begin, a day at noon."""
    if "T" in start:
        return datetime.fromisoformat(start)
    return datetime.combine(datetime.fromisoformat(start).date(), time(12), UTC)


def _counts(sources: Sequence[SourceClicks], kind: SourceKind) -> list[tuple[Any, int]]:
    return [(item.value, item.clicks) for item in sources if item.kind is kind]


def _locations(counts: dict[SourceKind, list[tuple[Any, int]]]) -> list[tuple[tuple[str, str], int]]:
    """Returns pairs of country and city, "" for unknown ones. A city is `Paris, FR`."""
    countries = {value: clicks for value, clicks in counts[SourceKind.COUNTRY] if value not in UNKNOWN}
    found = []
    for value, clicks in counts[SourceKind.CITY]:
        city, _, country = value.rpartition(", ")
        if city and countries.get(country, 0) >= clicks:
            countries[country] -= clicks
            found.append(((country, city), clicks))
    return found + [((country, ""), clicks) for country, clicks in countries.items() if clicks]


def _location(place: tuple[str, str] | None) -> dict[str, Any] | None:
    if place is None:
        return None
    country, city = place
    return {
        "countryCode": country,
        "countryName": country,
        "regionName": None,
        "cityName": city or None,
        "latitude": None,
        "longitude": None,
        "timezone": None,
        "isEmpty": False,
    }


# -- handlers ----------------------------------------------------------------------------------------------------


async def link_visits(call: Call) -> HTTPResponse:
    services, period = call.context.services, _period(call)
    link = await services.links.get(call.context.code, call.owner)
    return await _answer(
        call,
        await services.statistics.of_link(link.code, call.owner, period, kinds=KINDS, limit=VALUES_MAX),
    )


async def tag_visits(call: Call) -> HTTPResponse:
    try:
        tag = read_words(call.name, TAG_CHARS_MAX)
    except ValueError as error:
        raise invalid("tag", str(error)) from None
    if call.one("domain") is not None:
        raise invalid("domain", "clicks of a tag are counted for all domains together")
    owner = call.owner
    group = Group(Scope.TAG, tag) if owner is None else Group(Scope.ACCOUNT_TAG, f"{owner}/{tag}")
    report = await _report_of(call, group)
    if not report.series.clicks:
        await require_tag(call, tag)
    return await _answer(call, report)


async def require_tag(call: Call, tag: str) -> None:
    """Raises ShlinkProblem if no link has the tag, Unavailable."""
    count = await call.context.services.links.count(LinkQuery(owner=call.owner, tags_any=(tag,)))
    if count is not None and not count.links:
        raise ShlinkProblem(404, "tag-not-found", "Tag not found", "No link has this tag.", tag=tag)


async def domain_visits(call: Call) -> HTTPResponse:
    return await _answer(call, await _report_of(call, _of_domain(call, call.name)))


async def all_visits(call: Call) -> HTTPResponse:
    return await _answer(call, await _report_of(call, _of_all(call)))


def _of_all(call: Call) -> Group:
    """Returns the links whose clicks are asked for: those of a domain, else all that the key reaches."""
    if (domain := call.one("domain")) is not None:
        return _of_domain(call, domain)
    return ALL if call.owner is None else Group(Scope.ACCOUNT, call.owner)


def _of_domain(call: Call, text: str) -> Group:
    """Returns the links of a domain. Raises Invalid, Forbidden, and ShlinkProblem if there is no such domain."""
    domain = call.domain(text) or ""
    if not call.context.services.domains.has(domain):
        raise ShlinkProblem(
            404, "domain-not-found", "Domain not found", "This service has no such domain.", authority=text
        )
    if call.owner is not None:
        raise Forbidden("clicks of a domain are those of all accounts: they need an admin key")
    return Group(Scope.DOMAIN, domain)


async def orphan_visits(call: Call) -> HTTPResponse:
    """Answers that there are none: only clicks of links are counted."""
    page, size = call.page(PAGE_VISITS_MAX, PAGE_VISITS_MAX)
    return call.answer({"visits": {"data": [], "pagination": pagination(0, page, size, 0)}})


async def visits_overview(call: Call) -> HTTPResponse:
    scope, key = (Scope.DOMAIN, None) if call.owner is None else (Scope.ACCOUNT, [call.owner])
    found = await call.context.services.statistics.totals_of_groups(scope, key)
    _refuse_silent(found.silent)
    clicks, bots = (sum(counted) for counted in zip((0, 0), *found.totals.values(), strict=True))
    none = summary(0, 0)
    return call.answer({"visits": {"nonOrphanVisits": summary(clicks, bots), "orphanVisits": none}})


async def delete_visits(call: Call) -> HTTPResponse:
    """Refuses: what was counted of a link stays as long as the link does."""
    await call.context.services.links.get(call.context.code, call.owner)
    raise Forbidden("clicks are counts here, and stay: delete the link, or make another one")


async def delete_orphan_visits(call: Call) -> HTTPResponse:
    return call.answer({"deletedVisits": 0})


async def _report_of(call: Call, group: Group) -> Report:
    return await call.context.services.statistics.of_group(
        group, _period(call), kinds=KINDS, limit=VALUES_MAX
    )


def _period(call: Call) -> DateRange:
    """Returns the days that are asked for: by hour if they are few. Raises Invalid."""
    since, until = call.date("startDate"), call.date("endDate")
    for name, moment in (("startDate", since), ("endDate", until)):
        if moment is not None and moment.year not in YEARS:
            raise invalid(name, "is not in a year that there are clicks of")
    first, last = since and since.date(), until and until.date()
    end = last or call.context.services.clock().date()
    is_short = first is not None and end - first < timedelta(HOUR_DAYS_MAX)
    return DateRange(first, last, Interval.HOUR if is_short else Interval.DAY)


def _refuse_silent(silent: Sequence[str]) -> None:
    """Raises Unavailable if shards are silent: Shlink has no word for a list that lacks a part."""
    if silent:
        raise Unavailable("some clicks cannot be reached now", is_public=True, retry_after_s=1.0)


async def _answer(call: Call, report: Report) -> HTTPResponse:
    _refuse_silent(report.silent)
    page, size = call.page(PAGE_VISITS_MAX, PAGE_VISITS_MAX)
    since, until = call.date("startDate"), call.date("endDate")
    now, people_alone = call.context.services.clock(), call.is_set("excludeBots")
    work = partial(_page, call, Visits(report, since, until, now, bots=not people_alone), page, size)
    return await call.context.in_thread(work) if size > LOOP_VISITS else work()


def _page(call: Call, visits: Visits, page: int, size: int) -> HTTPResponse:
    rows = visits.rows((page - 1) * size, size)
    body = {"data": rows, "pagination": pagination(visits.total, page, size, len(rows))}
    return call.answer({"visits": body})
