"""Handlers of the public link to the statistics of a link: make it, say what it is, revoke it."""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.errors import NoSuchAddress
from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.response_headers import Bodiless
from snapurl.http.schema.statistics import public_stats_body
from snapurl.model import Share


async def make_public_stats(call: RequestContext) -> HTTPResponse:
    if not call.services.settings.dashboard:
        raise NoSuchAddress("public statistics are a page of the dashboard, which is switched off here")
    made = await call.services.statistics.share(call.code, owner_filter(call.caller), call.caller.key_id)
    return _answer(call, made)


async def read_public_stats(call: RequestContext) -> HTTPResponse:
    return _answer(call, await call.services.statistics.share_of(call.code, owner_filter(call.caller)))


async def revoke_public_stats(call: RequestContext) -> HTTPResponse:
    await call.services.statistics.revoke_share(call.code, owner_filter(call.caller), call.caller.key_id)
    return Bodiless(None, 204, call.headers)


def _answer(call: RequestContext, found: Share | None) -> HTTPResponse:
    return call.json_response(
        public_stats_body(call.code, found, call.services.settings.shared_statistics_url)
    )
