"""Answers the preflight requests (OPTIONS) by which browsers ask whether another origin may use the API."""

from __future__ import annotations

from typing import Any

from sanic import HTTPResponse, Request

from snapurl.http.problems import allowed_methods
from snapurl.http.response_headers import api_headers
from snapurl.telemetry.metrics import HTTP_REQUESTS

MAX_AGE_S = 7_200  # browsers keep the answer no longer anyway
HEADERS = "Authorization, Content-Type, Idempotency-Key, If-Match, X-Api-Key, X-Request-Id"

_COUNT = HTTP_REQUESTS.labels("other", "OPTIONS", 204)


async def preflight(request: Request[Any, Any], **_path: str) -> HTTPResponse:
    """Handles OPTIONS of the API: the methods of the path, and for an allowed origin what it may send."""
    request.ctx.is_counted = False
    methods = allowed_methods(request)
    headers = {**api_headers(request), "allow": methods}
    if "access-control-allow-origin" in headers:
        headers |= {
            "access-control-allow-methods": methods,
            "access-control-allow-headers": HEADERS,
            "access-control-max-age": str(MAX_AGE_S),
        }
    _COUNT.inc()
    return HTTPResponse(None, 204, headers)
