"""Handlers of tags and domains."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sanic import HTTPResponse

from snapurl.errors import Unavailable
from snapurl.http.schema.requests import TAG_CHARS_MAX, read_words
from snapurl.http.shlink.call import Call, pagination, summary
from snapurl.http.shlink.problems import ShlinkProblem, invalid
from snapurl.http.shlink.visits import require_tag
from snapurl.link_batches import LINKS_MAX, BatchAction, BatchChange
from snapurl.model import Link, LinkOrder, LinkQuery, Scope, TagCount

TAGS_MAX = 1_000  # that are listed: those with the most links
REDIRECTS = ("baseUrlRedirect", "regular404Redirect", "invalidShortUrlRedirect")

_NAME_ORDERS = {"tag": "tag"}
_ORDERS = {**_NAME_ORDERS, "shortUrlsCount": "", "visits": "", "nonBotVisits": ""}


# -- tags --------------------------------------------------------------------------------------------------------


async def list_tag_names(call: Call) -> HTTPResponse:
    order = call.order(_NAME_ORDERS, "tag-ASC")
    tags = [item.tag for item in await _tags(call)]
    tags.sort(reverse=not order[1])
    return _answer(call, tags)


async def tag_stats(call: Call) -> HTTPResponse:
    order, ascending = call.order(_ORDERS, "tag-ASC")
    tags, owner = await _tags(call), call.owner
    prefix = "" if owner is None else f"{owner}/"
    scope = Scope.TAG if owner is None else Scope.ACCOUNT_TAG
    found = await call.context.services.statistics.totals_of_groups(
        scope, [prefix + item.tag for item in tags]
    )
    if found.silent:
        raise _missing()
    data: list[dict[str, Any]] = [
        {
            "tag": item.tag,
            "shortUrlsCount": item.links,
            "visitsSummary": summary(*found.totals.get(prefix + item.tag, (0, 0))),
        }
        for item in tags
    ]
    visits = {"visits": "total", "nonBotVisits": "nonBots"}.get(order)
    data.sort(
        key=lambda item: (item["visitsSummary"][visits] if visits else item[order], item["tag"]),
        reverse=not ascending,
    )
    return _answer(call, data)


async def _tags(call: Call) -> list[TagCount]:
    """Returns the tags that are asked for. Raises Unavailable if some are missing."""
    found = await call.context.services.links.tags(call.owner, "", TAGS_MAX)
    if found.silent:
        raise _missing()
    text = (call.one("searchTerm") or "").lower()
    return [item for item in found.tags if text in item.tag.lower()]


def _answer(call: Call, data: Sequence[Any]) -> HTTPResponse:
    page, size = call.page(TAGS_MAX, TAGS_MAX)
    rows = data[(page - 1) * size : page * size]
    return call.answer({"tags": {"data": rows, "pagination": pagination(len(data), page, size, len(rows))}})


async def edit_tag(call: Call) -> HTTPResponse:
    old, new = (_name(call, name) for name in ("oldName", "newName"))
    if old == new:
        return call.done()
    service = call.context.services.links
    await require_tag(call, old)
    there = await service.count(LinkQuery(owner=call.owner, tags_any=(new,)))
    if there is not None and there.links:
        raise ShlinkProblem(
            409,
            "tag-conflict",
            "Tag conflict",
            "There are links with the new name.",
            oldName=old,
            newName=new,
        )
    return await _retag(call, (old,), (new,))


async def delete_tags(call: Call) -> HTTPResponse:
    return await _retag(call, call.many("tags"), ()) if call.many("tags") else call.done()


def _name(call: Call, name: str) -> str:
    value = call.fields.get(name)
    if isinstance(value, tuple):  # of a form
        value = value[-1]
    try:
        if not isinstance(value, str):
            raise ValueError("is required")
        return read_words(value.strip(), TAG_CHARS_MAX)
    except ValueError as error:
        raise invalid(name, str(error)) from None


async def _retag(call: Call, remove: tuple[str, ...], add: tuple[str, ...]) -> HTTPResponse:
    """Changes all links that have one of the tags.

    Raises Invalid if there are too many, Unavailable if not all were changed.
    """
    services = call.context.services
    query = LinkQuery(owner=call.owner, tags_any=remove, order=LinkOrder.CODE, ascending=True)
    count = await services.links.count(query)
    if count is not None and count.links > LINKS_MAX:
        often = f"more than {LINKS_MAX} links have it: change them by the API of this service, in several requests"
        raise invalid("oldName" if add else "tags", often)
    change = BatchChange(BatchAction.TAGS, remove, add)
    page = await services.batches.change_found(change, query, None, call.by)
    if page.silent or not all(isinstance(outcome, Link) for _, outcome in page.results):
        partly = "not all links were changed: change the rest by the API of this service"
        raise Unavailable(partly, is_public=True, retry_after_s=1.0)
    return call.done()


def _missing() -> Unavailable:
    return Unavailable("some links cannot be reached now", is_public=True, retry_after_s=1.0)


# -- domains -----------------------------------------------------------------------------------------------------


async def list_domains(call: Call) -> HTTPResponse:
    domains = call.context.services.domains
    redirects = dict.fromkeys(REDIRECTS)
    data = [
        {"domain": name + domains.port, "isDefault": name == domains.default, "redirects": redirects}
        for name in domains.names
    ]
    return call.answer({"domains": {"data": data, "defaultRedirects": redirects}})


async def edit_redirects(call: Call) -> HTTPResponse:
    """Takes redirects of a domain only away: there are none here."""
    domain = call.fields.get("domain")
    if not isinstance(domain, str) or not domain:
        raise invalid("domain", "is required")
    if not call.context.services.domains.has(call.domain(domain) or ""):
        raise ShlinkProblem(
            404, "domain-not-found", "Domain not found", "This service has no such domain.", authority=domain
        )
    for name in REDIRECTS:
        if call.fields.get(name):
            raise invalid(name, "there are no such redirects here: a missing link is answered with 404")
    return call.answer(dict.fromkeys(REDIRECTS))
