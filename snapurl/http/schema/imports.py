"""Bodies of imports: links that come from another service, and what became of each. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from snapurl.codes import is_code, key_of
from snapurl.errors import FieldError, Invalid
from snapurl.http.schema.requests import AccountId, Body, LinkDraft, Rules, check, draft_of, read_moment
from snapurl.http.schema.responses import DOMAIN, Answer, BulkRefused, named
from snapurl.model import Draft, Imported, ImportedDay, Origin
from snapurl.urls import UrlRefused

IMPORTED_CLICKS_MAX = 1_000_000_000_000
VISIT_DAYS_MAX = 20_000  # of a link
_DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")
FIRST = datetime(1990, 1, 1, tzinfo=UTC)


def _uuid(value: object) -> UUID:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    try:
        return UUID(value)
    except ValueError:
        raise ValueError("is not a UUID") from None


def _created_at(value: object) -> datetime:
    if not isinstance(value, str):
        raise ValueError("must be a string")
    moment = read_moment(value)
    if moment < FIRST:
        raise ValueError(f"must not be before {FIRST:%Y}")
    return moment


def _day(value: object) -> date:
    if not isinstance(value, str) or not _DAY.fullmatch(value):
        raise ValueError("must be a date such as 2030-01-31")
    try:
        day = date.fromisoformat(value)
    except ValueError:
        raise ValueError("is not a date that exists") from None
    if day < FIRST.date():
        raise ValueError(f"must not be before {FIRST:%Y}")
    return day


def _code(text: str) -> str:
    if not is_code(text):
        raise ValueError("is not a code")
    return text


class ImportOrigin(Body):
    """What a link brings along from where it was."""

    id: (
        Annotated[UUID, BeforeValidator(_uuid), WithJsonSchema({"type": "string", "format": "uuid"})] | None
    ) = Field(
        None,
        description="Names this link in repeats of the import. The code of a link without an alias follows from "
        "it, so a repeat creates no second one.",
    )
    created_at: (
        Annotated[
            datetime, BeforeValidator(_created_at), WithJsonSchema({"type": "string", "format": "date-time"})
        ]
        | None
    ) = Field(None, description="When it was created there. RFC 3339 with an offset, not in the future.")
    clicks: Annotated[int, Field(ge=0, le=IMPORTED_CLICKS_MAX)] | None = Field(
        None, description="How many clicks were counted there. They are kept apart as `imported_clicks`."
    )


class ImportedLink(LinkDraft, ImportOrigin):
    """A link to be imported. Its expiry may be in the past.

    One of a domain that this service does not have goes to the default domain.
    """

    account: None = None  # the whole import names one
    password: None = None  # no service gives one away


class Import(Body):
    """Up to 1,000 links that come from another service; each is checked and answered on its own."""

    links: Annotated[
        list[Any],
        Field(
            min_length=1,
            max_length=1_000,
            description="`ImportedLink`s. Anything else is refused by itself, in its own place of the answer.",
            json_schema_extra={"items": {"anyOf": [{"$ref": "#/components/schemas/ImportedLink"}, {}]}},
        ),
    ]
    account: AccountId | None = Field(
        None, description="To whom they belong. Left out: to the key's account."
    )
    dry_run: bool = Field(False, description="Only say what would become of each link.")
    only_exceptions: bool = Field(
        False, description="Leave out of the answer the links that were created, or would be."
    )


class LinkImported(Answer):
    """201: the link was created, or would be. 200: it was there already."""

    status: Literal[200, 201]
    code: str
    domain: str | None = DOMAIN


class ImportResults(Answer):
    """One result per link, in the same order; with `only_exceptions` of the links at these `places` alone."""

    results: list[LinkImported | BulkRefused]
    places: list[int] | None = Field(
        description="With `only_exceptions`: which links the results are of, counted from 0. Else null."
    )


class VisitDay(Body):
    """What was counted on a UTC day. `bots` is a part of `clicks`."""

    day: Annotated[date, BeforeValidator(_day), WithJsonSchema({"type": "string", "format": "date"})]
    clicks: Annotated[int, Field(ge=1, le=IMPORTED_CLICKS_MAX)]
    bots: Annotated[int, Field(ge=0, le=IMPORTED_CLICKS_MAX)] = 0

    @model_validator(mode="after")
    def _parts(self) -> VisitDay:
        if self.bots > self.clicks:
            raise ValueError("must not have more bots than clicks")
        return self


class LinkVisits(Body):
    """The visits of a link in another service, by day."""

    code: Annotated[str, AfterValidator(_code)]
    domain: str | None = Field(None, description="As in the import of the link.")
    days: Annotated[list[VisitDay], Field(min_length=1, max_length=VISIT_DAYS_MAX)]


class ImportedVisits(Body):
    """Visits of up to 1,000 links. A day takes the place of what is known of it, so a repeat does no harm."""

    links: Annotated[list[LinkVisits], Field(min_length=1, max_length=1_000)]


class VisitsImported(Answer):
    """The visits of a link are there."""

    status: Literal[200]
    code: str
    domain: str | None = DOMAIN


class VisitResults(Answer):
    """One result per link, in the same order."""

    results: list[VisitsImported | BulkRefused]


_ORIGIN = tuple(ImportOrigin.model_fields)


def import_of(value: object, rules: Rules, now: datetime) -> tuple[Draft, Origin]:
    """Returns `value` as a link to be imported. Raises Invalid."""
    if not isinstance(value, dict) or value.get("account") is not None or value.get("password") is not None:
        check(ImportedLink, value, rules)
        raise AssertionError("the schema takes what it refuses")
    fields = dict(value)
    given = {name: fields.pop(name) for name in _ORIGIN if name in fields}
    if isinstance(domain := fields.get("domain"), str) and _is_strange(domain, rules):
        del fields["domain"]
    draft = draft_of(fields, rules)
    origin = _sound_origin(given)
    if origin is None:
        found = check(ImportOrigin, given, rules)
        origin = Origin(found.id, found.created_at, found.clicks)
    if origin.created_at is not None and origin.created_at > now:
        raise Invalid(fields=(FieldError("/created_at", "must not be in the future"),))
    return draft, origin


def _sound_origin(given: Mapping[str, Any]) -> Origin | None:
    """Returns the origin if every field is sound, for a fraction of what the schema costs; else None."""
    named, created_at, clicks = given.get("id"), given.get("created_at"), given.get("clicks")
    if clicks is not None and (type(clicks) is not int or not 0 <= clicks <= IMPORTED_CLICKS_MAX):
        return None
    try:
        return Origin(
            None if named is None else _uuid(named),
            None if created_at is None else _created_at(created_at),
            clicks,
        )
    except ValueError:
        return None


def visits_of(found: LinkVisits, rules: Rules) -> tuple[str, list[ImportedDay]]:
    """Returns the key of the link, and its days, each once. Raises Invalid."""
    domain = found.domain
    if domain is not None:
        try:
            domain = "" if _is_strange(domain, rules) else rules.domains.read(domain)
        except UrlRefused as refusal:
            raise Invalid(fields=(FieldError("/domain", str(refusal)),)) from None
    key = key_of(domain or "", found.code)
    days = {each.day: ImportedDay(key, each.day, each.clicks, each.bots) for each in found.days}
    return key, list(days.values())


def _is_strange(domain: str, rules: Rules) -> bool:
    """Whether `domain` is a host name that this service does not have."""
    try:
        return not rules.domains.has(rules.domains.find(domain))
    except UrlRefused:
        return False


def imported_body(imported: Imported) -> dict[str, Any]:
    """Returns a `LinkImported`."""
    return {"status": 201 if imported.is_new else 200, **named(imported.code)}
