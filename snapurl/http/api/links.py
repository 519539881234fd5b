"""Handlers of links: create, bulk create, read, change, delete, rename."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import partial
from typing import Any

from sanic import HTTPResponse

from snapurl.domains import Domains
from snapurl.errors import FieldError, Forbidden, Invalid, SnapURLError
from snapurl.http.api.keys import account_in_body
from snapurl.http.auth import owner_filter
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import header_error, query_error
from snapurl.http.problems import as_refusal
from snapurl.http.rate_limits import client_of, count_links
from snapurl.http.schema.keys import TransferBody
from snapurl.http.schema.requests import Bulk, LinkChange, Rename, Rules, check, draft_of
from snapurl.http.schema.responses import link_body, problem
from snapurl.http.schema.route import address_of_link
from snapurl.model import Draft, IdempotencyKey, Link

KEY_CHARS_MAX = 255

_IF_MATCH = re.compile(r'("?)([1-9][0-9]{0,17})\1')
_IDEMPOTENCY_KEY = re.compile(rf"[\x21-\x7e]{{1,{KEY_CHARS_MAX}}}")


# -- create ------------------------------------------------------------------------------------------------------


async def create_link(call: RequestContext) -> HTTPResponse:
    key = _idempotency_key(call)
    # A repeat may arrive after the expiry that it asks for: the service then checks whether it is a repeat.
    draft = draft_of(call.value, call.rules(allow_expired=key is not None))
    await _check_account(call, draft)
    link = await call.services.links.create(draft, _owner(call), key, _by(call))
    call.headers["location"] = address_of_link(link.code)
    return _answer(call, link, 201)


async def create_links(call: RequestContext) -> HTTPResponse:
    assert call.bound is not None
    items: list[Any] = check(Bulk, call.value, call.rules()).links
    if len(items) > call.bound.links:
        raise Invalid(fields=(FieldError("/links", f"must have at most {call.bound.links} items here"),))
    key = _idempotency_key(call)
    await count_links(call, len(items))
    rules = call.rules(allow_expired=key is not None)
    drafts, results = await call.run(partial(_checked, items, rules))
    await _refuse_accounts(call, drafts, results)
    made = await call.services.links.create_many(
        list(drafts.values()), _owner(call), _item_keys(key, list(drafts)), _by(call)
    )
    domains = call.services.domains

    def respond() -> HTTPResponse:
        for place, outcome in zip(drafts, made, strict=True):
            results[place] = _result(outcome, domains)
        return call.json_response({"results": results})

    return await call.run(respond)


def _checked(items: Sequence[Any], rules: Rules) -> tuple[dict[int, Draft], list[dict[str, Any] | None]]:
    """Returns the drafts by their place, and a list with the refusals of all other items in their places."""
    results: list[dict[str, Any] | None] = [None] * len(items)
    drafts: dict[int, Draft] = {}
    for place, item in enumerate(items):
        try:
            drafts[place] = draft_of(item, rules)
        except Invalid as refusal:
            results[place] = _refused(refusal)
    return drafts, results


async def _refuse_accounts(
    call: RequestContext, drafts: dict[int, Draft], results: list[dict[str, Any] | None]
) -> None:
    """Takes the drafts that name an account which they may not out of `drafts`, and sets their results."""
    verdicts: dict[str, SnapURLError | None] = {}
    for place, draft in list(drafts.items()):
        if draft.account is None:
            continue
        if draft.account not in verdicts:
            verdicts[draft.account] = None
            try:
                await _check_account(call, draft)
            except SnapURLError as refusal:
                verdicts[draft.account] = refusal
        if (verdict := verdicts[draft.account]) is not None:
            del drafts[place]
            results[place] = _refused(verdict)


async def _check_account(call: RequestContext, draft: Draft) -> None:
    """Checks that the client may create links for the account that the draft names, if it names one.

    Raises Forbidden, Invalid, Unavailable.
    """
    if draft.account is None or draft.account == _owner(call):
        return
    if call.key is None or not call.key.is_admin:
        raise Forbidden("only an admin key may create links for another account")
    await account_in_body(call, draft.account)


def _idempotency_key(call: RequestContext) -> IdempotencyKey | None:
    key = call.request.headers.get("idempotency-key")
    if key is None:
        return None
    if not _IDEMPOTENCY_KEY.fullmatch(key):
        raise header_error("idempotency-key", f"must be 1 to {KEY_CHARS_MAX} visible ASCII characters")
    return IdempotencyKey(client_of(call), key)


def _item_keys(key: IdempotencyKey | None, places: Sequence[int]) -> list[IdempotencyKey] | None:
    """Returns one key per item. Their scope is not that of single creates, so no key can be in both."""
    if key is None:
        return None
    return [IdempotencyKey(f"bulk:{key.scope}", f"{key.key}#{place}") for place in places]


def _owner(call: RequestContext) -> str:
    return call.key.account if call.key is not None else ""


def _by(call: RequestContext) -> str:
    """Returns the key_id of the caller's API key, "" if the request is anonymous."""
    return call.key.key_id if call.key is not None else ""


def _result(outcome: Link | SnapURLError, domains: Domains) -> dict[str, Any]:
    if isinstance(outcome, Link):
        return {"status": 201, "link": link_body(outcome, domains)}
    return _refused(outcome)


def _refused(refusal: SnapURLError) -> dict[str, Any]:
    return {"status": as_refusal(refusal).status, "error": problem(refusal)}


# -- one link ----------------------------------------------------------------------------------------------------


async def read_link(call: RequestContext) -> HTTPResponse:
    return _answer(call, await call.services.links.get(call.code, owner_filter(call.caller)))


async def change_link(call: RequestContext) -> HTTPResponse:
    if_match = _if_match(call)
    patch = check(LinkChange, call.value, call.rules()).as_patch()
    link = await call.services.links.change(call.code, patch, if_match, owner_filter(call.caller), _by(call))
    return _answer(call, link)


async def delete_link(call: RequestContext) -> HTTPResponse:
    await call.services.links.delete(call.code, _if_match(call), owner_filter(call.caller), _by(call))
    return HTTPResponse(None, 204, call.headers)


async def transfer_link(call: RequestContext) -> HTTPResponse:
    if_match = _if_match(call)
    account = await account_in_body(call, check(TransferBody, call.value, call.rules()).account)
    link = await call.services.links.transfer(call.code, account, if_match, call.caller.key_id)
    return _answer(call, link)


async def restore_link(call: RequestContext) -> HTTPResponse:
    return _answer(
        call,
        await call.services.links.restore(call.code, _if_match(call), owner_filter(call.caller), _by(call)),
    )


async def fetch_title(call: RequestContext) -> HTTPResponse:
    await count_links(call, 1)
    link = await call.services.links.fetch_title(call.code, owner_filter(call.caller), _by(call))
    return _answer(call, link)


async def rename_link(call: RequestContext) -> HTTPResponse:
    if_match = _if_match(call)
    asked = check(Rename, call.value, call.rules())
    if call.strange_domain:
        raise query_error("domain", call.services.domains.refusal())
    await count_links(call, 1)
    link = await call.services.renames.rename(
        call.code,
        asked.code,
        gives_up=asked.old == "give-up",
        if_match=if_match,
        owner=owner_filter(call.caller),
        by=_by(call),
    )
    call.headers["location"] = address_of_link(link.code)
    return _answer(call, link)


def _if_match(call: RequestContext) -> int | None:
    """Returns the version that the link must have; None for any."""
    text = call.request.headers.get("if-match", "*").strip()
    if text == "*":
        return None
    match = _IF_MATCH.fullmatch(text)
    if match is None:
        raise header_error("if-match", 'must be one version, as in "3", or *')
    return int(match[2])


def _answer(call: RequestContext, link: Link, status: int = 200) -> HTTPResponse:
    call.headers["etag"] = f'"{link.version}"'
    return call.json_response(link_body(link, call.services.domains), status)
