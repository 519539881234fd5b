"""The types of the HTTP layer: what a route is, and what its handler receives."""

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

LINKS_PATH = "/api/v1/links"
"""Where links are created and listed; each link is at `/{code}` below it."""


@dataclass(frozen=True, slots=True)
class Site:
    """The constants of a process: the program's version, and the OpenAPI document as JSON."""

    version: str
    openapi: str


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers use; made once per process by `app.open_services`.

    `clock` and `clock_ms` are the wall clock, the latter as Unix time in milliseconds.
    """

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
    """One request of the API: what dispatch has found out about it, and the headers of its response.

    `code` is the link of the path, `query` the known query parameters, `value` the parsed JSON body, `body_bytes`
    the memory that is reserved for the body. `key` is None for an anonymous request.
    """

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
        """The API key, on a route that requires one."""
        assert self.key is not None, "the route does not require a key"
        return self.key

    def rules(self, *, past_allowed: bool = False) -> Rules:
        """Returns the rules for a body that arrives now."""
        return Rules(self.services.urls, None if past_allowed else self.services.clock())

    def json_response(self, body: object, status: int = 200) -> HTTPResponse:
        """Makes a JSON response with the headers collected so far."""
        return HTTPResponse(
            to_json(body),
            status=status,
            headers=self.headers,
            content_type="application/json",
        )


Handler = Callable[[RequestContext], Awaitable[HTTPResponse]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query or header parameter, as OpenAPI shows it. Query parameters that a route does not list are refused."""

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Success:
    """A response that is not a problem: its status, schema (None: no body), and headers with their description."""

    status: int
    description: str
    model: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route:
    """One path and method.

    `right` is the right that the API key must have; None: the route needs no key. A `may_be_anonymous` route works
    without a key if the deployment sets SNAPURL_ANONYMOUS_CREATION (`dispatch._authorize` decides).
    """

    method: str
    path: str
    handler: Handler
    summary: str
    tag: str
    successes: tuple[Success, ...]
    description: str = ""
    right: Right | None = None
    may_be_anonymous: bool = False
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[type[SnapURLError], ...] = ()

    @property
    def name(self) -> str:
        """The operation id in OpenAPI, and the name of the route in Sanic."""
        return self.handler.__name__

    @property
    def is_page(self) -> bool:
        """Whether the route is outside the API: it answers HEAD and ignores unknown query parameters."""
        return not self.path.startswith("/api/")
