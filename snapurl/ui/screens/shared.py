"""The public page with the statistics of a link, for whoever has its secret: without a session, note or account.

It is bounded like other requests without a key: each counts against its address, wrong secrets as links that are
missing, and shards are asked under a permit of the fair queue.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from sanic import HTTPResponse

from snapurl.errors import NotFound
from snapurl.http.rate_limits import MISSES, count_miss, count_public_stats, refuse_blocked
from snapurl.model import Link
from snapurl.ui.call import Call
from snapurl.ui.forms import key_in_path
from snapurl.ui.screens.statistics import TABLE_VALUES, asked_of, csv_of, kinds_of, view_of_link

SECRET_CHARS_MAX = 100


async def show(call: Call) -> HTTPResponse:
    async with _opened(call) as link:
        place = f"/ui/shared/{call.path['code']}/{call.path['secret']}"
        view = await view_of_link(call, link.code, None, place)
    return call.page("shared.html", link=link, view=view)


async def table(call: Call) -> HTTPResponse:
    """A table of that page as CSV."""
    async with _opened(call) as link:
        asked, kinds = asked_of(call), kinds_of(call.path["table"])
        report = await call.services.statistics.of_link(
            link.code, None, asked.period, kinds=kinds, limit=TABLE_VALUES, has_bots=asked.has_bots
        )
    return csv_of(call, report, call.path["code"])


@asynccontextmanager
async def _opened(call: Call) -> AsyncIterator[Link]:
    """Yields the link whose statistics the secret of the path opens, under a permit.

    Raises NotFound, RateLimited, Unavailable.
    """
    context, services = call.context, call.services
    context.headers |= {"x-robots-tag": "noindex"}
    refuse_blocked(services.blocked.seconds_left(context.address), MISSES)
    await count_public_stats(context)
    code, secret = key_in_path(call.path["code"]), call.path["secret"]
    try:
        if not code or len(secret) > SECRET_CHARS_MAX:
            raise NotFound()
        async with context.request.app.ctx.fair_queue.permit(context.address):
            yield await services.statistics.check_share(code, secret)
    except NotFound:
        refuse_blocked(await count_miss(services, context.address), MISSES)
        raise
