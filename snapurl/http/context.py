"""What the handler of a route receives: the request, what is known about it, and the services."""

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
from snapurl.model import ApiKey, Readiness, RingView
from snapurl.urls import UrlPolicy


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
    readiness: Callable[[], Awaitable[Readiness]]


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

    def rules(self, *, allow_expired: bool = False) -> Rules:
        """Returns the rules for a body that arrives now."""
        return Rules(self.services.urls, None if allow_expired else self.services.clock())

    def json_response(self, body: object, status: int = 200) -> HTTPResponse:
        """Makes a JSON response with the headers collected so far."""
        return HTTPResponse(
            to_json(body),
            status=status,
            headers=self.headers,
            content_type="application/json",
        )


Handler = Callable[[RequestContext], Awaitable[HTTPResponse]]
