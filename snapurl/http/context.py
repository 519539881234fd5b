"""The vocabulary of the HTTP side: what a route is, and what its handler is given."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

from pydantic import BaseModel
from pydantic_core import to_json
from sanic import HTTPResponse, Request

from snapurl.cache.reader import LinkCache
from snapurl.clicks.tally import Tally
from snapurl.config import Settings
from snapurl.errors import SnapURLError
from snapurl.http.auth import Authenticator
from snapurl.http.schema.requests import Rules
from snapurl.limits import Blocklist, Limiter
from snapurl.links import LinkService
from snapurl.model import ApiKey, Right, RingView, ShardHealth
from snapurl.urls import UrlPolicy

B = TypeVar("B", bound=BaseModel)


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


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query or header parameter, as OpenAPI shows it; query parameters that are not listed are refused."""

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Success:
    """An answer that is no problem: its status, schema (None: no body) and headers with their meaning."""

    status: int
    description: str
    model: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """One address and method. `right` is what the key must have; `anonymous` routes take no key at all, and
    `may_be_anonymous` ones do without a key where the deployment allows it."""

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    good: tuple[Success, ...]
    description: str = ""
    right: Right | None = None
    may_be_anonymous: bool = False
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[type[SnapURLError], ...] = ()

    @property
    def name(self) -> str:
        """The operation id, and the route's name in metrics."""
        return self.handler.__name__

    @property
    def is_page(self) -> bool:
        """Whether it is outside the API: HEAD is answered, and unknown query parameters are let be."""
        return not self.path.startswith("/api/")
