"""Headers that do not depend on the answer: which caches may keep it, and that its media type is to be believed."""

from __future__ import annotations

from typing import Any

from sanic import Request

API_PREFIX = "/api/"

_NOT_CACHED = {"cache-control": "no-store", "x-content-type-options": "nosniff"}


def api_headers(request: Request[Any, Any]) -> dict[str, str]:
    """Returns the headers of every answer of the API.

    No cache may keep any: what a client gets depends on its key, and changes at any time. Vary says so to caches
    that keep it nevertheless.
    """
    return {**_NOT_CACHED, "vary": "Authorization, X-Api-Key"}


def site_headers(*, varies: bool = False) -> dict[str, str]:
    """Returns the headers of every other answer but a redirect.

    `varies`: browsers get another answer than programs.
    """
    return {**_NOT_CACHED, "vary": "Accept"} if varies else dict(_NOT_CACHED)
