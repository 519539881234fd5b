"""The redirect: the answer that everything else exists for, and so the one with the least around it.

No middleware, no log line of its own, no request id in the answer, no Date. Whatever answers a redirect, here or
on a faster path, takes its headers from `redirect_headers` or its bytes from `redirect_bytes`, which a test holds
to be the same.

All four statuses are sent with `max-age=0`: browsers would otherwise keep a 301 or 308 for ever, so that its
clicks were never counted and a later change never seen.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from functools import cache
from http import HTTPStatus
from time import monotonic
from typing import Any

from sanic import HTTPResponse, Request
from sanic.models.server_types import ConnInfo

from snapurl.clicks.sources import browser_of, referrer_of
from snapurl.codes import is_code
from snapurl.errors import Gone, NotFound, RateLimited, SnapURLError
from snapurl.http.context import Services
from snapurl.http.problems import refuse, request_id_of, traced
from snapurl.http.rate_limits import address_of, missed
from snapurl.model import CachedLink
from snapurl.telemetry.logs import REQUEST_ID
from snapurl.telemetry.metrics import REDIRECT_SECONDS, REDIRECTS, timing
from snapurl.telemetry.traces import answered

CACHE_CONTROL = "private, max-age=0"

_THROUGH_SANIC = timing(REDIRECT_SECONDS, "sanic")
REDIRECTED = REDIRECTS.labels("redirected")
_FAILED = REDIRECTS.labels("failed")
_REFUSED = {
    NotFound: REDIRECTS.labels("missing"),
    Gone: REDIRECTS.labels("gone"),
    RateLimited: REDIRECTS.labels("shut-out"),
}


def redirect_headers(url: str) -> dict[str, str]:
    """The headers of a redirect to `url`, in their order."""
    return {"location": url, "cache-control": CACHE_CONTROL}


def redirect_bytes(url: str, status: int, *, keep_alive: bool) -> bytes:
    """The whole answer as it goes over the wire; the same for GET and HEAD, since there is no body."""
    lines = [
        f"HTTP/1.1 {status} {HTTPStatus(status).phrase}",
        *(f"{name}: {value}" for name, value in redirect_headers(url).items()),
        "content-length: 0",
        f"connection: {'keep-alive' if keep_alive else 'close'}",
        "",
        "",
    ]
    return "\r\n".join(lines).encode("ascii")


@cache
def redirect_frame(status: int) -> tuple[bytes, bytes]:
    """What stands before and after the address in `redirect_bytes` on a connection that is kept."""
    before, _, after = redirect_bytes("\0", status, keep_alive=True).partition(b"\0")
    return before, after


class Redirect(HTTPResponse):
    """No body, so no content type: Sanic would send `content-type: None`."""

    @property
    def processed_headers(self) -> Iterator[tuple[bytes, bytes]]:
        return ((name.encode("ascii"), str(value).encode("ascii")) for name, value in self.headers.items())


async def follow(request: Request[Any, Any], code: str) -> HTTPResponse:
    """GET and HEAD of `/{code}`. A GET that is redirected is a click; nothing else is."""
    began_s = monotonic()
    request_id = request_id_of(request.headers)
    REQUEST_ID.set(request_id)  # the connection's last request may have left another
    with traced(request, "/{code}", request_id) as entered:
        answer = await _answer(request, code, request_id)
        answered(entered, answer.status)
    _THROUGH_SANIC.observe(monotonic() - began_s)
    return answer


async def _answer(request: Request[Any, Any], code: str, request_id: str) -> HTTPResponse:
    services: Services = request.app.ctx.services
    try:
        link = await _find(request, services, code)
    except SnapURLError as refusal:
        _REFUSED.get(type(refusal), _FAILED).inc()
        return refuse(request, refusal, request_id)
    if request.method == "GET":
        referrer, agent = _last(request, "referer"), _last(request, "user-agent")
        services.tally.record(code, referrer_of(referrer), browser_of(agent))
    REDIRECTED.inc()
    return Redirect(None, link.redirect_status, redirect_headers(link.url))


def hand_over(connection: ConnInfo, found: asyncio.Future[CachedLink]) -> None:
    """Gives what was found for the next request on a connection, or the error, to whoever answers it."""
    if not found.cancelled():
        connection.ctx.found = found


def _handed_over(request: Request[Any, Any]) -> asyncio.Future[CachedLink] | None:
    connection = request.conn_info
    return None if connection is None else vars(connection.ctx).pop("found", None)


def _last(request: Request[Any, Any], name: str) -> bytes | None:
    values = request.headers.getall(name, None)
    return values[-1].encode(errors="surrogateescape") if values else None


async def _find(request: Request[Any, Any], services: Services, code: str) -> CachedLink:
    """The link to follow. Raises NotFound, Gone, RateLimited, Unavailable."""
    found = _handed_over(request)
    if services.blocked:
        # Hits are refused as well as misses: otherwise they could still be told apart.
        _refuse_shut_out(services.blocked.seconds_left(address_of(request, services.settings)))
    # What cannot be a code (/apple-touch-icon.png) says nothing about which codes exist: browsers ask for it.
    if not is_code(code):
        raise NotFound()
    link: CachedLink | None
    if found is not None:
        link = None if found.result().is_missing else found.result()
    elif services.cache.peek(code) is not None:
        link = await services.cache.resolve(code)
    else:
        async with request.app.ctx.fair_queue.of(address_of(request, services.settings)):
            link = await services.cache.resolve(code)
    if link is None:
        _refuse_shut_out(await missed(services, address_of(request, services.settings)))
        raise NotFound()
    if link.deleted:
        raise Gone("the link was deleted")
    if link.expires_at_ms is not None and link.expires_at_ms <= services.clock_ms():
        raise Gone("the link has expired")
    return link


def _refuse_shut_out(left_s: float) -> None:
    if left_s:
        raise RateLimited("too many links that do not exist were asked for from here", retry_after_s=left_s)
