"""Makes the Sanic handler of a `Route`: authorizes, counts, reads the request, calls the handler, answers errors.

Nothing here depends on a particular route. The order is always the same: who is the client (`authenticate`), may it
do this (`_authorize`), does its limit allow it (`count_request`), is the request well formed, and only then the
work, under a permit of the fair queue. So a client that has reached its limit costs no more than its head.
"""

from __future__ import annotations

import logging
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from functools import cache, partial
from time import monotonic
from typing import Any, cast
from urllib.parse import parse_qsl

from sanic import HTTPResponse, Request
from sanic.http import Http

from snapurl.codes import is_code, is_key, key_of
from snapurl.errors import (
    BadRequest,
    FieldError,
    Invalid,
    NotFound,
    RateLimited,
    SnapURLError,
    TooLarge,
    Unauthorized,
    Unavailable,
    UnsupportedMediaType,
)
from snapurl.http.auth import presented_key, require
from snapurl.http.bodies import BodyBound, is_large
from snapurl.http.context import Handler, RequestContext, Services
from snapurl.http.problems import refuse, request_id_of, traced
from snapurl.http.rate_limits import (
    MISSES,
    address_of,
    bulk_links_max,
    count_links,
    count_miss,
    count_refused_key,
    count_request,
    refuse_blocked,
)
from snapurl.http.response_headers import api_headers, site_headers
from snapurl.http.schema.requests import parse_json
from snapurl.http.schema.route import DOMAIN, JSON, Route
from snapurl.http.wire.chunks import StrictHttp
from snapurl.http.wire.connections import BodyBudget
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.keys import PlainKey
from snapurl.model import ApiKey
from snapurl.telemetry import traces
from snapurl.telemetry.logs import REQUEST_ID
from snapurl.telemetry.metrics import BODIES_REFUSED, HTTP_REQUESTS, HTTP_SECONDS, timing
from snapurl.urls import UrlRefused

log = logging.getLogger("snapurl.http")

QUERY_FIELDS_MAX = 20
QUERY_CHARS_MAX = 1_000
UTF_8 = ("utf-8", "utf8")  # the second is no registered name, but some clients send it

REFUSED_KEYS = "too many API keys were refused from here"

SanicHandler = Callable[..., Coroutine[Any, Any, HTTPResponse]]


def dispatch(route: Route[Handler]) -> SanicHandler:
    """Makes the Sanic handler of a route."""
    seconds = {status: timing(HTTP_SECONDS, route.path, f"{status}xx") for status in range(2, 6)}
    query = {item.name: item.may_repeat for item in route.parameters if item.place == "query"}

    async def handler(request: Request[Any, Any], code: str = "", **path: str) -> HTTPResponse:
        services: Services = request.app.ctx.services
        address = address_of(request)
        context = RequestContext(
            request, services, request_id_of(request.headers), address, code, path.get("id", "")
        )
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
            if isinstance(error, NotFound):
                error = await counted_miss(context, error)
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
    """Calls the handler, under a permit unless the route needs no key: such routes use no shard."""
    if not route.needs_client:
        return await route.handler(context)
    fair_queue: FairQueue = context.request.app.ctx.fair_queue
    await fair_queue.acquire(context.address)
    try:
        return await route.handler(context)
    finally:
        fair_queue.release(context.address)


async def _prepare(context: RequestContext, route: Route[Handler], query: Mapping[str, bool]) -> None:
    if route.needs_client:
        await _authorize(context, route)
        if route.body is not None:
            links = (
                bulk_links_max(context.key, context.services.settings) if route.is_bulk else route.body_links
            )
            context.bound = BodyBound.of(links, context.services.settings)
        await count_request(context, route.right)
    context.request.ctx.is_counted = route.needs_client
    if "{code}" in route.path and not is_code(context.code):
        raise NotFound()
    if not route.is_page:
        context.query, context.query_lists = _query(context.request, query)
        if context.code and DOMAIN in context.query:
            _name_domain(context)
    if route.body is not None:
        await _read_value(context, await _body(context, route))
    else:
        await discard_body(context.request)


def _name_domain(context: RequestContext) -> None:
    """Makes the code of the path the key of the link that is meant. Raises Invalid.

    The domain need not be configured, as links outlive the setting. Only if there is no such link is it refused.
    """
    domain, is_configured = read_domain(context)
    context.code = key_of(domain, context.code)
    context.strange_domain = "" if is_configured else domain


def read_domain(context: RequestContext) -> tuple[str, bool]:
    """Returns the domain of the query, "" for the default one, and whether it is configured. Raises Invalid."""
    domains = context.services.domains
    try:
        domain = domains.find(context.query[DOMAIN]) if DOMAIN in context.query else ""
    except UrlRefused as refusal:
        raise query_error(DOMAIN, str(refusal)) from None
    return domain, domains.has(domain)


async def _authorize(context: RequestContext, route: Route[Handler]) -> None:
    """Finds the API key and checks its right. Here is decided whether a request may be anonymous.

    It may be without a key if its route is `may_be_anonymous` (creates) and the deployment sets
    SNAPURL_ANONYMOUS_CREATION. Raises Unauthorized, Forbidden, Unavailable.
    """
    context.key = await authenticate(context, partial(presented_key, context.request.headers))
    may_be_anonymous = route.may_be_anonymous and context.services.settings.anonymous_creation
    if context.key is not None or not may_be_anonymous:
        require(context.key, route.right)


async def authenticate(context: RequestContext, present: Callable[[], PlainKey | None]) -> ApiKey | None:
    """Returns the valid API key of the request, None without one. `present` returns what the client presents.

    A key that is not remembered is looked up under a permit of the fair queue. A refused key counts against the
    limit of its address. Above that limit only keys that this worker knows are still looked up: guessing ends, and
    others behind the same address go on working. Raises Unauthorized, RateLimited, Unavailable.
    """
    auth, request = context.services.auth, context.request
    try:
        plain = present()
        if plain is None:
            return None
        if (key := auth.remembered(plain)) is not None:
            return key
        if not auth.is_known(plain):
            refuse_blocked(context.services.key_guessers.seconds_left(context.address), REFUSED_KEYS)
        async with request.app.ctx.fair_queue.permit(context.address):
            return await auth.find(plain)
    except Unauthorized:
        refuse_blocked(await count_refused_key(context.services, context.address), REFUSED_KEYS)
        raise


async def counted_miss(context: RequestContext, error: NotFound) -> SnapURLError:
    """Counts a link that the API did not find as a redirect's miss; returns the refusal.

    Not those of an admin key, which can list all links.
    """
    refusal: SnapURLError = error
    if context.strange_domain:
        refusal = query_error(DOMAIN, context.services.domains.refusal())
    if context.key is None or context.key.is_admin or not is_key(context.code):
        return refusal
    left_s = await count_miss(context.services, context.address)
    return RateLimited(MISSES, retry_after_s=left_s) if left_s else refusal


def _query(
    request: Request[Any, Any], known: Mapping[str, bool]
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Parses the query. `known` says of each parameter whether it may be repeated; those are returned apart.

    Raises Invalid for an unknown parameter and one repeated that may not be, BadRequest if the query is malformed
    or too long.
    """
    text = request.query_string
    if not text:
        return {}, {}
    if len(text) > QUERY_CHARS_MAX:
        raise BadRequest(f"the query string may have at most {QUERY_CHARS_MAX} characters")
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=QUERY_FIELDS_MAX, errors="strict")
    except ValueError:  # too many, or not UTF-8
        raise BadRequest("the query string cannot be read") from None
    found: dict[str, str] = {}
    lists: dict[str, tuple[str, ...]] = {}
    for name, value in pairs:
        if name not in known:
            raise query_error(name, "is not a parameter of this address")
        if known[name]:
            lists[name] = (*lists.get(name, ()), value)
        elif name in found:
            raise query_error(name, "is given twice")
        else:
            found[name] = value
    return found, lists


def query_error(name: str, detail: str) -> Invalid:
    """Returns the refusal of one query parameter."""
    return Invalid(fields=(FieldError(f"/query/{name[:100]}", detail),))


def header_error(name: str, detail: str) -> Invalid:
    """Returns the refusal of one request header."""
    return Invalid(fields=(FieldError(f"/headers/{name}", detail),))


async def _body(context: RequestContext, route: Route[Handler]) -> bytes:
    """Checks the media type and reads the body. Raises UnsupportedMediaType, TooLarge, Unavailable."""
    request = context.request
    content_type = request.headers.get("content-type", "")
    if content_type != JSON:
        _check_media(content_type, route)
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without a content encoding")
    return await read_bounded(context)


def _check_media(content_type: str, route: Route[Handler]) -> None:
    media, *parameters = content_type.split(";")
    if media.strip().lower() not in route.body_media:
        raise UnsupportedMediaType(f"send the body as {' or '.join(route.body_media)}")
    for parameter in parameters:
        name, _, value = parameter.partition("=")
        if name.strip().lower() == "charset" and value.strip(' \t"').lower() not in UTF_8:
            raise UnsupportedMediaType("send the body as UTF-8")


async def _read_value(context: RequestContext, raw: bytes) -> None:
    """Counts the links that the body holds at least, and parses it. Raises RateLimited, BadRequest, Unavailable."""
    assert context.bound is not None
    if context.counted:
        await count_links(context, context.bound.links_at_least(len(raw)))
    context.is_large = is_large(raw)
    context.value = await context.run(partial(parse_json, raw, context.bound.values_max))


async def discard_body(request: Request[Any, Any]) -> None:
    """Reads a body that nobody uses, at its client's pace."""
    await cast(StrictHttp, request.stream).discard()


def _chunks(request: Request[Any, Any]) -> AsyncIterator[bytes]:
    """Iterates over the parts of a body as they arrive."""
    return cast(AsyncIterator[bytes], aiter(cast(Http, request.stream)))


async def read_bounded(context: RequestContext) -> bytes:
    """Reads a body within its bound. Raises TooLarge, Unavailable.

    Sanic discards the rest of a larger body after the response, up to its own limit: a client that is still sending
    can then read the response.
    """
    assert context.bound is not None
    request, bytes_max = context.request, context.bound.bytes_max
    if context.content_length > bytes_max:
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
    return TooLarge(f"the body may have at most {bytes_max} bytes here")
