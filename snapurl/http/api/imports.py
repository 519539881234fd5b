"""The handler of imports: creates links that come from another service."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from sanic import HTTPResponse

from snapurl.errors import FieldError, Invalid
from snapurl.http.api.keys import account_in_body
from snapurl.http.context import RequestContext
from snapurl.http.problems import as_refusal
from snapurl.http.schema.imports import Import, ImportedVisits, import_of, imported_body, visits_of
from snapurl.http.schema.requests import Rules, check
from snapurl.http.schema.responses import named, problem
from snapurl.model import Draft, Imported, Origin


async def import_links(call: RequestContext) -> HTTPResponse:
    assert call.bound is not None
    asked = check(Import, call.value, call.rules())
    if len(asked.links) > call.bound.links:
        raise Invalid(fields=(FieldError("/links", f"must have at most {call.bound.links} items here"),))
    account = call.caller.account
    if asked.account is not None and asked.account != account:
        account = (await account_in_body(call, asked.account)).account_id
    results = await import_all(call, asked.links, account, is_dry=asked.dry_run)
    if not asked.only_exceptions:
        return call.json_response({"results": results, "places": None})
    reported = {place: result for place, result in enumerate(results) if result["status"] != 201}
    return call.json_response({"results": list(reported.values()), "places": list(reported)})


async def import_all(
    call: RequestContext, items: Sequence[Any], account: str, *, is_dry: bool
) -> list[Mapping[str, Any]]:
    """Imports links for an account. Returns a `LinkImported` or `BulkRefused` per item, in their order."""
    found, results = await call.run(
        partial(_checked, items, call.rules(allow_expired=True), call.services.clock())
    )
    imports, links = call.services.imports, list(found.values())
    made = await (imports.foresee(links) if is_dry else imports.run(links, account, call.caller.key_id))
    for place, outcome in zip(found, made, strict=True):
        results[place] = imported_body(outcome) if isinstance(outcome, Imported) else _refused(outcome)
    return [results[place] for place in range(len(items))]


async def import_visits(call: RequestContext) -> HTTPResponse:
    assert call.bound is not None
    rules = call.rules()
    asked = await call.run(partial(check, ImportedVisits, call.value, rules))
    if len(asked.links) > call.bound.links:
        raise Invalid(fields=(FieldError("/links", f"must have at most {call.bound.links} items here"),))
    found = [visits_of(each, rules) for each in asked.links]
    today = call.services.clock().date()
    if any(day.day > today for _, days in found for day in days):
        raise Invalid(fields=(FieldError("/links", "must not have days in the future"),))
    done = await call.services.imports.visits(dict(found))
    return call.json_response(
        {
            "results": [
                {"status": 200, **named(key)} if (refusal := done[key]) is None else _refused(refusal)
                for key, _ in found
            ]
        }
    )


def _checked(
    items: Sequence[Any], rules: Rules, now: datetime
) -> tuple[dict[int, tuple[Draft, Origin]], dict[int, Mapping[str, Any]]]:
    """Returns the links by their places, and the refusals of all other items by theirs."""
    refused: dict[int, Mapping[str, Any]] = {}
    links: dict[int, tuple[Draft, Origin]] = {}
    for place, item in enumerate(items):
        try:
            links[place] = import_of(item, rules, now)
        except Invalid as refusal:
            refused[place] = _refused(refusal)
    return links, refused


def _refused(refusal: Exception) -> dict[str, Any]:
    known = as_refusal(refusal)
    return {"status": known.status, "error": problem(known)}
