"""Handlers that change many links, and of tags."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from sanic import HTTPResponse

from snapurl.domains import Domains
from snapurl.errors import FieldError, Invalid, NotFound, Unavailable
from snapurl.http.api.cursors import write_cursor
from snapurl.http.api.lists import described, read_place
from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import query_error
from snapurl.http.problems import as_refusal
from snapurl.http.schema.batches import LinkBatch, TagName
from snapurl.http.schema.requests import TAG_CHARS_MAX, check, read_words
from snapurl.http.schema.responses import link_body, named, problem
from snapurl.link_batches import BatchAction, BatchChange, Result
from snapurl.model import Link, LinkCount, LinkOrder, LinkQuery, PageKey

TAGS_LISTED_DEFAULT = 100
TAGS_LISTED_MAX = 1_000


async def change_links(call: RequestContext) -> HTTPResponse:
    asked = await call.run(partial(check, LinkBatch, call.value, call.rules()))
    owner = owner_filter(call.caller)
    batches = call.services.batches
    if (keys := asked.keys()) is not None:
        results = await batches.change(asked.as_batch(), keys, owner, call.caller.key_id)
        if all(isinstance(outcome, NotFound) for _, outcome in results):
            _refuse_strange(call, asked.domain, "/domain")
        return _answer(call, results)
    query = asked.query(owner)
    after: PageKey | None = None
    count: LinkCount | None = None
    if asked.cursor is not None:
        after = _after(asked.cursor, query)
    else:
        count = await call.services.links.count(query)
        if count is not None and not count.links:
            _refuse_strange(call, query.domain, "/filter/domain")
        if asked.dry_run:
            return _answer(call, [], count=count, is_complete=count is not None)
        _confirm(asked, count)
    page = await batches.change_found(asked.as_batch(), query, after, call.caller.key_id)
    following = write_cursor(page.after, described(query)) if page.after else None
    return _answer(call, page.results, count=count, cursor=following, is_complete=not page.silent)


def _refuse_strange(call: RequestContext, domain: str | None, pointer: str) -> None:
    """Raises Invalid for a domain that is not configured: that there are no links is because of it."""
    domains = call.services.domains
    if domain and not domains.has(domain):
        raise Invalid(fields=(FieldError(pointer, domains.refusal()),))


def _after(cursor: str, query: LinkQuery) -> PageKey:
    try:
        return read_place(cursor, query)
    except Invalid as refusal:
        raise Invalid(fields=(FieldError("/cursor", refusal.fields[0].detail),)) from None


def _confirm(asked: LinkBatch, count: LinkCount | None) -> None:
    """Raises Invalid unless the caller knows how many links the batch changes, Unavailable if nobody does."""
    if count is None:
        raise Unavailable("some links cannot be reached now", is_public=True, retry_after_s=1.0)
    if count.is_estimate:
        raise Invalid(fields=(FieldError("/filter", "has more than 10,000 links: narrow it"),))
    if count.links != asked.confirm:
        raise Invalid(fields=(FieldError("/confirm", f"the filter has {count.links} links now"),))


def _answer(
    call: RequestContext,
    results: Sequence[Result],
    *,
    count: LinkCount | None = None,
    cursor: str | None = None,
    is_complete: bool = True,
) -> HTTPResponse:
    domains = call.services.domains
    return call.json_response(
        {
            "results": [_result(*result, domains) for result in results],
            "total": count.links if count else None,
            "total_is_estimate": count.is_estimate if count else None,
            "next_cursor": cursor,
            "complete": is_complete,
        }
    )


def _result(key: str, outcome: Any, domains: Domains) -> dict[str, Any]:
    if isinstance(outcome, Link):
        return {**named(key), "status": 200, "link": link_body(outcome, domains)}
    return {**named(key), "status": as_refusal(outcome).status, "error": problem(outcome)}


# -- tags --------------------------------------------------------------------------------------------------------


async def list_tags(call: RequestContext) -> HTTPResponse:
    prefix = _tag(call, "q") if "q" in call.query else ""
    limit = call.query.get("limit", str(TAGS_LISTED_DEFAULT))
    if not re.fullmatch(r"[0-9]{1,4}", limit) or not 1 <= int(limit) <= TAGS_LISTED_MAX:
        raise query_error("limit", f"must be a number from 1 to {TAGS_LISTED_MAX}")
    found = await call.services.links.tags(owner_filter(call.caller), prefix, int(limit))
    return call.json_response(
        {
            "tags": [{"tag": item.tag, "links": item.links} for item in found.tags],
            "more": not found.is_whole,
            "complete": not found.silent,
        }
    )


async def rename_tag(call: RequestContext) -> HTTPResponse:
    new = check(TagName, call.value, call.rules()).tag
    tag = _tag(call, "tag")
    if new == tag:
        raise Invalid(fields=(FieldError("/tag", "is the name that it has"),))
    return await _retag(call, tag, (new,))


async def delete_tag(call: RequestContext) -> HTTPResponse:
    return await _retag(call, _tag(call, "tag"), ())


async def _retag(call: RequestContext, tag: str, add: tuple[str, ...]) -> HTTPResponse:
    """Changes the next links that have the tag. A repeat goes on with those that are left."""
    query = LinkQuery(owner=owner_filter(call.caller), tags_any=(tag,), order=LinkOrder.CODE, ascending=True)
    page = await call.services.batches.change_found(
        BatchChange(BatchAction.TAGS, (tag,), add), query, None, call.caller.key_id
    )
    count = await call.services.links.count(query)
    changed = sum(isinstance(outcome, Link) for _, outcome in page.results)
    return call.json_response(
        {
            "changed": changed,
            "refused": len(page.results) - changed,
            "left": count.links if count else None,
            "complete": not page.silent,
        }
    )


def _tag(call: RequestContext, name: str) -> str:
    if name not in call.query:
        raise query_error(name, "is required")
    try:
        return read_words(call.query[name], TAG_CHARS_MAX)
    except ValueError as error:
        raise query_error(name, str(error)) from None
