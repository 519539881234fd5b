"""What the handler of a route receives: the request, what is known about it, and the services."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, TypeVar

import msgspec
from sanic import HTTPResponse, Request

from ring.arcs import Arc
from snapurl.accounts import AccountService
from snapurl.cache.reader import LinkCache
from snapurl.clicks.tally import Tally
from snapurl.config import Settings
from snapurl.domains import Domains
from snapurl.http.auth import Authenticator
from snapurl.http.bodies import BodyBound, BodyThreads
from snapurl.http.schema.requests import Rules
from snapurl.keys import KeyService
from snapurl.limits import Blocklist, Limiter
from snapurl.link_batches import LinkBatches
from snapurl.link_imports import LinkImports
from snapurl.links import LinkService
from snapurl.model import ApiKey, ClusterChange, Lag, Readiness, RingView, ShardState, SlotPlace
from snapurl.renames import LinkRenames
from snapurl.statistics import Statistics
from snapurl.targets.policy import TargetPolicy
from snapurl.urls import UrlPolicy
from snapurl.webhooks.service import WebhookService

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Site:
    """The constants of a process: the program's version, and the OpenAPI document as JSON.

    `openapi` makes the document when it is first called, which takes a tenth of a second: call it in a thread.
    """

    version: str
    openapi: Callable[[], str]


@dataclass(frozen=True, slots=True)
class Services:
    """What the handlers use; made once per process by `app.open_services`.

    `clock` and `clock_ms` are the wall clock, the latter as Unix time in milliseconds. `blocked` holds addresses
    that asked for too many missing links, `key_guessers` those from which too many API keys were refused,
    `password_guessers` addresses and links with too many wrong passwords.
    """

    settings: Settings
    site: Site
    links: LinkService
    statistics: Statistics
    batches: LinkBatches
    imports: LinkImports
    renames: LinkRenames
    targets: TargetPolicy
    keys: KeyService
    accounts: AccountService
    webhooks: WebhookService
    cache: LinkCache
    tally: Tally
    limiter: Limiter
    blocked: Blocklist
    key_guessers: Blocklist
    password_guessers: Blocklist
    auth: Authenticator
    urls: UrlPolicy
    domains: Domains
    clock: Callable[[], datetime]
    clock_ms: Callable[[], int]
    ring_view: Callable[[], RingView]
    arcs: Callable[[int], Sequence[Arc]]
    place_of: Callable[[str], SlotPlace]
    reshard: Callable[[], Awaitable[Mapping[str, Any] | None]]
    shard_states: Callable[[], Sequence[ShardState]]
    changes: Callable[[int], Awaitable[Sequence[ClusterChange]]]
    click_lag: Callable[[], Awaitable[Lag | None]]
    clicks_held: Callable[[], int]
    readiness: Callable[[], Awaitable[Readiness]]


@dataclass(slots=True)
class RequestContext:
    """One request of the API: what dispatch has found out about it, and the headers of its response.

    `address` is the client address, `code` the key of the link that the path names, `strange_domain` its domain if
    that is not configured, `id` the key or account of the path, `query` the known query parameters, `query_lists`
    those that may be repeated, `value` the parsed JSON body, `body_bytes` the memory that is reserved for it,
    `counted` the links that count against the client's limit so far. `bound` is None if the route has no body,
    `key` for an anonymous request.
    """

    request: Request[Any, Any]
    services: Services
    request_id: str
    address: str
    code: str = ""
    id: str = ""
    key: ApiKey | None = None
    query: Mapping[str, str] = field(default_factory=dict)
    query_lists: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    bound: BodyBound | None = None
    counted: int = 0
    value: object = None
    is_large: bool = False
    strange_domain: str = ""
    body_bytes: int = 0
    headers: dict[str, str] = field(default_factory=dict)

    @property
    def caller(self) -> ApiKey:
        """The API key, on a route that requires one."""
        assert self.key is not None, "the route does not require a key"
        return self.key

    @property
    def content_length(self) -> int:
        """The length of the body as the head gives it; 0 if it arrives in chunks. The head is known to be sound."""
        return int(self.request.headers.get("content-length", "0"))

    async def run(self, call: Callable[[], T]) -> T:
        """Returns what `call` returns: here for a small body, in a thread for a large one. Raises Unavailable."""
        return await self.in_thread(call) if self.is_large else call()

    async def in_thread(self, call: Callable[[], T]) -> T:
        """Returns what `call` returns in a thread, of which clients take turns. Raises Unavailable."""
        threads: BodyThreads = self.request.app.ctx.body_threads
        return await threads.run(self.address, call)

    def rules(self, *, allow_expired: bool = False) -> Rules:
        """Returns the rules for a body that arrives now."""
        services = self.services
        return Rules(services.urls, services.domains, None if allow_expired else services.clock())

    def json_response(self, body: object, status: int = 200) -> HTTPResponse:
        """Makes a JSON response with the headers collected so far."""
        return HTTPResponse(
            _encode(body),
            status=status,
            headers=self.headers,
            content_type="application/json",
        )


_encode = msgspec.json.Encoder().encode

Handler = Callable[[RequestContext], Awaitable[HTTPResponse]]
