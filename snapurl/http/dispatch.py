"""From a `Route` to what Sanic calls: identify, check, call the handler, turn what it raises into an answer.

Nothing here knows any single route. The order is that of a client's patience: who are you, may you, is the
request well formed, and only then the work.
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
from snapurl.http.schema.requests import parse_json
from snapurl.http.schema.route import Route
from snapurl.http.wire.connections import BodyBudget
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.telemetry import traces
from snapurl.telemetry.logs import REQUEST_ID
from snapurl.telemetry.metrics import BODIES_REFUSED, HTTP_REQUESTS, HTTP_SECONDS, timing

log = logging.getLogger("snapurl.http")

QUERY_FIELDS_MAX = 20

SanicHandler = Callable[..., Coroutine[Any, Any, HTTPResponse]]


def dispatch(route: Route[Handler]) -> SanicHandler:
    """The Sanic handler of a route."""
    seconds = {status: timing(HTTP_SECONDS, route.path, f"{status}xx") for status in range(2, 6)}
    query = frozenset(item.name for item in route.parameters if item.place == "query")

    async def handler(request: Request[Any, Any], code: str = "") -> HTTPResponse:
        call = RequestContext(request, request.app.ctx.services, request_id_of(request.headers), code)
        call.headers["x-request-id"] = call.request_id
        REQUEST_ID.set(call.request_id)
        with traced(request, route.path, call.request_id) as entered:
            response = await answer(call)
            traces.answered(entered, response.status)
        return response

    async def answer(call: RequestContext) -> HTTPResponse:
        began_s, request = monotonic(), call.request
        try:
            await _prepare(call, route, query)
            response = await _in_turn(call, route)
        except Exception as error:
            response = refuse(request, error, call.request_id, call.headers)
        finally:
            request.app.ctx.body_room.give_back(call.body_bytes)
        took_s = monotonic() - began_s
        seconds[response.status // 100].observe(took_s)
        log.debug("%s %s: %d in %.1f ms", request.method, route.path, response.status, took_s * 1000)
        _answers(route.path, request.method, response.status).inc()
        return response

    handler.__name__ = route.name
    return handler


@cache
def _answers(path: str, method: str, status: int) -> Any:
    """The series of HTTP_REQUESTS: as few as there are routes, their methods and the statuses that we give."""
    return HTTP_REQUESTS.labels(path, method, status)


async def _in_turn(call: RequestContext, route: Route[Handler]) -> HTTPResponse:
    """The answer of the handler. What asks for no right asks no shard for anything: it needs no turn."""
    if route.right is None:
        return await route.handler(call)
    fair_queue: FairQueue = call.request.app.ctx.fair_queue
    client = address_of(call.request, call.services.settings)
    await fair_queue.begin(client)
    try:
        return await route.handler(call)
    finally:
        fair_queue.end(client)


async def _prepare(call: RequestContext, route: Route[Handler], query: frozenset[str]) -> None:
    if route.right is not None:
        await _identify(call, route)
    if "{code}" in route.path and not is_code(call.code):
        raise NotFound()
    if not route.is_page:
        call.query = _query(call.request, query)
    if route.body is not None:
        call.value = parse_json(await _body(call))
    else:
        async for _ in _chunks(call.request):  # what nobody asked for is read, so that it is out of the way
            pass


async def _identify(call: RequestContext, route: Route[Handler]) -> None:
    call.key = await call.services.auth.identify(call.request.headers)
    anonymous = route.may_be_anonymous and call.services.settings.anonymous_creation
    assert route.right is not None
    if call.key is not None or not anonymous:
        require(call.key, route.right)


def _query(request: Request[Any, Any], known: frozenset[str]) -> dict[str, str]:
    """The query parameters. Raises Invalid for an unknown or repeated one."""
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
    """The refusal of one query parameter."""
    return Invalid(fields=(FieldError(f"/query/{name[:100]}", detail),))


def header_error(name: str, detail: str) -> Invalid:
    """The refusal of one request header."""
    return Invalid(fields=(FieldError(f"/headers/{name}", detail),))


async def _body(call: RequestContext) -> bytes:
    """The request's body. Raises UnsupportedMediaType, TooLarge, Unavailable."""
    request = call.request
    media, _, parameters = request.headers.get("content-type", "").partition(";")
    if media.strip().lower() != "application/json":
        raise UnsupportedMediaType("send the body as application/json")
    charset = parameters.strip().lower().replace('"', "")
    if charset and charset != "charset=utf-8":
        raise UnsupportedMediaType("send the body as UTF-8")
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without a content encoding")
    return await _read(call)


def _chunks(request: Request[Any, Any]) -> AsyncIterator[bytes]:
    """The parts of a body as they arrive."""
    return cast(AsyncIterator[bytes], aiter(cast(Http, request.stream)))


async def _read(call: RequestContext) -> bytes:
    """At most SNAPURL_BODY_BYTES_MAX bytes. What lies beyond is swallowed by Sanic after the answer, up to its own
    limit, so that a client which is still sending gets to read that answer."""
    request, bytes_max = call.request, call.services.settings.body_bytes_max
    length = request.headers.get("content-length", "")
    if length.isdecimal() and int(length) > bytes_max:
        raise _too_large(bytes_max)
    if request.stream is None:  # it has come ahead of Sanic, and whole
        _take_room(call, len(request.body))
        return request.body
    body = bytearray()
    async for chunk in _chunks(request):
        body += chunk
        if len(body) > bytes_max:
            raise _too_large(bytes_max)
        _take_room(call, len(chunk))
    return bytes(body)


def _take_room(call: RequestContext, count: int) -> None:
    """Room in memory for so many bytes of the body, until the answer is there. Raises Unavailable."""
    room: BodyBudget = call.request.app.ctx.body_room
    if not room.take(count):
        BODIES_REFUSED.inc()
        raise Unavailable("too many large bodies are on their way", retry_after_s=1.0)
    call.body_bytes += count


def _too_large(bytes_max: int) -> TooLarge:
    return TooLarge(f"a body may have at most {bytes_max} bytes")
