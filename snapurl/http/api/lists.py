"""The handler of the list of links, and what a query asks for."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from datetime import datetime
from enum import StrEnum
from typing import Any, TypeVar
from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.domains import Domains
from snapurl.http.api.cursors import read_cursor, write_cursor
from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import query_error
from snapurl.http.schema.requests import TAG_CHARS_MAX, TEXT_CHARS_MAX, read_moment, read_words
from snapurl.http.schema.responses import link_body, missing
from snapurl.http.schema.route import DOMAIN, LINKS_PATH
from snapurl.model import LinkOrder, LinkQuery, LinkState, PageKey
from snapurl.urls import UrlRefused

PAGE_LINKS_DEFAULT = 50
PAGE_LINKS_MAX = 200

TAGS = ("tags_any", "tags_all", "tags_none")
TIMES = ("created_from", "created_to", "changed_from", "changed_to", "expires_from", "expires_to")

E = TypeVar("E", bound=StrEnum)


async def list_links(call: RequestContext) -> HTTPResponse:
    query = read_query(call.query, call.query_lists, owner_filter(call.caller), call.services.domains)
    limit = _limit(call.query.get("limit"))
    cursor = call.query.get("cursor")
    after = None if cursor is None else read_place(cursor, query)
    strict, total = (_flag(call.query, name) for name in ("strict", "total"))
    links = call.services.links
    page = await links.page(query, limit, after, strict=strict)
    count = await links.count(query) if total else None
    following = write_cursor(page.after, described(query)) if page.after else None
    if following:
        call.headers["link"] = f'<{LINKS_PATH}?{_next_query(call, limit, following)}>; rel="next"'
    if query.domain and not (page.links or page.after or page.silent or cursor):
        refuse_strange(call.services.domains, query.domain)
    return call.json_response(
        {
            "links": [link_body(link, call.services.domains) for link in page.links],
            "next_cursor": following,
            **missing(page.silent, call.caller.is_admin),
            "total": count.links if count else None,
            "total_is_estimate": count.is_estimate if count else None,
        }
    )


# -- the query ---------------------------------------------------------------------------------------------------


def read_query(
    given: Mapping[str, str], lists: Mapping[str, tuple[str, ...]], owner: str | None, domains: Domains
) -> LinkQuery:
    """Returns what the query parameters ask for. `owner` is whose links the caller may see, None for all.

    A domain need not be configured: links outlive the setting.

    Raises Invalid.
    """
    values: dict[str, Any] = {name: _tags(name, lists[name]) for name in TAGS if name in lists}
    values |= {name: _time(name, given[name]) for name in TIMES if name in given}
    return LinkQuery(
        owner=owner,
        account=given.get("account"),
        creator=given.get("creator"),
        domain=_domain(given[DOMAIN], domains) if DOMAIN in given else None,
        text=_text(given["q"]) if "q" in given else None,
        state=_word(given, "state", LinkState),
        order=_word(given, "sort", LinkOrder) or LinkOrder.CREATED,
        ascending=_choice(given, "order", {"desc": False, "asc": True}, default=False),
        **values,
    )


def refuse_strange(domains: Domains, domain: str) -> None:
    """Raises Invalid for a domain that is not configured: of a list that is empty, it is why."""
    if not domains.has(domain):
        raise query_error(DOMAIN, domains.refusal())


def _domain(text: str, domains: Domains) -> str:
    try:
        return domains.find(text)
    except UrlRefused as refusal:
        raise query_error(DOMAIN, str(refusal)) from None


def _limit(text: str | None) -> int:
    if text is None:
        return PAGE_LINKS_DEFAULT
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= PAGE_LINKS_MAX:
        raise query_error("limit", f"must be a number from 1 to {PAGE_LINKS_MAX}")
    return int(text)


def _flag(given: Mapping[str, str], name: str) -> bool:
    return _choice(given, name, {"true": True, "false": False}, default=False)


def _choice(given: Mapping[str, str], name: str, choices: Mapping[str, bool], *, default: bool) -> bool:
    if name not in given:
        return default
    if given[name] not in choices:
        raise query_error(name, f"must be {' or '.join(choices)}")
    return choices[given[name]]


def _word(given: Mapping[str, str], name: str, kind: type[E]) -> E | None:
    if name not in given:
        return None
    try:
        return kind(given[name])
    except ValueError:
        raise query_error(name, f"must be one of {', '.join(kind)}") from None


def _text(text: str) -> str:
    try:
        return read_words(text.strip(), TEXT_CHARS_MAX)
    except ValueError as error:
        raise query_error("q", str(error)) from None


def _tags(name: str, tags: tuple[str, ...]) -> tuple[str, ...]:
    try:
        return tuple(sorted({read_words(tag, TAG_CHARS_MAX) for tag in tags}))
    except ValueError as error:
        raise query_error(name, str(error)) from None


def _time(name: str, text: str) -> datetime:
    try:
        return read_moment(text)
    except ValueError as error:
        raise query_error(name, str(error)) from None


def _next_query(call: RequestContext, limit: int, cursor: str) -> str:
    """Returns the query string of the next page: that of this one, with the new cursor."""
    own = {name: value for name, value in call.query.items() if name not in ("limit", "cursor")}
    return urlencode({**own, **call.query_lists, "limit": limit, "cursor": cursor}, doseq=True)


def described(query: LinkQuery) -> str:
    """Returns what cursors of the query's list are bound to."""
    values: list[Any] = [getattr(query, field.name) for field in fields(query)]
    return json.dumps(values, default=datetime.isoformat)


def read_place(cursor: str, query: LinkQuery) -> PageKey:
    """Returns where the cursor's page ended. Raises Invalid."""
    return read_cursor(cursor, described(query), query.order)
