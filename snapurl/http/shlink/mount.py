"""Adds Shlink's API to the app of a worker, with a router that reads several slashes before it as one.

The web client puts its paths behind the URL of a server as it was typed. With a slash at the end of that, it asks
for `//rest/…`.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Mapping
from functools import cache, partial
from time import monotonic
from typing import Any

from pydantic_core import to_json
from sanic import HTTPResponse, Request, Sanic
from sanic.models.handler_types import RouteHandler
from sanic_routing.route import Route

from snapurl.codes import is_code, key_of
from snapurl.errors import BadRequest, NotFound, UnsupportedMediaType
from snapurl.http.auth import presented_key, require
from snapurl.http.bodies import BodyBound, is_large
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import authenticate, counted_miss, discard_body, read_bounded
from snapurl.http.offsets import PageEnds
from snapurl.http.problems import METHODS, refusal_headers, report, request_id_of, traced
from snapurl.http.rate_limits import address_of, count_request
from snapurl.http.response_headers import ANY, Bodiless, allowed_origins
from snapurl.http.router import LinkRouter
from snapurl.http.schema.requests import parse_json
from snapurl.http.schema.responses import CONTENT_TYPE
from snapurl.http.shlink.call import QUERY_CHARS_MAX, QUERY_FIELDS_MAX, Call, read_pairs
from snapurl.http.shlink.endpoints import Target, find, methods_of
from snapurl.http.shlink.problems import ShlinkProblem, missing_key, problem_of
from snapurl.keys import PlainKey
from snapurl.telemetry import traces
from snapurl.telemetry.logs import REQUEST_ID
from snapurl.telemetry.metrics import HTTP_REQUESTS, HTTP_SECONDS, PROBLEMS, Timing, timing

PREFIX = "/rest/"
FORM = "application/x-www-form-urlencoded"
FORM_FIELDS_MAX = 100
PREFLIGHT_AGE_S = 3_600
API_KEY = "apiKey"

log = logging.getLogger("snapurl.http")


class ShlinkRouter(LinkRouter):
    """The router of the service, which takes `//rest/…` for `/rest/…`."""

    def get(  # type: ignore[override]  # Sanic's is wrapped in a cache
        self, path: str, method: str, host: str | None
    ) -> tuple[Route, RouteHandler, dict[str, Any]]:
        if path.startswith("//") and (one := "/" + path.lstrip("/")).startswith(PREFIX):
            path = one
        return super().get(path, method, host)


def mount_shlink(app: Sanic[Any, Any]) -> None:
    """Adds all endpoints, at one route: their paths have codes and tags with slashes in them."""
    page_ends = PageEnds(time.monotonic)

    async def shlink(request: Request[Any, Any], rest: str) -> HTTPResponse:
        return await _respond(request, rest, page_ends)

    app.add_route(shlink, f"{PREFIX}<rest:path>", METHODS, name="shlink", ignore_body=True)


async def _respond(request: Request[Any, Any], rest: str, page_ends: PageEnds) -> HTTPResponse:
    began_s, services = monotonic(), request.app.ctx.services
    context = RequestContext(request, services, request_id_of(request.headers), address_of(request))
    context.headers |= {"x-request-id": context.request_id, **_headers(request)}
    REQUEST_ID.set(context.request_id)
    label = "/rest"
    with traced(request, label, context.request_id) as entered:
        try:
            if request.method == "OPTIONS":
                response = _preflight(context, rest)
            else:
                target = find(request.method, rest, request.query_string)
                label += target.endpoint.path
                response = await _handle(Call(context, page_ends, target.name), target)
        except Exception as error:
            response = await _refusal(context, error)
        finally:
            request.app.ctx.body_budget.release(context.body_bytes)
        traces.set_status(entered, response.status)
    _seconds(label, response.status // 100).observe(monotonic() - began_s)
    HTTP_REQUESTS.labels(label, request.method, response.status).inc()
    return response


@cache
def _seconds(label: str, hundreds: int) -> Timing:
    """Returns the series of an endpoint and a class of statuses, which is made once per process."""
    return timing(HTTP_SECONDS, label, f"{hundreds}xx")


def _headers(request: Request[Any, Any]) -> dict[str, str]:
    """Returns the headers of every answer. Any origin may read them, unless SNAPURL_CORS_ORIGINS names some.

    No cookie counts here, so a page of another site can do nothing without a key that it has anyway.
    """
    headers = {"cache-control": "no-store", "x-content-type-options": "nosniff"}
    allowed = allowed_origins(request)
    if not allowed or ANY in allowed:
        return headers | {"access-control-allow-origin": ANY}
    headers["vary"] = "Origin"
    origin = request.headers.get("origin")
    return headers | {"access-control-allow-origin": origin} if origin in allowed else headers


def _preflight(context: RequestContext, rest: str) -> HTTPResponse:
    request = context.request
    request.ctx.is_counted = False
    methods = methods_of(rest, request.query_string)
    asked = request.headers.get("access-control-request-headers", "")
    headers = {
        "access-control-allow-methods": methods,
        "access-control-allow-headers": asked or "X-Api-Key, Content-Type",
        "access-control-max-age": str(PREFLIGHT_AGE_S),
    }
    return Bodiless(None, 204, context.headers | headers)


async def _handle(call: Call, target: Target) -> HTTPResponse:
    context, endpoint = call.context, target.endpoint
    request = context.request
    request.ctx.is_counted = endpoint.right is not None
    if endpoint.right is None:
        await discard_body(request)
        return await endpoint.handler(call)
    present = partial(_presented, context, endpoint.key_in_query)
    context.key = await authenticate(context, present)
    if context.key is None:
        raise missing_key(
            **{"param": API_KEY} if endpoint.key_in_query else {"expectedHeaders": ["X-Api-Key"]}
        )
    require(context.key, endpoint.right)
    context.bound = BodyBound.of(1, context.services.settings)
    await count_request(context, endpoint.right)
    call.query = _query(context)
    if "{code}" in endpoint.path:
        context.code = key_of(call.domain(call.one("domain")) or "", target.code)
        if not is_code(target.code):
            raise NotFound()
    if endpoint.has_body:
        call.fields = await _fields(context)
    else:
        await discard_body(request)
    async with request.app.ctx.fair_queue.permit(context.address):
        return await endpoint.handler(call)


def _presented(context: RequestContext, in_query: bool) -> PlainKey | None:
    headers: Mapping[str, str] = context.request.headers
    if in_query and (given := _query(context).get(API_KEY)) is not None:
        headers = {"x-api-key": given[-1]}
    return presented_key(headers)


def _query(context: RequestContext) -> dict[str, tuple[str, ...]]:
    text = context.request.query_string
    if len(text) > QUERY_CHARS_MAX:
        raise BadRequest(f"the query string may have at most {QUERY_CHARS_MAX} characters")
    return read_pairs(text, QUERY_FIELDS_MAX)


async def _fields(context: RequestContext) -> Mapping[str, object]:
    """Reads the body: a JSON object or a form. Raises BadRequest, TooLarge, UnsupportedMediaType, Unavailable."""
    assert context.bound is not None
    if context.request.headers.get("content-encoding", "identity").lower() != "identity":
        raise UnsupportedMediaType("send the body without a content encoding")
    raw = await read_bounded(context)
    if context.request.headers.get("content-type", "").partition(";")[0].strip().lower() == FORM:
        try:
            return read_pairs(raw.decode(), FORM_FIELDS_MAX)
        except UnicodeDecodeError:
            raise BadRequest("the form is not UTF-8") from None
    context.is_large = is_large(raw)
    value = await context.run(partial(parse_json, raw, context.bound.values_max))
    if not isinstance(value, dict):
        raise BadRequest("the body is no JSON object")
    return value


async def _refusal(context: RequestContext, error: Exception) -> HTTPResponse:
    """Makes the response to an exception, which it reports."""
    headers = context.headers
    if isinstance(error, ShlinkProblem):
        PROBLEMS.labels(error.slug).inc()
        status, body = problem_of(error, context.code)
    else:
        if isinstance(error, NotFound):
            error = await counted_miss(context, error)
        refusal = report(context.request, error, context.request_id)
        status, body = problem_of(refusal, context.code)
        headers = headers | refusal_headers(context.request, refusal)
    return HTTPResponse(to_json(body), status, headers, CONTENT_TYPE)
