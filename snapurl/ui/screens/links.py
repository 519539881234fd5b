"""The list of links, and the start page that leads to it."""

from __future__ import annotations

import secrets
from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.codes import is_code
from snapurl.http.api.links import read_cursor, write_cursor
from snapurl.http.auth import owner_filter
from snapurl.ui.call import Call

PAGE_LINKS = 25


async def landing(call: Call) -> HTTPResponse:
    return call.go("/ui/links")


async def show(call: Call) -> HTTPResponse:
    cursor, deleted = call.query.get("cursor"), call.query.get("deleted", "")
    before = read_cursor(cursor) if cursor else None
    links, after, is_complete = await call.services.links.page(PAGE_LINKS, before, owner_filter(call.user))
    return call.page(
        "links.html",
        links=links,
        more=f"/ui/links?{urlencode({'cursor': write_cursor(after)})}" if after else "",
        is_complete=is_complete,
        deleted=deleted if is_code(deleted) else "",
        now=call.services.clock(),
        once=secrets.token_hex(16),
    )
