"""The one place that turns exceptions into responses: RFC 9457 `application/problem+json`, counted by type.

The `type` is `urn:snapurl:problem:<slug>`: stable, the same on every deployment, explained in /docs. An exception
that is neither one of `errors.py` nor one of Sanic's is a bug: it is logged with its stack trace, and the response
has only the request id to find it by. Outside the API a browser gets a small HTML page instead.
"""

from __future__ import annotations

import json
import logging
import math
import re
from collections.abc import Mapping
from contextlib import AbstractContextManager
from random import getrandbits
from typing import Any, cast

from sanic import HTTPResponse, Request
from sanic import exceptions as sanic_errors
from sanic.handlers import ErrorHandler
from sanic.http import Http

from snapurl import errors
from snapurl.errors import SnapURLError
from snapurl.http.html import page_headers, refusal_page
from snapurl.http.response_headers import API_PREFIX, api_headers, site_headers
from snapurl.http.schema.responses import CONTENT_TYPE, problem
from snapurl.http.wire.heads import first_items
from snapurl.telemetry.metrics import HTTP_REQUESTS, PROBLEMS
from snapurl.telemetry.traces import request_span

log = logging.getLogger("snapurl.http")

RETRY_AFTER_S = 1  # for a 503 that has no time of its own
_HTML = "text/html"
_MEDIA = re.compile(r"[ \t]*([^\s;]+)[ \t]*(?:;|\Z)")  # an item of Accept without its parameters
_QUALITY = re.compile(r";[ \t]*q=([01](?:\.[0-9]{0,3})?)[ \t]*(?:;|\Z)", re.IGNORECASE)
METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
REQUEST_ID_PATTERN = re.compile(r"[A-Za-z0-9._-]{1,64}")

# Maps the exceptions of Sanic. The first matching class counts.
_OF_SANIC: tuple[tuple[type[BaseException], type[SnapURLError], str], ...] = (
    (
        sanic_errors.NotFound,
        errors.NoSuchAddress,
        "nothing is at this address; /docs has the addresses of the API",
    ),
    (sanic_errors.MethodNotAllowed, errors.MethodNotAllowed, ""),
    (sanic_errors.PayloadTooLarge, errors.TooLarge, ""),
    (sanic_errors.URITooLong, errors.TooLarge, "the address is too long"),
    (sanic_errors.RequestTimeout, errors.RequestTimeout, ""),
    (sanic_errors.RequestCancelled, errors.RequestTimeout, "the client has gone away"),
    (sanic_errors.ServiceUnavailable, errors.Unavailable, "the answer took too long"),
)

_KINDS: list[type[SnapURLError]] = [SnapURLError, *SnapURLError.__subclasses__(), errors.BlockedTarget]
for _refusal in _KINDS:
    PROBLEMS.labels(_refusal.slug)  # exported from the start, so that Prometheus sees the first increase

_TIME_OUTS = (sanic_errors.RequestTimeout, sanic_errors.ServiceUnavailable)


def as_refusal(error: BaseException) -> SnapURLError:
    """Maps any exception to a SnapURLError; an unknown one becomes an internal error without details.

    A configuration that turns out to be wrong while the service runs, such as the DSN of a shard that leads to
    another one, is the same to a client as a shard that does not answer.
    """
    if isinstance(error, errors.ConfigError):
        return errors.Unavailable(error.detail)
    if isinstance(error, SnapURLError):
        return error
    for kind, refusal, detail in _OF_SANIC:
        if isinstance(error, kind):
            return refusal(detail)
    if isinstance(error, sanic_errors.SanicException) and 400 <= (error.status_code or 500) < 500:
        return errors.BadRequest()
    return SnapURLError()


def traced(request: Request[Any, Any], route: str, request_id: str) -> AbstractContextManager[Any]:
    """Returns the trace span of a request, a child of the client's span if the request names one."""
    return request_span(request.method, route, request_id, request.headers)


def request_id_of(headers: Mapping[str, str]) -> str:
    """Returns the request id that the client or a proxy has set, if it is well formed, else a new one.

    A request id is no secret.
    """
    given = headers.get("x-request-id")
    return given if given and REQUEST_ID_PATTERN.fullmatch(given) else f"{getrandbits(64):016x}"


def refuse(
    request: Request[Any, Any],
    error: BaseException,
    request_id: str | None = None,
    headers: Mapping[str, str] | None = None,
) -> HTTPResponse:
    """Makes the response to an exception, which it reports."""
    request_id = request_id or request_id_of(request.headers)
    refusal = report(request, error, request_id)
    common = api_headers(request) if request.path.startswith(API_PREFIX) else site_headers(varies=True)
    own = {"x-request-id": request_id, **common, **refusal_headers(request, refusal)}
    if wants_page(request):
        return HTTPResponse(
            refusal_page(refusal),
            refusal.status,
            {**(headers or {}), **own, **page_headers(refusal)},
            "text/html; charset=utf-8",
        )
    return HTTPResponse(
        json.dumps(problem(refusal, request_id)), refusal.status, {**(headers or {}), **own}, CONTENT_TYPE
    )


def report(request: Request[Any, Any], error: BaseException, request_id: str) -> SnapURLError:
    """Maps an exception to a refusal and counts it; logs bugs, and at level debug what a 503 does not say."""
    refusal = as_refusal(error)
    PROBLEMS.labels(refusal.slug).inc()
    if refusal.slug == SnapURLError.slug:
        log.error(
            "unexpected %s at %s %s",
            type(error).__name__,
            request.method,
            request.path,
            exc_info=error,
            extra={"request_id": request_id},
        )
    elif refusal.public_detail != refusal.detail:
        log.debug("%s %s: %s", request.method, request.path, refusal.detail, extra={"request_id": request_id})
    return refusal


def refusal_headers(request: Request[Any, Any], refusal: SnapURLError) -> dict[str, str]:
    """Returns Retry-After, WWW-Authenticate or Allow, where the status calls for it."""
    headers = {}
    if refusal.retry_after_s is not None or refusal.status == 503:
        headers["retry-after"] = str(max(1, math.ceil(refusal.retry_after_s or RETRY_AFTER_S)))
    if refusal.status == 401:
        headers["www-authenticate"] = 'Bearer realm="snapurl"'
    if isinstance(refusal, errors.MethodNotAllowed):
        headers["allow"] = refusal.allow or allowed_methods(request)
    return headers


def allowed_methods(request: Request[Any, Any]) -> str:
    """Returns the methods that have a route at the path, as in Allow."""
    return ", ".join(method for method in METHODS if _has_route(request, method))


def _has_route(request: Request[Any, Any], method: str) -> bool:
    """Whether the path has a route for `method`; Sanic does not list the methods of a path."""
    try:
        request.app.router.get(request.path, method, None)
    except sanic_errors.SanicException:
        return False
    return True


def wants_page(request: Request[Any, Any]) -> bool:
    """Whether the client is a browser: only browsers accept text/html by name, and prefer it to JSON."""
    if request.path.startswith(API_PREFIX):
        return False
    wanted = {_HTML: 0.0, "application/json": 0.0, CONTENT_TYPE: 0.0}
    for item in first_items(request.headers.get("accept", "")):
        if (media := _MEDIA.match(item)) and (name := media[1].lower()) in wanted:
            quality = _QUALITY.search(item)
            wanted[name] = max(wanted[name], float(quality[1]) if quality else 1.0)
    return wanted.pop(_HTML) > max(wanted.values())


class Refusals(ErrorHandler):
    """Sanic's hook for exceptions that were raised outside our handlers."""

    def response(self, request: Request[Any, Any], exception: BaseException) -> HTTPResponse:
        if isinstance(exception, _TIME_OUTS) and request.stream is not None:
            # Otherwise Sanic would wait without a bound for the rest of the body that has timed out.
            cast(Http, request.stream).request_body = None
        response = refuse(request, exception)
        method = request.method if request.method in METHODS else "other"
        HTTP_REQUESTS.labels("other", method, response.status).inc()
        return response
