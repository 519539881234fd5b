"""The list of links: search, filters, order; and the start page that leads to it."""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.codes import is_code
from snapurl.errors import Invalid
from snapurl.http.api.cursors import write_cursor
from snapurl.http.api.lists import described, read_place, read_query
from snapurl.http.auth import owner_filter
from snapurl.model import LinkOrder, LinkState, ListedLinks
from snapurl.ui.call import Call

PAGE_LINKS = 25
STATES = (
    ("", "All links"),
    (LinkState.LIVE, "Live"),
    (LinkState.EXPIRED, "Expired"),
    (LinkState.DELETED, "Deleted"),
)
ORDERS = (
    ("", "Newest first"),
    (LinkOrder.CLICKS, "Most clicks"),
    (LinkOrder.CHANGED, "Changed last"),
    (LinkOrder.CODE, "By code"),
)
FILTERS = ("q", "state", "tag", "sort")
NOTHING = ListedLinks([], None, ())


async def landing(call: Call) -> HTTPResponse:
    return call.go("/ui/links")


async def show(call: Call) -> HTTPResponse:
    asked = {name: call.query[name].strip() for name in FILTERS if call.query.get(name, "").strip()}
    try:
        page, more, fault = *await _find(call, asked), ""
    except Invalid as refusal:
        page, more, fault = NOTHING, "", f"The search cannot be done: {refusal.fields[0].detail}."
    deleted = call.query.get("deleted", "")
    return call.page(
        "links.html",
        links=page.links,
        more=more,
        is_complete=not page.silent,
        fault=fault,
        asked={name: asked.get(name, "") for name in FILTERS},
        is_filtered=bool(asked.keys() - {"sort"}),
        states=STATES,
        orders=ORDERS,
        deleted=deleted if is_code(deleted) else "",
        now=call.services.clock(),
        once=secrets.token_hex(16),
    )


async def _find(call: Call, asked: Mapping[str, str]) -> tuple[ListedLinks, str]:
    """Returns a page of links, and where the next one is, "" on the last. Raises Invalid."""
    given = {name: value for name, value in asked.items() if name != "tag"}
    if given.get("sort") == LinkOrder.CODE:
        given["order"] = "asc"
    tags = {"tags_all": (asked["tag"],)} if "tag" in asked else {}
    query = read_query(given, tags, owner_filter(call.user), call.services.domains)
    cursor = call.query.get("cursor")
    page = await call.services.links.page(query, PAGE_LINKS, read_place(cursor, query) if cursor else None)
    if page.after is None:
        return page, ""
    following = {**asked, "cursor": write_cursor(page.after, described(query))}
    return page, f"/ui/links?{urlencode(following)}"
