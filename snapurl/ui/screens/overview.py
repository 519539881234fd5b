"""The overview: a field to shorten a URL, who has clicked of late and on what, and which links are new.

All that is told of clicks is kept for all links or those of an account, and no link is read for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from sanic import HTTPResponse

from snapurl.errors import Unavailable
from snapurl.groups import ALL, Group
from snapurl.http.auth import owner_filter
from snapurl.model import Link, LinkCount, LinkOrder, LinkQuery, Scope, SourceKind
from snapurl.ui.call import Call
from snapurl.ui.retries import PAUSE_S_MIN, Retry
from snapurl.ui.screens.statistics import PANEL_VALUES, PLACE
from snapurl.ui.source_panels import ValueShare
from snapurl.ui.statistics_query import Asked
from snapurl.ui.statistics_view import Figure, StatisticsView, figure, view_of

LISTED = 5  # links of each list
TAGS_LISTED = 8
MAIN_KINDS = (
    SourceKind.REFERRER,
    SourceKind.COUNTRY,
    SourceKind.DEVICE,
    SourceKind.CHANNEL,
    SourceKind.UTM_CAMPAIGN,
)
DAYS = 30  # of what is told of clicks
CLICK_PERIODS = (("Today", "yesterday", 1), ("7 days", "before", 7), ("30 days", "before", DAYS))
PERIODS = (("24 hours", 1), ("7 days", 7), ("30 days", 30))
RELOAD = Retry(PAUSE_S_MIN, 0)


@dataclass(frozen=True, slots=True)
class Period:
    """How many links were made in the last days, and in as many days before."""

    label: str
    now: LinkCount
    before: LinkCount


@dataclass(frozen=True, slots=True)
class _Clicks:
    """What is told of the clicks of the last DAYS days. `share` is that of bots, in per cent."""

    view: StatisticsView
    tiles: Sequence[tuple[str, str, Figure]]
    tags: Sequence[ValueShare]
    share: int


async def show(call: Call) -> HTTPResponse:
    now = call.services.clock()
    page = await call.services.links.page(LinkQuery(owner=owner_filter(call.user)), LISTED)
    top = await _top(call) if page.links else []
    return call.page(
        "overview.html",
        clicks=await _clicks(call),
        links=page.links,
        top=top,
        used=await call.services.links.used([*page.links, *top]),
        silent=page.silent,
        reload=RELOAD,
        periods=await _periods(call, now) if page.links else [],
        now=now,
        once=call.once,
    )


async def _clicks(call: Call) -> _Clicks | None:
    """Returns what is told of clicks; None if there are none, or it cannot be told now."""
    owner, statistics = owner_filter(call.user), call.services.statistics
    group = ALL if owner is None else Group(Scope.ACCOUNT, owner)
    asked = Asked.of({}, call.services.clock(), call.zone)
    try:
        report, tags = await asyncio.gather(
            statistics.of_group(
                group, asked.period, compare=True, kinds=MAIN_KINDS, limit=PANEL_VALUES, has_bots=False
            ),
            statistics.tags(owner, (asked.first, asked.last), TAGS_LISTED),
        )
    except Unavailable:
        return None
    assert report.previous is not None
    if not report.series.clicks and not report.previous.clicks:
        return None
    by_day = {
        each.start: each.clicks - each.bots for each in (*report.previous.points, *report.series.points)
    }

    def people(last: date, days: int) -> int:
        return sum(by_day.get(f"{last - timedelta(back)}", 0) for back in range(days))

    tiles = [
        (name, before, figure(name, people(asked.last, days), people(asked.last - timedelta(days), days)))
        for name, before, days in CLICK_PERIODS
    ]
    most = max((each.clicks - each.bots for each in tags), default=0) or 1
    bars = [
        ValueShare(each.tag, count, 100 * count / most) for each in tags if (count := each.clicks - each.bots)
    ]
    clicks, bots = report.series.clicks, report.series.bots
    return _Clicks(view_of(report, asked, PLACE), tiles, bars, round(100 * bots / clicks) if clicks else 0)


async def _top(call: Call) -> list[Link]:
    """Returns the links with the most clicks; none if that cannot be told now."""
    query = LinkQuery(owner=owner_filter(call.user), order=LinkOrder.CLICKS)
    try:
        page = await call.services.links.page(query, LISTED)
    except Unavailable:
        return []
    return [link for link in page.links if link.clicks]


async def _periods(call: Call, now: datetime) -> list[Period]:
    """Returns the counts of new links; none if a part of them cannot be counted now."""
    found = []
    for label, days in PERIODS:
        length = timedelta(days=days)
        count = await _count(call, now - length, now)
        before = await _count(call, now - 2 * length, now - length)
        if count is None or before is None:
            return []
        found.append(Period(label, count, before))
    return found


async def _count(call: Call, begin: datetime, end: datetime) -> LinkCount | None:
    query = LinkQuery(owner=owner_filter(call.user), created_from=begin, created_to=end)
    try:
        return await call.services.links.count(query)
    except Unavailable:
        return None
