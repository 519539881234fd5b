"""Handlers that only read: clicks of a link, the ring."""

from __future__ import annotations

from sanic import HTTPResponse

from ring.arcs import ARCS
from snapurl.codes import is_code, key_of
from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import query_error, read_domain
from snapurl.http.schema.responses import ring_body, stats_body
from snapurl.model import SlotPlace


async def link_stats(call: RequestContext) -> HTTPResponse:
    days, sources = await call.services.links.stats(call.code, owner_filter(call.caller))
    return call.json_response(stats_body(call.code, days, sources))


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
