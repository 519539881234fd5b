"""The actions: shorten a URL, expand a short one, and tell what was counted."""

from __future__ import annotations

import random
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC
from typing import Any

from snapurl.codes import is_code, key_of, random_code
from snapurl.errors import AliasTaken, Gone, Invalid, NotFound, SnapURLError, Unavailable
from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import counted_miss
from snapurl.http.offsets import PageEnds
from snapurl.http.schema.requests import TITLE_CHARS_MAX, draft_of
from snapurl.http.yourls.formats import Said
from snapurl.model import Link, LinkOrder, LinkQuery, PageKey, Right, Scope
from snapurl.urls import UrlRefused, origin_of

YOURLS_VERSION = "1.10.4"
LISTED_MAX = 500  # links of `stats`

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\ud800-\udfff]+")


@dataclass(slots=True)
class Call:
    """One request, whose key is known. `parameters` are those of the query and of the body together."""

    context: RequestContext
    page_ends: PageEnds
    parameters: Mapping[str, str]

    @property
    def owner(self) -> str | None:
        """The account whose links the key reaches, None for all."""
        return owner_filter(self.context.caller)

    def text(self, name: str) -> str:
        return self.parameters.get(name, "").strip()

    def number(self, name: str) -> int:
        """Returns a whole number, 0 for anything else."""
        text = self.text(name)
        return int(text) if re.fullmatch(r"[0-9]{1,9}", text, re.ASCII) else 0


Action = Callable[[Call], Awaitable[Said]]


# -- shorten -----------------------------------------------------------------------------------------------------


async def shorten(call: Call) -> Said:
    url, services, key = call.text("url"), call.context.services, call.context.caller
    if not url:
        return failed("error:nourl", "Missing or malformed URL")
    url = url if _SCHEME.match(url) else f"http://{url}"
    title = _UNPRINTABLE.sub(" ", call.text("title"))[:TITLE_CHARS_MAX]
    value = {"url": url, "alias": call.text("keyword") or None, "title": title or None}
    try:
        draft = draft_of(value, call.context.rules())
        link = await services.links.create(draft, key.account, None, key.key_id)
    except AliasTaken:
        return _keyword_refused(call, "is taken")
    except Invalid as refusal:
        field = refusal.fields[0]
        if field.pointer == "/alias":
            return _keyword_refused(call, field.detail)
        if _is_own(url, call):
            return failed("error:noloop", "URL is a short URL")
        return failed("error:nourl", f"Missing or malformed URL: it {field.detail}")
    short = services.domains.short_url(link.code)
    members = {
        "status": "success",
        "code": "",
        "message": f"{link.url} added to database",
        "errorCode": "",
        "statusCode": "200",
        "url": {
            "keyword": link.short_code,
            "url": link.url,
            "title": _title(link),
            "date": _date(link),
            "ip": "",
        },
        "title": _title(link),
        "shorturl": short,
    }
    return Said(members, short)


def _keyword_refused(call: Call, why: str) -> Said:
    return failed("error:keyword", f"Short URL {call.text('keyword')[:100]} {why}")


def failed(code: str, message: str, status: int = 400) -> Said:
    """Returns why no short URL was made."""
    members = {
        "status": "fail",
        "code": code,
        "message": message,
        "errorCode": str(status),
        "statusCode": str(status),
    }
    return Said(members, "")


def _is_own(url: str, call: Call) -> bool:
    try:
        return origin_of(url) in call.context.services.urls.own
    except UrlRefused:
        return False


# -- one short URL -----------------------------------------------------------------------------------------------


async def expand(call: Call) -> Said:
    link = await _find(call)
    if link is None:
        refusal = _missing()
        return Said({"keyword": call.text("shorturl")[:200], **refusal}, "not found")
    members = {
        "keyword": link.short_code,
        "shorturl": call.context.services.domains.short_url(link.code),
        "longurl": link.url,
        "title": _title(link),
        "message": "success",
        "statusCode": "200",
    }
    return Said(members, link.url)


async def url_stats(call: Call) -> Said:
    link = await _find(call)
    if link is None:
        return Said(_missing())
    return Said({"statusCode": "200", "message": "success", "link": _counted(call, link)})


async def _find(call: Call) -> Link | None:
    """Returns the link of a keyword or a short URL, None if there is none. Raises RateLimited, Unavailable."""
    context = call.context
    key = _key_of(call.text("shorturl"), call)
    context.code = key or ""
    try:
        if key is None:
            raise NotFound()
        return await context.services.links.get(key, call.owner)
    except Gone:
        return None
    except NotFound as error:
        refusal: SnapURLError = await counted_miss(context, error)
        if isinstance(refusal, NotFound):
            return None
        raise refusal from None


def _key_of(text: str, call: Call) -> str | None:
    """Returns the key of a keyword, or of a short URL with or without its scheme. None if it is neither."""
    domains = call.context.services.domains
    host, slash, code = re.sub(r"\A[A-Za-z]+://", "", text).partition("/")
    if not slash:
        return host if is_code(host) else None
    code = re.split(r"[?#/]", code, maxsplit=1)[0]
    try:
        domain = domains.find(re.sub(r":[0-9]{1,5}\Z", "", host))
    except UrlRefused:
        return None
    return key_of(domain, code) if is_code(code) and domains.has(domain) else None


def _missing() -> dict[str, str]:
    message = "Error: short URL not found"
    return {"code": "error:notfound", "message": message, "errorCode": "404", "statusCode": "404"}


# -- statistics --------------------------------------------------------------------------------------------------


async def list_stats(call: Call) -> Said:
    limit = call.number("limit")
    if limit > LISTED_MAX:
        return Said(
            {"errorCode": "400", "message": f"limit: at most {LISTED_MAX}, and then the next with start"}
        )
    members: dict[str, Any] = {}
    if limit:
        links = await _listed(call, limit)
        if links:
            members["links"] = {f"link_{place}": _counted(call, link) for place, link in enumerate(links, 1)}
    return Said({**members, "stats": await _totals(call), "statusCode": "200", "message": "success"})


async def _listed(call: Call, limit: int) -> list[Link]:
    """Returns the links that a filter asks for. Raises Invalid, Unavailable."""
    service, query = call.context.services.links, LinkQuery(owner=call.owner)
    match call.text("filter"):
        case "last":
            pass
        case "bottom":
            query = replace(query, order=LinkOrder.CLICKS, ascending=True)
        case "rand" | "random":
            return await _random(call, limit)
        case _:
            query = replace(query, order=LinkOrder.CLICKS)
    return (await call.page_ends.page(service, query, call.number("start"), limit)).links


async def _random(call: Call, limit: int) -> list[Link]:
    """Returns links at random: those that follow a random code, in any order."""
    service = call.context.services.links
    query = LinkQuery(owner=call.owner, order=LinkOrder.CODE, ascending=True)
    links = (await service.page(query, limit, PageKey(None, random_code()), strict=True)).links
    if len(links) < limit:
        known = {link.code for link in links}
        first = (await service.page(query, limit - len(links), strict=True)).links
        links += [link for link in first if link.code not in known]
    random.shuffle(links)
    return links


async def db_stats(call: Call) -> Said:
    return Said({"db-stats": await _totals(call), "statusCode": "200", "message": "success"})


async def _totals(call: Call) -> dict[str, int]:
    """Returns how many links there are that the key reaches, and their clicks. Raises Unavailable."""
    services, owner = call.context.services, call.owner
    count = await services.links.count(LinkQuery(owner=owner))
    scope, keys = (Scope.DOMAIN, None) if owner is None else (Scope.ACCOUNT, [owner])
    found = await services.statistics.totals_of_groups(scope, keys)
    if count is None or found.silent:
        raise Unavailable("some links cannot be reached now", is_public=True, retry_after_s=1.0)
    return {"total_links": count.links, "total_clicks": sum(clicks for clicks, _ in found.totals.values())}


def _counted(call: Call, link: Link) -> dict[str, Any]:
    return {
        "shorturl": call.context.services.domains.short_url(link.code),
        "url": link.url,
        "title": _title(link),
        "timestamp": _date(link),
        "ip": "",
        "clicks": link.clicks,
    }


def _title(link: Link) -> str:
    """Returns the title. Clients want one: without it, the target, as YOURLS has it if a page has none."""
    return link.title or link.url


def _date(link: Link) -> str:
    return link.created_at.astimezone(UTC).strftime("%Y-%m-%d %H:%M:%S")


# -- the service -------------------------------------------------------------------------------------------------


async def version(call: Call) -> Said:
    own = {"version": YOURLS_VERSION}
    if call.text("db") == "1":
        own["db_version"] = call.context.services.site.version
    return Said(own, YOURLS_VERSION)


async def unknown(_: Call) -> Said:
    return Said({"errorCode": "400", "message": 'Unknown or missing "action" parameter'})


ACTIONS: Mapping[str, tuple[Action, Right | None]] = {
    "shorturl": (shorten, Right.CREATE),
    "expand": (expand, Right.READ),
    "url-stats": (url_stats, Right.READ),
    "stats": (list_stats, Right.READ),
    "db-stats": (db_stats, Right.READ),
    "version": (version, None),
}
UNKNOWN: tuple[Action, Right | None] = unknown, None
