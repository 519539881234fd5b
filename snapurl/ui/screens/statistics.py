"""Statistics of many links: of all, an account, a tag or a domain; and the tables of such pages as CSV."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.errors import NoSuchAddress
from snapurl.groups import Group
from snapurl.http.api.stats import group_of
from snapurl.http.auth import owner_filter
from snapurl.http.schema.statistics import csv_text, series_rows, value_rows
from snapurl.model import SourceKind
from snapurl.periods import Report
from snapurl.ui.call import Call
from snapurl.ui.forms import key_in_path
from snapurl.ui.source_panels import PANEL_KINDS, VALUES_SHOWN
from snapurl.ui.statistics_query import Asked
from snapurl.ui.statistics_view import StatisticsView, view_of

PLACE = "/ui/statistics"
GROUP_FIELDS = ("account", "domain", "tag")
KINDS = tuple(SourceKind)
PANEL_VALUES = VALUES_SHOWN + 1  # one of them may stand for all others
TABLE_VALUES = 1_000  # of a table, those with the most clicks
SERIES = "series"


def asked_of(call: Call, others: Mapping[str, str] | None = None) -> Asked:
    """Returns what the query string of a page of statistics asks for."""
    return Asked.of(call.query, call.services.clock(), call.zone, others)


async def view_of_link(call: Call, code: str, owner: str | None, place: str) -> StatisticsView:
    """Returns what a page at `place` shows of a link's clicks. Raises NotFound, Unavailable."""
    asked = asked_of(call)
    report = await call.services.statistics.of_link(
        code, owner, asked.period,
        compare=True, kinds=KINDS, limit=PANEL_VALUES, has_bots=asked.has_bots,
    )  # fmt: skip
    return view_of(report, asked, place)


async def show(call: Call) -> HTTPResponse:
    """The page of many links. Raises Invalid, Forbidden, NoSuchAccount, Unavailable."""
    named = _named(call)
    group, asked = _group(call, named), asked_of(call, named)
    report, (kind, name) = await asyncio.gather(
        call.services.statistics.of_group(
            group, asked.period,
            compare=True, kinds=KINDS, limit=PANEL_VALUES, has_bots=asked.has_bots,
        ),
        _title(call, named),
    )  # fmt: skip
    return call.page(
        "statistics.html",
        view=view_of(report, asked, PLACE),
        kind=kind,
        name=name,
        domains=_domains(call) if not name else (),
        links=f"/ui/links?{urlencode({'tag': named['tag']})}" if "tag" in named else "",
    )


async def table(call: Call) -> HTTPResponse:
    """A table of that page as CSV."""
    group, asked = _group(call, _named(call)), asked_of(call)
    kinds = kinds_of(call.path["table"])
    report = await call.services.statistics.of_group(
        group, asked.period, kinds=kinds, limit=TABLE_VALUES, has_bots=asked.has_bots
    )
    return csv_of(call, report, "clicks")


async def link_table(call: Call) -> HTTPResponse:
    """A table of a link's page as CSV."""
    code = key_in_path(call.path["code"])
    asked, kinds = asked_of(call), kinds_of(call.path["table"])
    report = await call.services.statistics.of_link(
        code, owner_filter(call.user), asked.period, kinds=kinds, limit=TABLE_VALUES, has_bots=asked.has_bots
    )
    return csv_of(call, report, call.path["code"])


def kinds_of(table: str) -> list[SourceKind]:
    """Returns the kind of a table, none for that of the series. Raises NoSuchAddress."""
    name = table.removesuffix(".csv")
    if name == table or (name != SERIES and name not in PANEL_KINDS):
        raise NoSuchAddress("nothing is at this address")
    return [] if name == SERIES else [PANEL_KINDS[name]]


def csv_of(call: Call, report: Report, name: str) -> HTTPResponse:
    """Returns the table of the path as a file whose name begins with `name`."""
    is_of_kind = bool(kinds_of(call.path["table"]))
    rows = value_rows(report.sources) if is_of_kind else series_rows(report.series)
    disposition = f'attachment; filename="{name}-{call.path["table"]}"'
    headers = {**call.context.headers, "content-disposition": disposition}
    return HTTPResponse(csv_text(rows), 200, headers, "text/csv; charset=utf-8")


def _domains(call: Call) -> Sequence[str]:
    """Returns the domains to choose from, where there are several and the caller sees all links."""
    domains = call.services.domains
    return domains.names if domains.others and owner_filter(call.user) is None else ()


def _named(call: Call) -> dict[str, str]:
    """Returns the parameters that name the group."""
    return {name: call.query[name] for name in GROUP_FIELDS if name in call.query}


def _group(call: Call, named: dict[str, str]) -> Group:
    call.context.query = named
    return group_of(call.context)


async def _title(call: Call, named: Mapping[str, str]) -> tuple[str, str]:
    """Returns what kind of group it is, and its name; both "" if it is all links that the caller may see."""
    if "tag" in named:
        return "Tag", named["tag"]
    if "domain" in named:
        return "Domain", named["domain"]
    if "account" in named and call.user.is_admin:
        return "Account", (await call.services.accounts.get(named["account"])).name
    return "", ""
