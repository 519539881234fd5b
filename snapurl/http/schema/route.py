"""What a route is, and what OpenAPI shows of it: method, path, bodies, parameters and refusals. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from snapurl.codes import split_key
from snapurl.errors import SnapURLError
from snapurl.model import Right

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])

DOMAIN = "domain"
"""The query parameter that says which domain the code of the path belongs to."""

JSON = "application/json"
MERGE_PATCH = "application/merge-patch+json"

LINKS_PATH = "/api/v1/links"
"""Where links are created and listed; each link is at `/{code}` below it."""


def address_of_link(key: str) -> str:
    """Returns the address of a link in the API."""
    domain, code = split_key(key)
    return f"{LINKS_PATH}/{code}" + (f"?{DOMAIN}={domain}" if domain else "")


@dataclass(frozen=True, slots=True)
class Parameter:
    """A query or header parameter, as OpenAPI shows it. Query parameters that a route does not list are refused.

    One whose schema is an array may be repeated, any other may not.
    """

    name: str
    place: str
    description: str
    schema: Mapping[str, Any]
    is_required: bool = False

    @property
    def may_repeat(self) -> bool:
        return bool(self.schema["type"] == "array")


@dataclass(frozen=True, slots=True)
class Success:
    """A response that is not a problem: its status, schema (None: no body), and headers with their description."""

    status: int
    description: str
    model: type[BaseModel] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)
    media: str = "application/json"


@dataclass(frozen=True, slots=True)
class Route(Generic[HandlerT]):
    """One path and method.

    `right` is the right that the API key must have; None: the route needs no key, or with `any_key` a valid one. A
    `may_be_anonymous` route works without a key if the deployment sets SNAPURL_ANONYMOUS_CREATION
    (`dispatch._authorize` decides). The body of an `is_bulk` route may have as many links as the client may create
    at once, any other the bytes and values of `body_links` links.
    """

    method: str
    path: str
    handler: HandlerT
    summary: str
    tag: str
    successes: tuple[Success, ...]
    description: str = ""
    right: Right | None = None
    any_key: bool = False
    may_be_anonymous: bool = False
    is_bulk: bool = False
    body_links: int = 1
    body: type[BaseModel] | None = None
    parameters: tuple[Parameter, ...] = ()
    refusals: tuple[type[SnapURLError], ...] = ()

    @property
    def name(self) -> str:
        """The operation id in OpenAPI, and the name of the route in Sanic."""
        return self.handler.__name__

    @property
    def needs_client(self) -> bool:
        """Whether the client is identified, and counts against its limits."""
        return self.right is not None or self.any_key

    @property
    def methods(self) -> tuple[str, ...]:
        """The methods that the route answers: HEAD, too, where it answers GET."""
        return (self.method, "HEAD") if self.method == "GET" else (self.method,)

    @property
    def body_media(self) -> tuple[str, ...]:
        """The media types that a body may have. That of a PATCH is a merge patch (RFC 7396) under either name."""
        return (JSON, MERGE_PATCH) if self.method == "PATCH" else (JSON,)

    @property
    def is_page(self) -> bool:
        """Whether the route is outside the API: it ignores unknown query parameters."""
        return not self.path.startswith("/api/")
