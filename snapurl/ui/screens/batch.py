"""Changes the links that are ticked in the list, or all that it finds, and shows the list with the results."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sanic import HTTPResponse

from snapurl.errors import Invalid, SnapURLError, Unavailable
from snapurl.http.api.cursors import write_cursor
from snapurl.http.api.lists import described, read_place
from snapurl.http.auth import owner_filter
from snapurl.http.schema.batches import LinkBatch
from snapurl.http.schema.requests import check
from snapurl.link_batches import LINKS_MAX
from snapurl.ui.call import Call
from snapurl.ui.forms import errors_by_field, sentence
from snapurl.ui.retries import retry_of
from snapurl.ui.screens.links import STATES, all_of, asked_of, list_page, place_of
from snapurl.ui.selection import ACTIONS, BatchOutcome, Selection


async def change(call: Call) -> HTTPResponse:
    """Changes links: those that are ticked at once, all that a list finds once their number is confirmed."""
    selection = Selection.of_form(call.form)
    if selection.action not in ACTIONS:
        raise Invalid("choose what to do with the links")
    if selection.is_all:
        return await _change_found(call, selection)
    if not selection.codes:
        raise Invalid("no link is ticked: tick those that you mean")
    if len(selection.codes) > LINKS_MAX:
        raise Invalid(f"at most {LINKS_MAX:,} links can be changed at once")
    # The API takes codes of one domain, and the list has links of several.
    asked = check(LinkBatch, selection.body() | {"codes": ["any"]}, call.context.rules())
    results = await call.services.batches.change(
        asked.as_batch(), selection.codes, owner_filter(call.user), call.user.key_id
    )
    return await list_page(call, asked_of(call.form), outcome=BatchOutcome.of(selection.action, results))


async def _change_found(call: Call, selection: Selection) -> HTTPResponse:
    """Changes the next links of a list; the first ones only if the form says how many links the list has."""
    asked = check(LinkBatch, selection.body() | _list_of(call.form), call.context.rules())
    query = asked.query(owner_filter(call.user))
    if asked.cursor is None:
        count = await call.services.links.count(query)
        if count is None:
            raise Unavailable("some links cannot be reached now", is_public=True, retry_after_s=1.0)
        if count.is_estimate:
            raise Invalid("more than 10,000 links fit: narrow the list first")
        if count.links != asked.confirm:
            filters = asked_of(call.form)
            return call.page(
                "batch.html",
                ask=ACTIONS[selection.action].ask,
                selection=selection,
                count=count.links,
                is_other=asked.confirm is not None,
                asked=all_of(filters),
                place=place_of(filters),
                states=dict(STATES),
            )
    after = read_place(asked.cursor, query) if asked.cursor else None
    page = await call.services.batches.change_found(asked.as_batch(), query, after, call.user.key_id)
    following = write_cursor(page.after, described(query)) if page.after else ""
    outcome = BatchOutcome.of_page(selection.action, page, _done_before(call.form), following)
    return await list_page(call, asked_of(call.form), outcome=outcome, selection=selection)


def _list_of(form: Mapping[str, str]) -> dict[str, Any]:
    """Returns the filter of a batch, and whether to count, begin or go on."""
    given = asked_of(form)
    found: dict[str, Any] = {name: given[name] for name in ("q", "state") if name in given}
    if "tag" in given:
        found["tags_all"] = [given["tag"]]
    if cursor := form.get("cursor"):
        return {"filter": found, "cursor": cursor}
    confirmed = form.get("confirm", "")
    way = {"confirm": int(confirmed)} if confirmed.isdecimal() and len(confirmed) < 9 else {"dry_run": True}
    return {"filter": found, **way}


def _done_before(form: Mapping[str, str]) -> int:
    text = form.get("done", "")
    return int(text) if text.isdecimal() and len(text) < 9 else 0


async def change_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the list of a batch that was refused, with what was ticked and typed."""
    error = errors_by_field(refusal).get("tags", "")
    return await list_page(
        call,
        asked_of(call.form),
        refusal.status,
        selection=Selection.of_form(call.form),
        batch_error=error,
        batch_fault="" if error else sentence(refusal),
        retry=retry_of(refusal, call.form),
    )
