"""Handlers that only read: clicks of a link and of groups of links, the ring."""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, tzinfo
from zoneinfo import ZoneInfo

from sanic import HTTPResponse

from ring.arcs import ARCS
from snapurl.codes import is_code, key_of
from snapurl.errors import Forbidden, NoSuchAddress
from snapurl.groups import ALL, Group
from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import query_error, read_domain
from snapurl.http.schema.requests import TAG_CHARS_MAX, read_words
from snapurl.http.schema.responses import ring_body
from snapurl.http.schema.statistics import (
    csv_text,
    group_stats_body,
    kind_stats_body,
    link_stats_body,
    series_rows,
    value_rows,
)
from snapurl.model import Scope, SlotPlace, SourceKind
from snapurl.periods import DAYS_MAX, HOUR_DAYS_MAX, DateRange, Interval

CSV = "text/csv"
ACCEPT_CHARS_MAX = 1_000  # of the header that are looked at
VALUES_DEFAULT = 100
VALUES_MAX = 1_000
HOUR_DAYS_DEFAULT = 7
SHOWN = (SourceKind.REFERRER, SourceKind.BROWSER)
SHOWN_VALUES = 50  # of each


async def link_stats(call: RequestContext) -> HTTPResponse:
    period, compare = _period(call)
    wants_csv = _wants_csv(call)  # it has the series alone
    report = await call.services.statistics.of_link(
        call.code, owner_filter(call.caller), period,
        compare=compare, kinds=() if wants_csv else SHOWN, limit=SHOWN_VALUES,
    )  # fmt: skip
    if wants_csv:
        return _csv(call, series_rows(report.series))
    return call.json_response(link_stats_body(call.code, report))


async def link_stats_kind(call: RequestContext) -> HTTPResponse:
    kind, period, limit = _kind(call), DateRange(*_dates(call)), _limit(call)
    report = await call.services.statistics.of_link(
        call.code, owner_filter(call.caller), period, kinds=[kind], limit=limit
    )
    if _wants_csv(call):
        return _csv(call, value_rows(report.sources))
    return call.json_response(kind_stats_body(kind, report, is_admin=call.caller.is_admin))


async def stats(call: RequestContext) -> HTTPResponse:
    group = group_of(call)
    period, compare = _period(call)
    report = await call.services.statistics.of_group(group, period, compare=compare)
    if _wants_csv(call):
        return _csv(call, series_rows(report.series))
    return call.json_response(group_stats_body(report, is_admin=call.caller.is_admin))


async def stats_kind(call: RequestContext) -> HTTPResponse:
    group = group_of(call)
    kind, period, limit = _kind(call), DateRange(*_dates(call)), _limit(call)
    report = await call.services.statistics.of_group(group, period, kinds=[kind], limit=limit)
    if _wants_csv(call):
        return _csv(call, value_rows(report.sources))
    return call.json_response(kind_stats_body(kind, report, is_admin=call.caller.is_admin))


def group_of(call: RequestContext) -> Group:
    """Returns the links that are asked for: without a parameter all that the key may see.

    Raises Invalid, and Forbidden for links of others.
    """
    account, domain, tag = (call.query.get(name) for name in ("account", "domain", "tag"))
    owner = owner_filter(call.caller)
    if domain is not None and (account is not None or tag is not None):
        raise query_error("domain", "goes with neither account nor tag")
    if owner is not None and (domain is not None or account not in (None, owner)):
        raise Forbidden("statistics of links of others need an admin key")
    account = account or owner
    if tag is not None:
        try:
            tag = read_words(tag, TAG_CHARS_MAX)
        except ValueError as error:
            raise query_error("tag", str(error)) from None
        return Group(Scope.TAG, tag) if account is None else Group(Scope.ACCOUNT_TAG, f"{account}/{tag}")
    if domain is not None:
        return Group(Scope.DOMAIN, read_domain(call)[0])
    return ALL if account is None else Group(Scope.ACCOUNT, account)


def _period(call: RequestContext) -> tuple[DateRange, bool]:
    """Returns the period, and whether to compare it with the one before. Raises Invalid."""
    interval = call.query.get("interval", Interval.DAY)
    if interval not in list(Interval):
        raise query_error("interval", f"must be one of {', '.join(Interval)}")
    zone = _zone(call)
    compare = call.query.get("compare")
    if compare not in (None, "previous"):
        raise query_error("compare", "must be previous")
    first, last = _dates(call)
    if interval == Interval.HOUR or compare:
        last = last or call.services.clock().astimezone(zone).date()
        if first is None and interval == Interval.HOUR:
            first = last - timedelta(HOUR_DAYS_DEFAULT - 1)
        if first is None or first > last:
            raise query_error("from", "is the first day of what is compared, and no later than today")
    if interval == Interval.HOUR and first and last and (last - first).days >= HOUR_DAYS_MAX:
        raise query_error("from", f"by hour there are at most {HOUR_DAYS_MAX} days")
    return DateRange(first, last, Interval(interval), zone), compare is not None


def _dates(call: RequestContext) -> tuple[date | None, date | None]:
    first, last = _date(call, "from"), _date(call, "to")
    if first and last:
        if first > last:
            raise query_error("to", "is before from")
        if (last - first).days >= DAYS_MAX:
            raise query_error("from", f"a period has at most {DAYS_MAX} days")
    return first, last


def _date(call: RequestContext, name: str) -> date | None:
    text = call.query.get(name)
    if text is None:
        return None
    try:
        found = datetime.strptime(text, "%Y-%m-%d").replace(tzinfo=UTC).date()
    except ValueError:
        found = date.min
    if found.isoformat() != text or not 1970 <= found.year <= 9000:
        raise query_error(name, "must be a date such as 2030-01-31")
    return found


def _zone(call: RequestContext) -> tzinfo:
    name = call.query.get("tz", "UTC")
    if name == "UTC":
        return UTC
    try:
        return ZoneInfo(name[:100])
    except (KeyError, ValueError, OSError):  # KeyError: there is none; the others: it is a path
        raise query_error("tz", "is not the name of a time zone, as in Europe/Berlin") from None


def _kind(call: RequestContext) -> SourceKind:
    name = str(call.request.match_info.get("kind", ""))
    if name not in list(SourceKind):
        raise NoSuchAddress(f"clicks are told by {', '.join(SourceKind)}")
    return SourceKind(name)


def _limit(call: RequestContext) -> int:
    text = call.query.get("limit", str(VALUES_DEFAULT))
    if not re.fullmatch(r"[0-9]{1,4}", text) or not 1 <= int(text) <= VALUES_MAX:
        raise query_error("limit", f"must be a number from 1 to {VALUES_MAX}")
    return int(text)


def _wants_csv(call: RequestContext) -> bool:
    accepted = call.request.headers.get("accept", "")[:ACCEPT_CHARS_MAX]
    return any(each.partition(";")[0].strip().lower() == CSV for each in accepted.split(","))


def _csv(call: RequestContext, rows: Sequence[Sequence[object]]) -> HTTPResponse:
    call.headers["vary"] = f"{call.headers['vary']}, Accept"
    return HTTPResponse(csv_text(rows), 200, call.headers, f"{CSV}; charset=utf-8")


async def ring(call: RequestContext) -> HTTPResponse:
    count = _arcs(call.query.get("arcs"))
    place = _place(call) if "code" in call.query else None
    reshard = await call.services.reshard()
    arcs = None if count is None else call.services.arcs(count)
    return call.json_response(ring_body(call.services.ring_view(), reshard, place, arcs))


def _arcs(text: str | None) -> int | None:
    """Returns how many arcs are asked for. Raises Invalid."""
    if text is None:
        return None
    for count in ARCS:
        if text == str(count):
            return count
    raise query_error("arcs", f"must be one of {', '.join(map(str, ARCS))}")


def _place(call: RequestContext) -> SlotPlace:
    code = call.query["code"]
    if not is_code(code):
        raise query_error("code", "is not the code of a link")
    return call.services.place_of(key_of(read_domain(call)[0], code))
