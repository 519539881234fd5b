"""Handlers of the list of blocked hosts: its state, a URL that is tried, and the links to blocked hosts."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from sanic import HTTPResponse

from snapurl.errors import BlockedTarget
from snapurl.http.api.cursors import write_cursor
from snapurl.http.api.lists import described, read_place
from snapurl.http.context import RequestContext
from snapurl.http.schema.blocklist import UrlToTry, blocked_link_body
from snapurl.http.schema.requests import check
from snapurl.http.schema.responses import moment
from snapurl.model import Link, LinkFields, LinkOrder, LinkQuery, ListedLinks
from snapurl.targets.policy import HOST_BLOCKED, TargetPolicy

LINKS_READ = 1_000  # per page
ALL_LINKS = LinkQuery(order=LinkOrder.CODE, ascending=True)


async def read_blocklist(call: RequestContext) -> HTTPResponse:
    targets = call.services.targets
    state, faults = targets.blocklist, targets.faults
    return call.json_response(
        {
            "hosts": state.hosts if state else None,
            "unread_lines": state.unread_lines if state else 0,
            "loaded_at": moment(state.loaded_at) if state and state.loaded_at else None,
            "fault": faults.get("blocklist"),
            "has_file": "blocklist" in faults,
            "has_command": "url_check" in faults,
            "command_fault": faults.get("url_check"),
        }
    )


async def try_url(call: RequestContext) -> HTTPResponse:
    refusal = await verdict(call, check(UrlToTry, call.value, call.rules()).url)
    reason = refusal.fields[0].detail if refusal else None
    by = None if reason is None else "host" if reason == HOST_BLOCKED else "command"
    return call.json_response({"allowed": reason is None, "by": by, "reason": reason})


async def verdict(call: RequestContext, url: str) -> BlockedTarget | None:
    """Returns why no link may lead to a URL in its stored form, None if one may. Raises Unavailable."""
    try:
        await call.services.targets.check(LinkFields(url))
    except BlockedTarget as refusal:
        return refusal
    return None


async def list_blocked_links(call: RequestContext) -> HTTPResponse:
    page, blocked = await blocked_links(call, call.query.get("cursor"))
    domains = call.services.domains
    return call.json_response(
        {
            "links": [blocked_link_body(link, targets, domains) for link, targets in blocked],
            "read": len(page.links),
            "next_cursor": write_cursor(page.after, described(ALL_LINKS)) if page.after else None,
            "complete": not page.silent,
        }
    )


async def blocked_links(
    call: RequestContext, cursor: str | None
) -> tuple[ListedLinks, list[tuple[Link, list[str]]]]:
    """Returns the next links by code, and those among them that lead to blocked hosts, each with these targets.

    Deleted links are left out. Raises Invalid, Unavailable.
    """
    after = read_place(cursor, ALL_LINKS) if cursor else None
    page = await call.services.links.page(ALL_LINKS, LINKS_READ, after)
    return page, await call.in_thread(partial(_blocked, call.services.targets, page.links))


def _blocked(targets: TargetPolicy, links: Sequence[Link]) -> list[tuple[Link, list[str]]]:
    found = [(link, targets.blocked(link)) for link in links]
    return [(link, urls) for link, urls in found if urls]
