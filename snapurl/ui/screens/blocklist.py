"""Blocked hosts: how the list is, a URL to try, and the links to blocked hosts, to be switched off."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.codes import is_key
from snapurl.errors import SnapURLError
from snapurl.http.api.blocklist import ALL_LINKS, blocked_links, verdict
from snapurl.http.api.cursors import write_cursor
from snapurl.http.api.lists import described
from snapurl.http.schema.blocklist import UrlToTry
from snapurl.http.schema.requests import check
from snapurl.link_batches import LINKS_MAX, BatchAction, BatchChange
from snapurl.model import Link
from snapurl.ui.call import Call
from snapurl.ui.forms import errors_by_field, sentence
from snapurl.ui.selection import BatchOutcome

READS_MAX = 10  # of the next links, per page
FOUND_ENOUGH = 50  # links to blocked hosts, after which a page ends


async def show(call: Call) -> HTTPResponse:
    return _page(call)


async def try_typed(call: Call) -> HTTPResponse:
    """Says whether a link may lead to the URL that was typed."""
    url = check(UrlToTry, {"url": call.form.get("url", "").strip()}, call.context.rules()).url
    refusal = await verdict(call.context, url)
    return _page(call, tried=url, why=refusal.fields[0].detail if refusal else "")


async def try_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    errors = errors_by_field(refusal)
    return _page(call, refusal.status, errors=errors, fault="" if errors else sentence(refusal))


def _page(
    call: Call,
    status: int = 200,
    *,
    tried: str = "",
    why: str = "",
    errors: Mapping[str, str] | None = None,
    fault: str = "",
) -> HTTPResponse:
    targets = call.services.targets
    return call.page(
        "blocklist.html",
        status,
        blocklist=targets.blocklist,
        faults=targets.faults,
        typed=call.form.get("url", ""),
        tried=tried,
        why=why,
        errors=errors or {},
        fault=fault,
    )


async def show_blocked(call: Call) -> HTTPResponse:
    return await _found(call, call.query.get("cursor", ""))


async def _found(call: Call, cursor: str, outcome: BatchOutcome | None = None) -> HTTPResponse:
    """Shows the links to blocked hosts among the next links, by code."""
    found: list[Link] = []
    place, read, is_complete = cursor, 0, True
    for _ in range(READS_MAX):
        page, blocked = await blocked_links(call.context, place or None)
        found += [link for link, _ in blocked]
        read, is_complete = read + len(page.links), is_complete and not page.silent
        place = write_cursor(page.after, described(ALL_LINKS)) if page.after else ""
        if not place or len(found) >= FOUND_ENOUGH:
            break
    return call.page(
        "blocked_links.html",
        links=found,
        enabled=[link.code for link in found if link.enabled],
        used={},
        read=read,
        cursor=cursor,
        more=f"/ui/blocklist/links?{urlencode({'cursor': place})}" if place else "",
        is_complete=is_complete,
        outcome=outcome,
        now=call.services.clock(),
    )


async def disable(call: Call) -> HTTPResponse:
    """Switches the links of a page off, and shows the page again."""
    codes = list(filter(is_key, call.form.get("codes", "").split()))[:LINKS_MAX]
    results = await call.services.batches.change(
        BatchChange(BatchAction.DISABLE), codes, None, call.user.key_id
    )
    return await _found(call, call.form.get("cursor", ""), BatchOutcome.of("disable", results))
