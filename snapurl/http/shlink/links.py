"""Handlers of short URLs: the list, one of them, and the deprecated address that shortens by GET."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any

from sanic import HTTPResponse

from snapurl.codes import key_of, random_text
from snapurl.errors import AliasTaken, Gone, NotFound, Unavailable, VersionMismatch
from snapurl.http.auth import require
from snapurl.http.schema.requests import TAG_CHARS_MAX, TEXT_CHARS_MAX, read_words
from snapurl.http.shlink.call import Call, pagination, stamp, summary
from snapurl.http.shlink.fields import draft_from, made_up_length, may_be_found, patch_from
from snapurl.http.shlink.problems import invalid
from snapurl.model import Draft, Link, LinkCount, LinkOrder, LinkQuery, Right

PAGE_LINKS_DEFAULT = 10
PAGE_LINKS_MAX = 200
ATTEMPTS = 3  # at a link that others change meanwhile, or at a code
FIND_READS = 10  # of a search for a link with the same target

ORDERS = {
    "dateCreated": LinkOrder.CREATED,
    "shortCode": LinkOrder.CODE,
    "visits": LinkOrder.CLICKS,
    "nonBotVisits": LinkOrder.CLICKS,
}


# -- the list ----------------------------------------------------------------------------------------------------


async def list_short_urls(call: Call) -> HTTPResponse:
    page, size = call.page(PAGE_LINKS_DEFAULT, PAGE_LINKS_MAX)
    query = _query(call)
    service, now = call.context.services.links, call.context.services.clock()
    unexpired = call.is_set("excludePastValidUntil")
    first = (page - 1) * size
    found = await call.page_ends.page(
        service, query, first, size,
        (lambda link: link.expires_at is None or link.expires_at > now) if unexpired else None,
    )  # fmt: skip
    total = found.total
    if total is None:
        total = _counted(await service.count(query))
        if unexpired:
            total -= _counted(await service.count(replace(query, expires_to=now)))
        total = max(total, first + len(found.links) + 1)  # an estimate may be too low: there are more
    data = await bodies_of(call, found.links)
    return call.answer({"shortUrls": {"data": data, "pagination": pagination(total, page, size, len(data))}})


def _counted(count: LinkCount | None) -> int:
    if count is None:
        raise Unavailable("some links cannot be reached now", is_public=True, retry_after_s=1.0)
    return count.links


def _query(call: Call) -> LinkQuery:
    """Returns which links are asked for, and in which order. Raises Invalid for what lists cannot tell."""
    for name, why in (
        ("excludeMaxVisitsReached", "links are not listed by how often they were used"),
        ("apiKeyName", "links are listed by the id of a key, by the API of this service alone"),
    ):
        if call.is_set(name):
            raise invalid(name, why)
    order, ascending = call.order(ORDERS, "dateCreated-DESC")
    tags, excluded = _tags(call, "tags"), _tags(call, "excludeTags")
    takes_all = _mode(call, "tagsMode")
    if len(excluded) > 1 and _mode(call, "excludeTagsMode"):
        raise invalid("excludeTagsMode", "must be any: links with one of several tags are excluded")
    until = call.date("endDate")
    text = call.one("searchTerm")
    try:
        text = None if text is None else read_words(text.strip(), TEXT_CHARS_MAX)
    except ValueError as error:
        raise invalid("searchTerm", str(error)) from None
    return LinkQuery(
        owner=call.owner,
        domain=call.domain(call.one("domain")),
        text=text,
        tags_any=() if takes_all else tags,
        tags_all=tags if takes_all else (),
        tags_none=excluded,
        created_from=call.date("startDate"),
        created_to=None if until is None else until + timedelta(microseconds=1),
        order=ORDERS[order],
        ascending=ascending,
    )


def _tags(call: Call, name: str) -> tuple[str, ...]:
    try:
        return tuple(sorted(read_words(tag, TAG_CHARS_MAX) for tag in call.many(name)))
    except ValueError as error:
        raise invalid(name, str(error)) from None


def _mode(call: Call, name: str) -> bool:
    """Whether all tags count, not any of them."""
    mode = call.one(name) or "any"
    if mode not in ("any", "all"):
        raise invalid(name, "must be any or all")
    return mode == "all"


async def bodies_of(call: Call, links: Sequence[Link]) -> list[dict[str, Any]]:
    """Returns short URLs with their clicks. Raises Unavailable."""
    clicks = await call.context.services.statistics.totals_of_links([link.code for link in links])
    return [_body(call, link, *clicks.totals.get(link.code, (0, 0))) for link in links]


def _body(call: Call, link: Link, clicks: int, bots: int) -> dict[str, Any]:
    return {
        "shortUrl": call.context.services.domains.short_url(link.code),
        "shortCode": link.short_code,
        "longUrl": link.url,
        "dateCreated": stamp(link.created_at),
        "tags": list(link.tags),
        "meta": {
            "validSince": link.starts_at and stamp(link.starts_at),
            "validUntil": link.expires_at and stamp(link.expires_at),
            "maxVisits": link.max_clicks,
        },
        "domain": call.authority(link.domain),
        "title": link.title,
        "crawlable": False,
        "forwardQuery": link.forward_query,
        "visitsSummary": summary(clicks, bots),
        "hasRedirectRules": link.rules is not None,
    }


async def _answer(call: Call, link: Link) -> HTTPResponse:
    return call.answer((await bodies_of(call, [link]))[0])


# -- create ------------------------------------------------------------------------------------------------------


async def create_short_url(call: Call) -> HTTPResponse:
    return await _answer(call, await _create(call))


async def shorten_by_get(call: Call) -> HTTPResponse:
    """Shortens a URL by GET: clients that can do no more send their key in the query."""
    call.fields = {"longUrl": call.one("longUrl")}
    link = await _create(call)
    wants_text = call.one("format") == "txt" or "text/plain" in call.context.request.headers.get("accept", "")
    if wants_text:
        text = call.context.services.domains.short_url(link.code)
        return HTTPResponse(text, 200, call.context.headers, "text/plain; charset=utf-8")
    return await _answer(call, link)


async def _create(call: Call) -> Link:
    """Creates a link, or finds one. Raises Forbidden, Invalid, AliasTaken, Unavailable, OutcomeUnknown."""
    draft, length = draft_from(call), made_up_length(call)
    if may_be_found(call):
        require(call.context.key, Right.READ)
        if (found := await _find(call, draft)) is not None:
            return found
    service, key = call.context.services.links, call.context.caller
    if draft.alias is not None:
        call.context.code = key_of(draft.domain or "", draft.alias)  # what a refusal names
    if draft.alias is not None or length is None:
        return await service.create(draft, key.account, None, key.key_id)
    for _ in range(ATTEMPTS):
        draft.alias = random_text(length)
        try:
            return await service.create(draft, key.account, None, key.key_id)
        except AliasTaken:
            continue
    raise Unavailable("no free code was found", is_public=True, retry_after_s=1.0)


async def _find(call: Call, draft: Draft) -> Link | None:
    """Returns the oldest link that does what the draft asks for. Raises Unavailable, Invalid if it takes too long.

    With a code there is one that can be it. Without one the links are searched.
    """
    service = call.context.services.links
    if draft.alias is not None:
        try:
            link = await service.get(key_of(draft.domain or "", draft.alias), call.owner)
        except (NotFound, Gone):
            return None
        return link if _is_as_good(link, draft) else None
    query = LinkQuery(
        owner=call.owner, domain=draft.domain or "", text=draft.url, tags_all=draft.tags,
        order=LinkOrder.CREATED, ascending=True,
    )  # fmt: skip
    after = None
    for _ in range(FIND_READS):
        page = await service.page(query, PAGE_LINKS_MAX, after, strict=True)
        for link in page.links:
            if _is_as_good(link, draft):
                return link
        if (after := page.after) is None:
            return None
    raise invalid("findIfExists", "there are too many links to look for one with this target: leave it out")


def _is_as_good(link: Link, draft: Draft) -> bool:
    """Whether a link leads everybody where the draft would, within the limits that it asks for."""
    wanted = (draft.starts_at, draft.expires_at, draft.max_clicks)
    return (
        link.url == draft.url
        and set(link.tags) == set(draft.tags)
        and all(
            item is None or item == has
            for item, has in zip(wanted, (link.starts_at, link.expires_at, link.max_clicks), strict=True)
        )
        and link.enabled
        and link.password_hash is None
        and link.rules is None
    )


# -- one link ----------------------------------------------------------------------------------------------------


async def show_short_url(call: Call) -> HTTPResponse:
    return await _answer(call, await call.context.services.links.get(call.context.code, call.owner))


async def edit_short_url(call: Call) -> HTTPResponse:
    service, key = call.context.services.links, call.context.code
    for attempt in range(ATTEMPTS):
        link = await service.get(key, call.owner)
        patch = patch_from(call, link)
        if patch is None:
            break
        try:
            link = await service.change(key, patch, link.version, call.owner, call.by)
            break
        except VersionMismatch:
            if attempt == ATTEMPTS - 1:
                raise
    return await _answer(call, link)


async def delete_short_url(call: Call) -> HTTPResponse:
    await call.context.services.links.delete(call.context.code, None, call.owner, call.by)
    return call.done()
