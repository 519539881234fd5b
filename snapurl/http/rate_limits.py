"""Applies rate limits to HTTP requests: which bucket and rate, which headers, and the 429.

The headers are those of the IETF draft: `RateLimit-Policy: "create";q=120;w=60` is the limit, and
`RateLimit: "create";r=119;t=60` what remains of it for the next `t` seconds.
"""

from __future__ import annotations

from typing import Any

from sanic import Request

from snapurl.config import Settings
from snapurl.errors import RateLimited
from snapurl.http.context import RequestContext, Services
from snapurl.limits import UNLIMITED, Verdict, client_address
from snapurl.model import ApiKey

CREATE = "create"
MISSING = "missing"


def address_of(request: Request[Any, Any], settings: Settings) -> str:
    """Returns the client address: what a request without a key is counted against."""
    forwarded = request.headers.getall("x-forwarded-for", []) if settings.proxies_count else []
    return client_address(request.ip, ",".join(forwarded), settings.proxies_count)


def client_of(context: RequestContext) -> str:
    """Returns the client: the API key, else the address. Limits and Idempotency-Keys are per client."""
    if context.key is not None:
        return f"key:{context.key.key_id}"
    return f"address:{address_of(context.request, context.services.settings)}"


def creation_rate(key: ApiKey | None, settings: Settings) -> str:
    """Returns the rate of the key if it has one, else no limit for an admin key and the default for all others."""
    if key is not None and key.limit:
        return key.limit
    return UNLIMITED if key is not None and key.is_admin else settings.limit_create


async def limit_creation(context: RequestContext, links: int) -> None:
    """Counts `links` created links against the client's limit, all or none. Raises RateLimited."""
    rate = creation_rate(context.key, context.services.settings)
    verdict = await context.services.limiter.hit(CREATE, client_of(context), rate, cost=links)
    if verdict is None:
        return
    context.headers.update(rate_headers(CREATE, verdict))
    if not verdict.allowed:
        raise RateLimited(_detail(verdict, links), retry_after_s=verdict.reset_s)


def rate_headers(bucket: str, verdict: Verdict) -> dict[str, str]:
    return {
        "ratelimit-policy": f'"{bucket}";q={verdict.limit};w={verdict.window_s}',
        "ratelimit": f'"{bucket}";r={verdict.remaining};t={verdict.reset_s}',
    }


def _detail(verdict: Verdict, links: int) -> str:
    rule = f"{verdict.limit} links in {verdict.window_s} s are allowed"
    if links > verdict.limit:
        return f"{rule}: {links} at once can never pass"
    return f"{rule}, and {verdict.remaining} are left"


async def count_miss(services: Services, address: str) -> float:
    """Counts a request to a missing link; returns for how many seconds `address` is blocked now (0: not at all)."""
    verdict = await services.limiter.hit(MISSING, address, services.settings.limit_missing)
    if verdict is None or verdict.allowed:
        return 0.0
    services.blocked.block(address, verdict.reset_s)
    return float(verdict.reset_s)
