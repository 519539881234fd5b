"""Applies rate limits to HTTP requests: which bucket and rate, which headers, and the 429.

The headers are those of the IETF draft: `RateLimit-Policy: "create";q=120;w=60` is the limit, and
`RateLimit: "create";r=119;t=60` what remains of it for the next `t` seconds.
"""

from __future__ import annotations

import logging
from typing import Any

from sanic import Request

from snapurl.addresses import EMBEDDED, Clients
from snapurl.config import Settings
from snapurl.errors import RateLimited
from snapurl.http.context import RequestContext, Services
from snapurl.limits import UNLIMITED, Verdict, hits_max
from snapurl.model import ApiKey, Right

FORWARDED_FOR = "x-forwarded-for"
FORWARDED = "forwarded"
CREATE = "create"
API = "api"
PUBLIC_STATS = "public-stats"
MISSING = "missing"
SCAN = "scan"
SCAN_FACTOR = 10  # refused misses, as a multiple of SNAPURL_LIMIT_MISSING, that make a scan
UNAUTHORIZED = "unauthorized"
FETCH_DEST, DOCUMENT = "sec-fetch-dest", "document"

MISSES = "too many links that do not exist were asked for from here"

log = logging.getLogger("snapurl.limits")


def address_of(request: Request[Any, Any]) -> str:
    """Returns the client as an address or network: what a request without a key counts against."""
    clients: Clients = request.app.ctx.clients
    forwarded_for = ",".join(request.headers.getall(FORWARDED_FOR, ()))
    return clients.of_request(request.ip, forwarded_for, ",".join(request.headers.getall(FORWARDED, ())))


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


def api_rate(key: ApiKey, settings: Settings) -> str:
    """Returns the rate of requests of the API besides creates."""
    return UNLIMITED if key.is_admin else settings.limit_api


def bulk_links_max(key: ApiKey | None, settings: Settings) -> int:
    """Returns how many links the client may create at once: no more than its limit ever allows."""
    rate = creation_rate(key, settings)
    return settings.bulk_links_max if rate == UNLIMITED else min(settings.bulk_links_max, hits_max(rate))


async def count_request(context: RequestContext, right: Right | None) -> None:
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
    rate = api_rate(context.key, context.services.settings)
    verdict = await context.services.limiter.hit(API, client_of(context), rate)
    if verdict is None:
        return
    context.headers.update(rate_headers(API, verdict))
    if not verdict.allowed:
        allowed = f"{verdict.limit} requests in {verdict.window_s} s are allowed besides creates"
        raise RateLimited(allowed, retry_after_s=verdict.reset_s)


async def count_public_stats(context: RequestContext) -> None:
    """Counts a read of public statistics. Raises RateLimited."""
    rate = context.services.settings.limit_public_stats
    verdict = await context.services.limiter.hit(PUBLIC_STATS, context.address, rate)
    if verdict is not None and not verdict.allowed:
        raise RateLimited(
            f"{verdict.limit} requests in {verdict.window_s} s are allowed", retry_after_s=verdict.reset_s
        )


def rate_headers(bucket: str, verdict: Verdict) -> dict[str, str]:
    return {
        "ratelimit-policy": f'"{bucket}";q={verdict.limit};w={verdict.window_s}',
        "ratelimit": f'"{bucket}";r={verdict.remaining};t={verdict.reset_s}',
    }


def miss_client_of(request: Request[Any, Any]) -> str:
    """Returns the client that a request to a missing link counts against.

    What a page makes a browser fetch, such as an image or a script, counts apart from what its user opens:
    otherwise any page could block its readers. Pages cannot set Sec-Fetch-Dest.
    """
    client = address_of(request)
    return client if request.headers.get(FETCH_DEST, DOCUMENT) == DOCUMENT else EMBEDDED + client


async def count_miss(services: Services, client: str) -> float:
    """Counts a request to a missing link; returns for how many seconds the next ones are refused (0: not at all).

    A client that goes on after the limit is guessing codes (a scan): after SCAN_FACTOR times the limit it is
    blocked, so that it can no longer tell existing links from missing ones.
    """
    limiter, rate = services.limiter, services.settings.limit_missing
    verdict = await limiter.hit(MISSING, client, rate)
    if verdict is None or verdict.allowed:
        return 0.0
    scan = await limiter.hit(SCAN, client, rate, factor=SCAN_FACTOR)
    if scan is not None and not scan.allowed and services.blocked.block(scan.client, scan.reset_s):
        log.warning(
            "blocked %s for %d s: it asks for one missing link after another", scan.client, scan.reset_s
        )
    return float(verdict.reset_s)


async def count_refused_key(services: Services, client: str) -> float:
    """Counts a request whose API key was refused; returns for how many seconds the next ones are refused."""
    if left_s := services.key_guessers.seconds_left(client):
        return left_s
    verdict = await services.limiter.hit(UNAUTHORIZED, client, services.settings.limit_unauthorized)
    if verdict is None or verdict.allowed:
        return 0.0
    if services.key_guessers.block(verdict.client, verdict.reset_s):
        log.warning("blocked %s for %d s: its API keys are refused", verdict.client, verdict.reset_s)
    return float(verdict.reset_s)


def refuse_blocked(left_s: float, detail: str) -> None:
    """Raises RateLimited if `left_s` seconds of a block are left."""
    if left_s:
        raise RateLimited(detail, retry_after_s=left_s)
