"""The plan of an import: what to do with its links, and what of a row the API of imports is told. Pure."""

from __future__ import annotations

import hmac
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from operator import attrgetter
from typing import Any
from uuid import UUID

from snapurl.imports.cells import plain_line
from snapurl.imports.rows import Found, Row
from snapurl.model import TAGS_MAX

REASON = "snapurl_reason"
CALL_DAYS_MAX = 10_000  # of visits, as in the body of 1,000 links


class RowOutcome(StrEnum):
    """What becomes of a row."""

    CREATED = "created"
    PRESENT = "present"
    REFUSED = "refused"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class ImportPlan:
    """What to do with the links.

    `domain` is where they go (None: to their own if the service has it, else to the default one), `only` the domain
    in the source whose links are taken (None: all). Links that expire until `skips_expired_at` are left out.
    """

    is_dry: bool
    domain: str | None = None
    only: str | None = None
    account: str | None = None
    tags: tuple[str, ...] = ()
    skips_expired_at: datetime | None = None

    def skipped(self, found: Found) -> str:
        """Returns why a link is left out; "" if it is not."""
        if self.only is not None and found.domain != self.only:
            return f"it is of the domain {plain_line(found.domain) or '(none)'}"
        if self.skips_expired_at and found.expires_at and found.expires_at <= self.skips_expired_at:
            return "it has expired"
        return ""

    def body(self, row: Row, found: Found, secret: bytes) -> dict[str, Any]:
        """Returns the link as the API takes it. The id of one without a code follows from its row and `secret`."""
        body: dict[str, Any] = {"url": found.url}
        domain = found.domain if self.domain is None else self.domain
        if found.code is not None:
            body["alias"] = found.code
        else:
            said = f"{row.place}\0{domain}\0{found.url}".encode("utf-8", "surrogatepass")
            body["id"] = str(UUID(bytes=hmac.digest(secret, said, "sha256")[:16]))
        values = zip(_SAID, _said(found), strict=True)
        body |= {name: value for name, value in values if value is not None}
        if found.tags or self.tags:
            body["tags"] = list(dict.fromkeys((*found.tags, *self.tags)))[:TAGS_MAX]
        if domain:
            body["domain"] = domain
        if not found.enabled:
            body["enabled"] = False
        if found.others:
            body |= found.others
        return body


_SAID = ("title", "note", "max_clicks", "clicks", "created_at", "starts_at", "expires_at")
_said: Callable[[Found], tuple[Any, ...]] = attrgetter(*_SAID)


def visit_calls(links: Sequence[tuple[Found, Mapping[str, Any]]]) -> Iterator[list[dict[str, Any]]]:
    """Yields the visits of links, which come with their bodies, in calls of at most CALL_DAYS_MAX days."""
    call: list[dict[str, Any]] = []
    days_left = CALL_DAYS_MAX
    for found, body in links:
        if not found.days or found.code is None:
            continue
        days = [
            {"day": day.isoformat(), "clicks": clicks, "bots": bots}
            for day, (clicks, bots) in sorted(found.days.items())
        ]
        while days:
            part, days = days[:days_left], days[days_left:]
            named = {name: body[name] for name in ("domain",) if name in body}
            call.append({"code": found.code, **named, "days": part})
            days_left -= len(part)
            if not days_left:
                yield call
                call, days_left = [], CALL_DAYS_MAX
    if call:
        yield call


class RefusedRows:
    """Rows that were refused, as in the source, and why: the `header` and the rows of a file of them."""

    def __init__(self, header: Sequence[str]) -> None:
        self._kept = [place for place, name in enumerate(header) if name != REASON]
        self.header = [*(header[place] for place in self._kept), REASON]

    def row(self, cells: Sequence[str], reason: str) -> list[str]:
        return [*(cells[place] if place < len(cells) else "" for place in self._kept), reason]


def why(problem: Mapping[str, Any]) -> str:
    """Returns what a problem of the API says of one link."""
    errors = problem.get("errors") or []
    said = "; ".join(f"{error['pointer'].removeprefix('/')}: {error['detail']}" for error in errors)
    return said or str(problem["detail"])
