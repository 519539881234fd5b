"""The overview: a field to shorten a URL, how many links are new, those with the most clicks, and the newest."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from sanic import HTTPResponse

from snapurl.errors import Unavailable
from snapurl.http.auth import owner_filter
from snapurl.model import Link, LinkCount, LinkOrder, LinkQuery
from snapurl.ui.call import Call
from snapurl.ui.retries import PAUSE_S_MIN, Retry

LISTED = 5  # links of each list
PERIODS = (("24 hours", 1), ("7 days", 7), ("30 days", 30))
RELOAD = Retry(PAUSE_S_MIN, 0)


@dataclass(frozen=True, slots=True)
class Period:
    """How many links were made in the last days, and in as many days before."""

    label: str
    now: LinkCount
    before: LinkCount


async def show(call: Call) -> HTTPResponse:
    now = call.services.clock()
    page = await call.services.links.page(LinkQuery(owner=owner_filter(call.user)), LISTED)
    top = await _top(call) if page.links else []
    return call.page(
        "overview.html",
        links=page.links,
        top=top,
        used=await call.services.links.used([*page.links, *top]),
        silent=page.silent,
        reload=RELOAD,
        periods=await _periods(call, now) if page.links else [],
        now=now,
        once=call.once,
    )


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
