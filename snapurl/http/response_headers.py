"""Headers that do not depend on the answer: caching, media type, and which other origins may read it (CORS).

With SNAPURL_CORS_ORIGINS, web pages of these origins may use the API from a browser. They send the API key as a
header of their own. Credentials that a browser adds by itself (cookies) are never allowed: the API takes none.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sanic import HTTPResponse, Request

API_PREFIX = "/api/"

ANY = "*"
EXPOSED = "ETag, Link, Location, RateLimit, RateLimit-Policy, Retry-After, X-Request-Id"
VARY = "Authorization, X-Api-Key"

_NOT_CACHED = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


class Bodiless(HTTPResponse):
    """A response without a body, and so without a content type: Sanic would send `content-type: None`."""

    @property
    def processed_headers(self) -> Iterator[tuple[bytes, bytes]]:
        return ((name.encode("ascii"), str(value).encode("ascii")) for name, value in self.headers.items())


def api_headers(request: Request[Any, Any]) -> dict[str, str]:
    """Returns the headers of every answer of the API.

    No cache may keep any: what a client gets depends on its key, and changes at any time. Vary says so to caches
    that keep it nevertheless.
    """
    allowed = allowed_origins(request)
    if not allowed:
        return {**_NOT_CACHED, "vary": VARY}
    headers = {**_NOT_CACHED, "vary": f"{VARY}, Origin"}
    origin = ANY if ANY in allowed else request.headers.get("origin")
    if origin in allowed:
        headers |= {"access-control-allow-origin": origin, "access-control-expose-headers": EXPOSED}
    return headers


def allowed_origins(request: Request[Any, Any]) -> frozenset[str]:
    """Returns the origins of SNAPURL_CORS_ORIGINS; none: the API is for its own origin only."""
    origins: frozenset[str] = request.app.ctx.services.settings.cors_allowed
    return origins


def site_headers(*, varies: bool = False) -> dict[str, str]:
    """Returns the headers of every other answer but a redirect.

    `varies`: browsers get another answer than programs.
    """
    return {**_NOT_CACHED, "vary": "Accept"} if varies else dict(_NOT_CACHED)
