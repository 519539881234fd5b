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
from snapurl.limits import UNLIMITED, Blocklist, Verdict, client_address, hits_max
from snapurl.model import ApiKey, Right

CREATE = "create"
API = "api"
MISSING = "missing"
UNAUTHORIZED = "unauthorized"

MISSES = "too many links that do not exist were asked for from here"


def address_of(request: Request[Any, Any], settings: Settings) -> str:
    """Returns the client address: what a request without a key is counted against."""
    forwarded = request.headers.getall("x-forwarded-for", []) if settings.proxies_count else []
    return client_address(request.ip, ",".join(forwarded), settings.proxies_count)


def client_of(context: RequestContext) -> str:
    """Returns the client: the API key, else the address. Limits and Idempotency-Keys are per client."""
    if context.key is not None:
        return f"key:{context.key.key_id}"
    return f"address:{context.address}"


def creation_rate(key: ApiKey | None, settings: Settings) -> str:
    """Returns the rate of the key if it has one, else no limit for an admin key and the default for all others."""
    if key is not None and key.limit:
        return key.limit
    return UNLIMITED if key is not None and key.is_admin else settings.limit_create


def bulk_links_max(key: ApiKey | None, settings: Settings) -> int:
    """Returns how many links the client may create at once: no more than its limit ever allows."""
    rate = creation_rate(key, settings)
    return settings.bulk_links_max if rate == UNLIMITED else min(settings.bulk_links_max, hits_max(rate))


async def count_request(context: RequestContext, right: Right) -> None:
    """Counts a request before its body is read, so that a refused body counts as well. Raises RateLimited.

    A create counts as the links that a body of its length holds at least, any other request of the API as one.
    """
    if right is Right.CREATE:
        assert context.bound is not None
        await count_links(context, context.bound.links_at_least(context.content_length))
    else:
        await _count_api_request(context)


async def count_links(context: RequestContext, links: int) -> None:
    """Counts those of `links` created links that do not count yet against the client's limit, all or none.

    Raises RateLimited.
    """
    cost = links - context.counted
    rate = creation_rate(context.key, context.services.settings)
    if cost <= 0 or rate == UNLIMITED:
        return
    verdict = await context.services.limiter.hit(CREATE, client_of(context), rate, cost)
    assert verdict is not None
    context.headers.update(rate_headers(CREATE, verdict))
    if not verdict.allowed:
        allowed = f"{verdict.limit} links in {verdict.window_s} s are allowed"
        raise RateLimited(f"{allowed}, and {verdict.remaining} are left", retry_after_s=verdict.reset_s)
    context.counted = links


async def _count_api_request(context: RequestContext) -> None:
    assert context.key is not None
    settings = context.services.settings
    rate = UNLIMITED if context.key.is_admin else settings.limit_api
    verdict = await context.services.limiter.hit(API, client_of(context), rate)
    if verdict is None:
        return
    context.headers.update(rate_headers(API, verdict))
    if not verdict.allowed:
        allowed = f"{verdict.limit} requests in {verdict.window_s} s are allowed besides creates"
        raise RateLimited(allowed, retry_after_s=verdict.reset_s)


def rate_headers(bucket: str, verdict: Verdict) -> dict[str, str]:
    return {
        "ratelimit-policy": f'"{bucket}";q={verdict.limit};w={verdict.window_s}',
        "ratelimit": f'"{bucket}";r={verdict.remaining};t={verdict.reset_s}',
    }


async def count_miss(services: Services, address: str) -> float:
    """Counts a request to a missing link; returns for how many seconds `address` is blocked now (0: not at all)."""
    verdict = await services.limiter.hit(MISSING, address, services.settings.limit_missing)
    return _block(services.blocked, address, verdict)


async def count_refused_key(services: Services, address: str) -> float:
    """As `count_miss`, for a request whose API key was refused. A blocked address is not counted further."""
    if left_s := services.key_guessers.seconds_left(address):
        return left_s
    verdict = await services.limiter.hit(UNAUTHORIZED, address, services.settings.limit_unauthorized)
    return _block(services.key_guessers, address, verdict)


def _block(blocked: Blocklist, address: str, verdict: Verdict | None) -> float:
    if verdict is None or verdict.allowed:
        return 0.0
    blocked.block(address, verdict.reset_s)
    return float(verdict.reset_s)


def refuse_blocked(left_s: float, detail: str) -> None:
    """Raises RateLimited if `left_s` seconds of a block are left."""
    if left_s:
        raise RateLimited(detail, retry_after_s=left_s)
