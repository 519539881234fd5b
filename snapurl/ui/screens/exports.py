"""Exports: the links that a list finds, or their clicks by day, as a file that is made while it is sent.

An export is whole or it fails. A page of links is refused while a shard is silent, and asked for again a bounded
number of times.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, TypeVar

from sanic import HTTPResponse

from snapurl.errors import Forbidden, NoSuchAddress, NotFound, Unavailable
from snapurl.http.auth import owner_filter
from snapurl.http.schema.responses import link_body
from snapurl.http.schema.statistics import link_stats_body
from snapurl.link_exports import COLUMNS, DAYS, SHLINK, day_rows, link_row, rows_text, shlink_row
from snapurl.model import Link, LinkOrder, LinkQuery, ListedLinks, Right
from snapurl.periods import DateRange
from snapurl.ui.call import Call
from snapurl.ui.screens.links import asked_of, list_query

PAGE_LINKS = 200
REPORTS_AT_ONCE = 8  # statistics of links of a page
ATTEMPTS = 6  # at a page whose shard does not answer
PAUSE_S = 0.5  # before the second attempt; it doubles with each

T = TypeVar("T")

Bodies = Sequence[tuple[Mapping[str, Any], Mapping[str, Any]]]
"""Links as the API has them, each with its statistics, which are empty unless they are exported."""


@dataclass(frozen=True, slots=True)
class Format:
    """A format of exports: the name of the file, its header, and the text of a page of links."""

    file: str
    media: str
    header: Sequence[str]
    text: Callable[[Bodies], str]
    has_days: bool = False


CSV = "text/csv; charset=utf-8"
FORMATS = {
    "csv": Format("links.csv", CSV, COLUMNS, lambda page: rows_text(link_row(link) for link, _ in page)),
    "shlink": Format(
        "short_urls.csv", CSV, SHLINK, lambda page: rows_text(shlink_row(link) for link, _ in page)
    ),
    "jsonl": Format(
        "links.jsonl",
        "application/jsonl; charset=utf-8",
        (),
        lambda page: "".join(f"{json.dumps(link, ensure_ascii=False)}\n" for link, _ in page),
    ),
    "days": Format(
        "clicks.csv",
        CSV,
        DAYS,
        lambda page: rows_text(row for link, stats in page for row in day_rows(link, stats)),
        has_days=True,
    ),
}


async def save(call: Call) -> HTTPResponse:
    """Sends the links of a list, oldest first. A refusal comes before anything is sent."""
    wanted = FORMATS.get(call.path["format"])
    if wanted is None:
        raise NoSuchAddress("nothing is at this address")
    query = replace(list_query(call, asked_of(call.query)), order=LinkOrder.CREATED, ascending=True)
    first = await call.services.links.page(query, PAGE_LINKS, strict=True)
    return call.download(wanted.file, wanted.media, _parts(call, wanted, query, first))


async def _parts(call: Call, wanted: Format, query: LinkQuery, page: ListedLinks) -> AsyncIterator[str]:
    """Yields the text of each page. Raises Unavailable, Forbidden once the key is revoked."""
    if wanted.header:
        yield rows_text([wanted.header])
    while True:
        bodies = await _bodies(call, wanted, page.links)
        if text := await _patiently(call, partial(call.context.in_thread, partial(wanted.text, bodies))):
            yield text
        if page.after is None:
            return
        following = partial(call.services.links.page, query, PAGE_LINKS, page.after, strict=True)
        page = await _patiently(call, following)


async def _patiently(call: Call, ask: Callable[[], Awaitable[T]]) -> T:
    """Asks in turn with all other requests, and again while a shard is silent. Raises Unavailable, Forbidden."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            async with call.context.request.app.ctx.fair_queue.permit(call.context.address):
                if not await call.still_may(Right.READ):
                    raise Forbidden("the key may no longer read these links")
                return await ask()
        except Unavailable:
            if attempt == ATTEMPTS:
                raise
            await asyncio.sleep(PAUSE_S * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


async def _bodies(call: Call, wanted: Format, found: Sequence[Link]) -> Bodies:
    bodies = [link_body(link, call.services.domains) for link in found]
    if not wanted.has_days:
        return [(body, {}) for body in bodies]
    stats: list[Mapping[str, Any] | None] = []
    for start in range(0, len(found), REPORTS_AT_ONCE):
        part = found[start : start + REPORTS_AT_ONCE]
        asked = (partial(_stats, call, link.code) for link in part)
        stats += await asyncio.gather(*(_patiently(call, each) for each in asked))
    return [(body, each) for body, each in zip(bodies, stats, strict=True) if each is not None]


async def _stats(call: Call, code: str) -> Mapping[str, Any] | None:
    """Returns what the API says of the clicks of a link; None if the link has just gone to another account."""
    try:
        report = await call.services.statistics.of_link(code, owner_filter(call.user), DateRange())
    except NotFound:
        return None
    return link_stats_body(code, report)
