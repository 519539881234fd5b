"""Adds YOURLS' API to the app of a worker: one address, whose parameters may be in the query or in a form.

The key is a parameter, too, so a body is read before it is known whose it is: within its bound, as a login is.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from functools import partial
from time import monotonic
from typing import Any

from sanic import HTTPResponse, Request, Sanic

from snapurl.errors import Forbidden, RateLimited, SnapURLError, Unauthorized
from snapurl.http.auth import presented_key, require
from snapurl.http.bodies import BodyBound
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import authenticate, read_bounded
from snapurl.http.offsets import PageEnds
from snapurl.http.problems import refusal_headers, report, request_id_of, traced
from snapurl.http.rate_limits import address_of, count_request
from snapurl.http.response_headers import Bodiless, api_headers
from snapurl.http.yourls.actions import ACTIONS, UNKNOWN, Call, failed
from snapurl.http.yourls.formats import Said, written
from snapurl.http.yourls.parameters import read_body, read_parameters
from snapurl.keys import PlainKey
from snapurl.telemetry import traces
from snapurl.telemetry.logs import REQUEST_ID
from snapurl.telemetry.metrics import HTTP_REQUESTS, HTTP_SECONDS, timing

PATH = "/yourls-api.php"
METHODS = ("GET", "HEAD", "POST", "OPTIONS")

LOG_IN = "Please log in"
WRONG = "Invalid username or password"
TIMED = (
    "Signatures with a timestamp cannot be checked here: send your API key as signature, without a timestamp"
)


def mount_yourls(app: Sanic[Any, Any]) -> None:
    """Adds the address."""
    page_ends = PageEnds(time.monotonic)
    seconds = {status: timing(HTTP_SECONDS, PATH, f"{status}xx") for status in range(2, 6)}

    async def yourls(request: Request[Any, Any]) -> HTTPResponse:
        began_s = monotonic()
        context = RequestContext(
            request, request.app.ctx.services, request_id_of(request.headers), address_of(request)
        )
        context.headers |= {"x-request-id": context.request_id, **api_headers(request)}
        REQUEST_ID.set(context.request_id)
        with traced(request, PATH, context.request_id) as entered:
            try:
                response = await _respond(context, page_ends)
            finally:
                request.app.ctx.body_budget.release(context.body_bytes)
            traces.set_status(entered, response.status)
        seconds[response.status // 100].observe(monotonic() - began_s)
        HTTP_REQUESTS.labels(PATH, request.method, response.status).inc()
        return response

    app.add_route(yourls, PATH, METHODS, name="yourls", ignore_body=True)


async def _respond(context: RequestContext, page_ends: PageEnds) -> HTTPResponse:
    request, parameters = context.request, dict[str, str]()
    if request.method == "OPTIONS":
        request.ctx.is_counted = False
        asked = request.headers.get("access-control-request-headers", "X-Requested-With")
        allowed = {"access-control-allow-methods": "GET, POST", "access-control-allow-headers": asked}
        return Bodiless(None, 204, context.headers | allowed)
    try:
        context.bound = BodyBound.of(1, context.services.settings)
        parameters |= read_parameters(request.query_string)
        parameters |= read_body(await read_bounded(context), request.headers.get("content-type", ""))
        said = await _act(context, page_ends, parameters)
    except Exception as error:
        refusal = report(request, error, context.request_id)
        context.headers |= refusal_headers(request, refusal)
        said = _refused(refusal, parameters)
    status, text, media = written(said, parameters)
    return HTTPResponse(text, status, context.headers, media)


async def _act(context: RequestContext, page_ends: PageEnds, parameters: Mapping[str, str]) -> Said:
    """Finds out whose the key is, counts the request and does what it asks for."""
    act, right = ACTIONS.get(parameters.get("action", ""), UNKNOWN)
    context.key = await authenticate(context, partial(_presented, parameters))
    require(context.key, right)
    context.request.ctx.is_counted = True
    await count_request(context, right)
    async with context.request.app.ctx.fair_queue.permit(context.address):
        return await act(Call(context, page_ends, parameters))


def _presented(parameters: Mapping[str, str]) -> PlainKey | None:
    """Returns the key that is sent as a signature or as a password. Raises Unauthorized."""
    if "timestamp" in parameters and "signature" in parameters:
        raise Unauthorized(TIMED)
    given = parameters.get("signature") or parameters.get("password")
    return presented_key({"x-api-key": given}) if given else None


def _refused(refusal: SnapURLError, parameters: Mapping[str, str]) -> Said:
    """Returns what is said of a request that could not be done."""
    if isinstance(refusal, Unauthorized | Forbidden):
        message = refusal.public_detail
        if isinstance(refusal, Unauthorized) and message != TIMED:
            has_key = parameters.get("signature") or parameters.get("password")
            message = WRONG if has_key else LOG_IN
        return Said({"message": message, "errorCode": "403", "callback": ""}, message)
    if parameters.get("action") == "shorturl":
        code = "error:limit" if isinstance(refusal, RateLimited) else "error:db"
        return failed(code, _message(refusal), refusal.status)
    return Said({"message": _message(refusal), "errorCode": str(refusal.status)})


def _message(refusal: SnapURLError) -> str:
    return str(refusal) if refusal.fields else refusal.public_detail
