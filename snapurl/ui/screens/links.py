"""The list of links, and the start page that leads to it."""

from __future__ import annotations

import secrets
from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.codes import is_code
from snapurl.http.api.cursors import write_cursor
from snapurl.http.api.lists import described, read_place
from snapurl.http.auth import owner_filter
from snapurl.model import LinkQuery
from snapurl.ui.call import Call

PAGE_LINKS = 25


async def landing(call: Call) -> HTTPResponse:
    return call.go("/ui/links")


async def show(call: Call) -> HTTPResponse:
    cursor, deleted = call.query.get("cursor"), call.query.get("deleted", "")
    query = LinkQuery(owner=owner_filter(call.user))
    after = read_place(cursor, query) if cursor else None
    page = await call.services.links.page(query, PAGE_LINKS, after)
    return call.page(
        "links.html",
        links=page.links,
        more=f"/ui/links?{urlencode({'cursor': write_cursor(page.after, described(query))})}"
        if page.after
        else "",
        is_complete=not page.silent,
        deleted=deleted if is_code(deleted) else "",
        now=call.services.clock(),
        once=secrets.token_hex(16),
    )
