"""What a route is, and what OpenAPI shows of it: method, path, bodies, parameters and refusals. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from pydantic import BaseModel

from snapurl.errors import SnapURLError
from snapurl.model import Right

HandlerT = TypeVar("HandlerT", bound=Callable[..., Any])


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
class Route(Generic[HandlerT]):
    """One address and method. `right` is what the key must have; `anonymous` routes take no key at all, and
    `may_be_anonymous` ones do without a key where the deployment allows it."""

    method: str
    path: str
    handler: HandlerT
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
