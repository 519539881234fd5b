"""Handlers that only read: clicks of a link, the ring."""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.schema.responses import ring_body, stats_body


async def link_stats(call: RequestContext) -> HTTPResponse:
    days, sources = await call.services.links.stats(call.code, owner_filter(call.caller))
    return call.json_response(stats_body(call.code, days, sources))


async def ring(call: RequestContext) -> HTTPResponse:
    return call.json_response(ring_body(call.services.ring_view(), await call.services.reshard()))
