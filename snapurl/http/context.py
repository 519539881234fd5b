"""What the handler of a route gets: the request, what is known about it, and the services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from pydantic_core import to_json
from sanic import HTTPResponse, Request

from snapurl.cache.reader import LinkCache
from snapurl.clicks.tally import Tally
from snapurl.config import Settings
from snapurl.http.auth import Authenticator
from snapurl.http.schema.requests import Rules
from snapurl.limits import Blocklist, Limiter
from snapurl.links import LinkService
from snapurl.model import ApiKey, RingView, ShardHealth
from snapurl.urls import UrlPolicy


@dataclass(frozen=True, slots=True)
class Site:
    """What never changes while the process runs: the program's version, and the OpenAPI document as JSON."""

    version: str
    openapi: str


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers work with; made once by `app.py`. `clock` is the wall clock."""

    settings: Settings
    site: Site
    links: LinkService
    cache: LinkCache
    tally: Tally
    limiter: Limiter
    blocked: Blocklist
    auth: Authenticator
    urls: UrlPolicy
    clock: Callable[[], datetime]
    clock_ms: Callable[[], int]
    ring_view: Callable[[], RingView]
    reshard: Callable[[], Awaitable[Mapping[str, Any] | None]]
    shard_health: Callable[[], Awaitable[list[ShardHealth]]]
    redis_fault: Callable[[], Awaitable[str | None]]


@dataclass(slots=True)
class RequestContext:
    """One request of the API on its way: what has been found out about it, and what its answer will carry."""

    request: Request[Any, Any]
    services: Services
    request_id: str
    code: str = ""
    key: ApiKey | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    value: object = None
    body_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def caller(self) -> ApiKey:
        """The key of a route that needs one."""
        assert self.key is not None, "the route does not ask for a key"
        return self.key

    def rules(self, *, past_allowed: bool = False) -> Rules:
        """What bodies are held against now."""
        return Rules(self.services.urls, None if past_allowed else self.services.clock())

    def answer(self, body: object, status: int = 200) -> HTTPResponse:
        """A JSON answer with the headers collected so far."""
        return HTTPResponse(
            to_json(body),
            status=status,
            headers=self.headers,
            content_type="application/json",
        )


Handler = Callable[[RequestContext], Awaitable[HTTPResponse]]
