"""What a handler of Shlink's API receives: the request with its query and its body, and how it answers."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl

from pydantic_core import to_json
from sanic import HTTPResponse

from snapurl.errors import BadRequest
from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.offsets import PageEnds
from snapurl.http.response_headers import Bodiless
from snapurl.http.shlink.problems import invalid
from snapurl.urls import UrlRefused

QUERY_CHARS_MAX = 4_000
QUERY_FIELDS_MAX = 100
DEFAULT_DOMAIN = "DEFAULT"

_ARRAY = re.compile(r"\[[0-9]*\]\Z")
_PORT = re.compile(r":[0-9]{1,5}\Z")
_DATE = re.compile(
    r"\d{4}-\d\d-\d\d(?:[T ]\d\d:\d\d(?::\d\d(?:\.\d{1,6})?)?(?:Z|[+-]\d\d:?\d\d)?)?", re.ASCII
)


def read_pairs(text: str, fields_max: int) -> dict[str, tuple[str, ...]]:
    """Returns the values of a query or a form by name. `tags[]` and `tags[0]` are `tags`. Raises BadRequest."""
    try:
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=fields_max, errors="strict")
    except ValueError:  # too many, or not UTF-8
        raise BadRequest("the query or the form cannot be read") from None
    found: dict[str, tuple[str, ...]] = {}
    for given, value in pairs:
        name = _ARRAY.sub("", given)
        found[name] = (*found.get(name, ()), value)
    return found


def read_date(name: str, text: str) -> datetime:
    """Returns a date, or a date and time, in ISO 8601; without an offset it is UTC. Raises Invalid."""
    try:
        if not _DATE.fullmatch(text):
            raise ValueError
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC)
    except (ValueError, OverflowError):
        raise invalid(name, "must be a date and time in ISO 8601, as in 2030-01-31T12:00:00+00:00") from None


def stamp(moment: datetime) -> str:
    """Returns a date as Shlink writes it: some clients fail at a fraction of a second."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S+00:00")


@dataclass(slots=True)
class Call:
    """One request. `name` is the tag or the domain of the path, `fields` the JSON object or the form of the body.

    The key of the link that the path names is `context.code`.
    """

    context: RequestContext
    page_ends: PageEnds
    name: str = ""
    query: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    fields: Mapping[str, object] = field(default_factory=dict)

    @property
    def owner(self) -> str | None:
        """The account whose links the key reaches, None for all."""
        return owner_filter(self.context.caller)

    @property
    def by(self) -> str:
        return self.context.caller.key_id

    def one(self, name: str) -> str | None:
        """Returns the value of a parameter, of several the last. An empty one is as good as none."""
        return self.query.get(name, ("",))[-1] or None

    def many(self, name: str) -> tuple[str, ...]:
        """Returns the values of a parameter, each once."""
        return tuple(dict.fromkeys(filter(None, self.query.get(name, ()))))

    def is_set(self, name: str) -> bool:
        """Whether a flag is set."""
        return self.one(name) not in (None, "false", "0")

    def date(self, name: str) -> datetime | None:
        text = self.one(name)
        return None if text is None else read_date(name, text)

    def page(self, size_default: int, size_max: int) -> tuple[int, int]:
        """Returns the number of the page and how many items each has. Raises Invalid."""
        size = self._number("itemsPerPage", size_default)
        return max(1, self._number("page", 1)), min(size, size_max) if size > 0 else size_max

    def _number(self, name: str, default: int) -> int:
        text = self.one(name)
        if text is None:
            return default
        if not re.fullmatch(r"-?[0-9]{1,9}", text, re.ASCII):
            raise invalid(name, "must be a whole number")
        return int(text)

    def order(self, names: Mapping[str, Any], default: str) -> tuple[str, bool]:
        """Returns by what a list is sorted, one of `names`, and whether it ascends. Raises Invalid."""
        field_, _, direction = (self.one("orderBy") or default).rpartition("-")
        if not field_:
            field_, direction = direction, "ASC"
        if field_ not in names or direction.upper() not in ("ASC", "DESC"):
            raise invalid("orderBy", f"must be one of {', '.join(names)}, and -ASC or -DESC")
        return field_, direction.upper() == "ASC"

    def domain(self, text: str | None, name: str = "domain") -> str | None:
        """Returns a domain that the client names, "" for the default one, None if it names none. Raises Invalid.

        Shlink's domains have a port where the service has one.
        """
        if text is None:
            return None
        domains = self.context.services.domains
        if text == DEFAULT_DOMAIN:
            return ""
        try:
            return domains.find(text.removesuffix(domains.port) if domains.port else _PORT.sub("", text))
        except UrlRefused as refusal:
            raise invalid(name, str(refusal)) from None

    def authority(self, domain: str) -> str | None:
        """Returns a domain as Shlink writes it, None for the default one."""
        return f"{domain}{self.context.services.domains.port}" if domain else None

    def answer(self, body: object, status: int = 200, media: str = "application/json") -> HTTPResponse:
        return HTTPResponse(to_json(body), status, self.context.headers, media)

    def done(self) -> HTTPResponse:
        return Bodiless(None, 204, self.context.headers)


ShlinkHandler = Callable[[Call], Awaitable[HTTPResponse]]


def pagination(total: int, page: int, size: int, count: int) -> dict[str, int]:
    """Returns what an answer says of its page, which has `count` items."""
    return {
        "currentPage": page,
        "pagesCount": max(1, -(-total // size)),
        "itemsPerPage": size,
        "itemsInCurrentPage": count,
        "totalItems": total,
    }


def summary(clicks: int, bots: int) -> dict[str, int]:
    """Returns how many clicks there are, and how many of them are of bots."""
    return {"total": clicks, "nonBots": clicks - bots, "bots": bots}
