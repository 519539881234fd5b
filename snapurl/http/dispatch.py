"""Makes the Sanic handler of a `Route`: authorizes, reads the request, calls the handler, answers exceptions.

Nothing here depends on a particular route. The order is always the same: who is the client (`identify`), may it do
this (`_authorize`), is the request well formed, and only then the work, under a permit of the fair queue.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine
from functools import cache
from time import monotonic
from typing import Any, cast
from urllib.parse import parse_qsl

from sanic import HTTPResponse, Request
from sanic.http import Http

from snapurl.codes import is_code
from snapurl.errors import (
    BadRequest,
    FieldError,
    Invalid,
    NotFound,
    TooLarge,
    Unavailable,
    UnsupportedMediaType,
)
from snapurl.http.auth import require
from snapurl.http.context import Handler, RequestContext
from snapurl.http.problems import refuse, request_id_of, traced
from snapurl.http.rate_limits import address_of
from snapurl.http.response_headers import api_headers, site_headers
from snapurl.http.schema.requests import parse_json
from snapurl.http.schema.route import Route
from snapurl.http.wire.connections import BodyBudget
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.telemetry import traces
from snapurl.telemetry.logs import REQUEST_ID
from snapurl.telemetry.metrics import BODIES_REFUSED, HTTP_REQUESTS, HTTP_SECONDS, timing

log = logging.getLogger("snapurl.http")

QUERY_FIELDS_MAX = 20
UTF_8 = ("utf-8", "utf8")  # the second is no registered name, but some clients send it

SanicHandler = Callable[..., Coroutine[Any, Any, HTTPResponse]]


def dispatch(route: Route[Handler]) -> SanicHandler:
    """Makes the Sanic handler of a route."""
    seconds = {status: timing(HTTP_SECONDS, route.path, f"{status}xx") for status in range(2, 6)}
    query = frozenset(item.name for item in route.parameters if item.place == "query")

    async def handler(request: Request[Any, Any], code: str = "") -> HTTPResponse:
        context = RequestContext(request, request.app.ctx.services, request_id_of(request.headers), code)
        context.headers["x-request-id"] = context.request_id
        context.headers.update(site_headers() if route.is_page else api_headers(request))
        REQUEST_ID.set(context.request_id)
        with traced(request, route.path, context.request_id) as entered:
            response = await respond(context)
            traces.set_status(entered, response.status)
        return response

    async def respond(context: RequestContext) -> HTTPResponse:
        began_s, request = monotonic(), context.request
        try:
            await _prepare(context, route, query)
            response = await _handle(context, route)
        except Exception as error:
            response = refuse(request, error, context.request_id, context.headers)
        finally:
            request.app.ctx.body_budget.release(context.body_bytes)
        took_s = monotonic() - began_s
        seconds[response.status // 100].observe(took_s)
        log.debug("%s %s: %d in %.1f ms", request.method, route.path, response.status, took_s * 1000)
        _request_counter(route.path, request.method, response.status).inc()
        return response

    handler.__name__ = route.name
    return handler


@cache
def _request_counter(path: str, method: str, status: int) -> Any:
    """Returns one series of HTTP_REQUESTS. There are few: routes times methods times statuses."""
    return HTTP_REQUESTS.labels(path, method, status)


async def _handle(context: RequestContext, route: Route[Handler]) -> HTTPResponse:
    """Calls the handler, under a permit unless the route needs no right: such routes use no shard."""
    if route.right is None:
        return await route.handler(context)
    fair_queue: FairQueue = context.request.app.ctx.fair_queue
    client = address_of(context.request)
    await fair_queue.acquire(client)
    try:
        return await route.handler(context)
    finally:
        fair_queue.release(client)


async def _prepare(context: RequestContext, route: Route[Handler], query: frozenset[str]) -> None:
    if route.right is not None:
        await _authorize(context, route)
    if "{code}" in route.path and not is_code(context.code):
        raise NotFound()
    if not route.is_page:
        context.query = _query(context.request, query)
    if route.body is not None:
        context.value = parse_json(await _body(context, route))
    else:
        async for _ in _chunks(context.request):  # reads and discards a body that the route does not use
            pass


async def _authorize(context: RequestContext, route: Route[Handler]) -> None:
    """Finds the API key and checks its right. Here is decided whether a request may be anonymous.

    It may be without a key if its route is `may_be_anonymous` (creates) and the deployment sets
    SNAPURL_ANONYMOUS_CREATION. Raises Unauthorized, Forbidden, Unavailable.
    """
    assert route.right is not None
    context.key = await context.services.auth.identify(context.request.headers)
    may_be_anonymous = route.may_be_anonymous and context.services.settings.anonymous_creation
    if context.key is not None or not may_be_anonymous:
        require(context.key, route.right)


def _query(request: Request[Any, Any], known: frozenset[str]) -> dict[str, str]:
    """Parses the query. Raises Invalid for an unknown or repeated parameter, BadRequest if it is malformed."""
    text = request.query_string
    if not text:
        return {}
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="strict")
    except ValueError:  # too many, or not UTF-8
        raise BadRequest("the query string cannot be read") from None
    found: dict[str, str] = {}
    for name, value in pairs:
        if name not in known:
            raise query_error(name, "is not a parameter of this address")
        if name in found:
            raise query_error(name, "is given twice")
        found[name] = value
    return found


def query_error(name: str, detail: str) -> Invalid:
    """Returns the refusal of one query parameter."""
    return Invalid(fields=(FieldError(f"/query/{name[:100]}", detail),))


def header_error(name: str, detail: str) -> Invalid:
    """Returns the refusal of one request header."""
    return Invalid(fields=(FieldError(f"/headers/{name}", detail),))


async def _body(context: RequestContext, route: Route[Handler]) -> bytes:
    """Checks the media type and reads the body. Raises UnsupportedMediaType, TooLarge, Unavailable."""
    request = context.request
    media, *parameters = request.headers.get("content-type", "").split(";")
    if media.strip().lower() not in route.body_media:
        raise UnsupportedMediaType(f"send the body as {' or '.join(route.body_media)}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip(' \t"').lower() not in UTF_8:
            raise UnsupportedMediaType("send the body as UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without a content encoding")
    return await _read(context)


def _chunks(request: Request[Any, Any]) -> AsyncIterator[bytes]:
    """Iterates over the parts of a body as they arrive."""
    return cast(AsyncIterator[bytes], aiter(cast(Http, request.stream)))


async def _read(context: RequestContext) -> bytes:
    """Reads a body of at most SNAPURL_BODY_BYTES_MAX bytes. Raises TooLarge, Unavailable.

    Sanic discards the rest of a larger body after the response, up to its own limit: a client that is still sending
    can then read the response.
    """
    request, bytes_max = context.request, context.services.settings.body_bytes_max
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    if request.stream is None:  # on the fast path, with its complete body
        _reserve_memory(context, len(request.body))
        return request.body
    body = bytearray()
    async for chunk in _chunks(request):
        body += chunk
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        _reserve_memory(context, len(chunk))
    return bytes(body)


def _reserve_memory(context: RequestContext, count: int) -> None:
    """Reserves memory for part of the body; it is released after the response. Raises Unavailable."""
    budget: BodyBudget = context.request.app.ctx.body_budget
    if not budget.reserve(count):
        BODIES_REFUSED.inc()
        raise Unavailable("too many large bodies are on their way", is_public=True, retry_after_s=1.0)
    context.body_bytes += count


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"a body may have at most {bytes_max} bytes")
