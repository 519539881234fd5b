"""The list of links: search, filters, order, and the form that changes the links that are ticked."""

from __future__ import annotations

from collections.abc import Mapping
from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.errors import Invalid, Unavailable
from snapurl.http.api.cursors import write_cursor
from snapurl.http.api.lists import described, read_place, read_query
from snapurl.http.auth import owner_filter
from snapurl.model import LinkOrder, LinkQuery, LinkState, ListedLinks
from snapurl.ui.call import Call
from snapurl.ui.forms import key_in_path
from snapurl.ui.retries import NO_RETRY, PAUSE_S_MIN, Retry
from snapurl.ui.selection import FILTERS, BatchOutcome, Selection

PAGE_LINKS = 25
STATES = (
    ("", "All links"),
    (LinkState.LIVE, "Live"),
    (LinkState.SCHEDULED, "Not started"),
    (LinkState.DISABLED, "Switched off"),
    (LinkState.EXPIRED, "Expired"),
    (LinkState.DELETED, "Deleted"),
)
ORDERS = (
    ("", "Newest first"),
    (LinkOrder.CLICKS, "Most clicks"),
    (LinkOrder.CHANGED, "Changed last"),
    (LinkOrder.CODE, "By code"),
)
NOTHING = ListedLinks([], None, ())
RELOAD = Retry(PAUSE_S_MIN, 0)  # of a list that lacks the links of a silent shard
NOTHING_TICKED = Selection("", "", (), is_all=False)


async def show(call: Call) -> HTTPResponse:
    return await list_page(call, asked_of(call.query))


def asked_of(given: Mapping[str, str]) -> dict[str, str]:
    """Returns what a query or a form says of the list, without what is blank."""
    return {name: text for name in FILTERS if (text := given.get(name, "").strip())}


def all_of(asked: Mapping[str, str]) -> dict[str, str]:
    """Returns every parameter of the list, "" for those that are not given."""
    return {name: asked.get(name, "") for name in FILTERS}


def place_of(asked: Mapping[str, str]) -> str:
    """Returns the address of the list."""
    return f"/ui/links?{urlencode(asked)}" if asked else "/ui/links"


async def list_page(
    call: Call,
    asked: Mapping[str, str],
    status: int = 200,
    *,
    selection: Selection = NOTHING_TICKED,
    outcome: BatchOutcome | None = None,
    batch_error: str = "",
    batch_fault: str = "",
    retry: Retry = NO_RETRY,
) -> HTTPResponse:
    """Returns the page of a list.

    `outcome` is what a batch has done, `batch_error` what is wrong with its tags, `batch_fault` with all of it,
    `retry` when it is sent again.
    """
    page, more, fault = NOTHING, "", ""
    is_found = True
    try:
        page, more = await _find(call, asked)
    except Invalid as refusal:
        fault = f"The search cannot be done: {refusal.fields[0].detail}."
    except Unavailable:
        if call.context.request.method == "GET":
            raise
        is_found = False  # what the batch did must be told
    shown = {link.code for link in page.links}
    return call.page(
        "links.html",
        status,
        links=page.links,
        used=await call.services.links.used(page.links),
        more=more,
        is_complete=is_found and not page.silent,
        fault=fault,
        asked=all_of(asked),
        place=place_of(asked),
        is_filtered=bool(asked.keys() - {"sort"}),
        states=STATES,
        orders=ORDERS,
        deleted=key_in_path(call.query.get("deleted", "")),
        now=call.services.clock(),
        once=call.once,
        selection=selection,
        kept=" ".join(code for code in selection.codes if code not in shown),
        outcome=outcome,
        batch_error=batch_error,
        batch_fault=batch_fault,
        retry=retry,
        reload=RELOAD,
    )


def list_query(call: Call, asked: Mapping[str, str]) -> LinkQuery:
    """Returns what a list asks for. Raises Invalid."""
    given = {name: value for name, value in asked.items() if name != "tag"}
    if given.get("sort") == LinkOrder.CODE:
        given["order"] = "asc"
    tags = {"tags_all": (asked["tag"],)} if "tag" in asked else {}
    return read_query(given, tags, owner_filter(call.user), call.services.domains)


async def _find(call: Call, asked: Mapping[str, str]) -> tuple[ListedLinks, str]:
    """Returns a page of links, and where the next one is, "" on the last. Raises Invalid, Unavailable."""
    query = list_query(call, asked)
    cursor = call.query.get("cursor")
    page = await call.services.links.page(query, PAGE_LINKS, read_place(cursor, query) if cursor else None)
    if page.after is None:
        return page, ""
    following = {**asked, "cursor": write_cursor(page.after, described(query))}
    return page, f"/ui/links?{urlencode(following)}"
