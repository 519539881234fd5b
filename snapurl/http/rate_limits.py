"""Rate limits as a client meets them: which bucket, which rate, which headers, and the 429.

The headers are those of the IETF's RateLimit draft: `RateLimit-Policy: "create";q=120;w=60` is the rule and
`RateLimit: "create";r=119;t=60` what is left of it, for the next `t` seconds.
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
    """Whom the request is counted against if it has no key."""
    forwarded = request.headers.getall("x-forwarded-for", []) if settings.proxies_count else []
    return client_address(request.ip, ",".join(forwarded), settings.proxies_count)


def client_of(call: RequestContext) -> str:
    """The key, else the address, that a request is counted against and that owns its Idempotency-Keys."""
    if call.key is not None:
        return f"key:{call.key.key_id}"
    return f"address:{address_of(call.request, call.services.settings)}"


def creation_rate(key: ApiKey | None, settings: Settings) -> str:
    """A key's own rate; without one an admin key has no limit, and everybody else the default."""
    if key is not None and key.limit:
        return key.limit
    return UNLIMITED if key is not None and key.is_admin else settings.limit_create


async def limit_creation(call: RequestContext, links: int) -> None:
    """Counts `links` creations, all or none. Raises RateLimited."""
    rate = creation_rate(call.key, call.services.settings)
    verdict = await call.services.limiter.hit(CREATE, client_of(call), rate, cost=links)
    if verdict is None:
        return
    call.headers.update(rate_headers(CREATE, verdict))
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


async def missed(services: Services, who: str) -> float:
    """Counts a redirect that led nowhere; returns for how many seconds `who` is shut out now (0: not)."""
    verdict = await services.limiter.hit(MISSING, who, services.settings.limit_missing)
    if verdict is None or verdict.allowed:
        return 0.0
    services.blocked.block(who, verdict.reset_s)
    return float(verdict.reset_s)
