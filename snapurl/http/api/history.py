"""Handler of the history of a link."""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.schema.history import history_body


async def link_history(call: RequestContext) -> HTTPResponse:
    found = await call.services.links.history(call.code, owner_filter(call.caller))
    return call.json_response(history_body(found))
