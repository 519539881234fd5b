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
from snapurl.limits import UNLIMITED, Verdict
from snapurl.model import ApiKey

FORWARDED_FOR = "x-forwarded-for"
FORWARDED = "forwarded"
CREATE = "create"
MISSING = "missing"
SCAN = "scan"
SCAN_FACTOR = 10  # refused misses, as a multiple of SNAPURL_LIMIT_MISSING, that make a scan
FETCH_DEST, DOCUMENT = "sec-fetch-dest", "document"

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
    return f"address:{address_of(context.request)}"


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
