"""Handlers of API keys and accounts."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from sanic import HTTPResponse

from snapurl.accounts import ACCOUNT_ID_PATTERN
from snapurl.errors import FieldError, Invalid, NoSuchAccount, Unavailable
from snapurl.http.api.cursors import read_row_cursor, write_row_cursor
from snapurl.http.context import RequestContext
from snapurl.http.dispatch import query_error
from snapurl.http.rate_limits import api_rate, creation_rate
from snapurl.http.schema.keys import (
    AccountDraft,
    KeyDraft,
    TransferBody,
    account_body,
    account_page,
    key_body,
    key_page,
    me_body,
)
from snapurl.http.schema.requests import check
from snapurl.model import Account, ApiKey, Right, RowKey

PAGE_ROWS_DEFAULT = 50
PAGE_ROWS_MAX = 200


async def me(call: RequestContext) -> HTTPResponse:
    key, settings = call.caller, call.services.settings
    name = await _account_name(call)
    return call.json_response(me_body(key, name, creation_rate(key, settings), api_rate(key, settings)))


async def _account_name(call: RequestContext) -> str | None:
    if call.caller.has_own_account:
        return call.caller.name
    try:
        return (await call.services.accounts.get(call.caller.account)).name
    except Unavailable:
        return None


# -- keys --------------------------------------------------------------------------------------------------------


async def create_key(call: RequestContext) -> HTTPResponse:
    draft = check(KeyDraft, call.value, call.rules())
    account = None if draft.account is None else await account_in_body(call, draft.account)
    plain, key = await call.services.keys.create(
        draft.name, frozenset(map(Right, draft.rights)), draft.limit or "", account, call.caller.key_id
    )
    return call.json_response({**key_body(key), "key": str(plain)}, 201)


async def account_in_body(call: RequestContext, account_id: str) -> Account:
    """Returns the account that the body names as `account`. Raises Invalid if there is none, Unavailable."""
    try:
        return await call.services.accounts.get(account_id)
    except NoSuchAccount:
        raise Invalid(fields=(FieldError("/account", "is not the id of an account"),)) from None


async def list_keys(call: RequestContext) -> HTTPResponse:
    account = call.query.get("account")
    if account is not None and not ACCOUNT_ID_PATTERN.fullmatch(account):
        raise query_error("account", "is not the id of an account")
    limit, before = asked_page(call)
    keys, silent = await call.services.keys.page(limit + 1, before, account)
    return call.json_response(_page_of_keys(keys, limit, silent))


async def revoke_key(call: RequestContext) -> HTTPResponse:
    await call.services.keys.revoke(call.id, call.caller.key_id)
    return HTTPResponse(None, 204, call.headers)


# -- accounts ----------------------------------------------------------------------------------------------------


async def create_account(call: RequestContext) -> HTTPResponse:
    draft = check(AccountDraft, call.value, call.rules())
    account = await call.services.accounts.create(draft.name, call.caller.key_id)
    call.headers["location"] = f"/api/v1/accounts/{account.account_id}"
    return call.json_response(account_body(account), 201)


async def rename_account(call: RequestContext) -> HTTPResponse:
    draft = check(AccountDraft, call.value, call.rules())
    account = await call.services.accounts.rename(call.id, draft.name, call.caller.key_id)
    return call.json_response(account_body(account))


async def list_accounts(call: RequestContext) -> HTTPResponse:
    limit, before = asked_page(call)
    found, silent = await call.services.accounts.page(limit + 1, before)
    ends = [RowKey(account.created_at, account.account_id) for account in found]
    return call.json_response(account_page(found[:limit], next_cursor(ends, limit), silent))


async def read_account(call: RequestContext) -> HTTPResponse:
    account = await call.services.accounts.get(call.id)
    limit, before = asked_page(call)
    keys, silent = await call.services.accounts.members(account.account_id, limit + 1, before)
    return call.json_response({**account_body(account), **_page_of_keys(keys, limit, silent)})


async def transfer_links(call: RequestContext) -> HTTPResponse:
    target = await account_in_body(call, check(TransferBody, call.value, call.rules()).account)
    if target.account_id == call.id:
        raise Invalid(fields=(FieldError("/account", "is the account that has the links"),))
    given, complete, silent = await call.services.accounts.transfer_links(call.id, target, call.caller.key_id)
    return call.json_response({"transferred": given, "complete": complete, "partial": list(silent)})


# -- pages -------------------------------------------------------------------------------------------------------


def asked_page(call: RequestContext) -> tuple[int, RowKey | None]:
    """Returns how many rows the page may have, and where it begins."""
    text, cursor = call.query.get("limit", str(PAGE_ROWS_DEFAULT)), call.query.get("cursor")
    if not re.fullmatch(r"[0-9]{1,3}", text) or not 1 <= int(text) <= PAGE_ROWS_MAX:
        raise query_error("limit", f"must be a number from 1 to {PAGE_ROWS_MAX}")
    return int(text), None if cursor is None else read_row_cursor(cursor)


def _page_of_keys(keys: Sequence[ApiKey], limit: int, silent: Sequence[str]) -> dict[str, Any]:
    ends = [RowKey(key.created_at, key.key_id) for key in keys]
    return key_page(keys[:limit], next_cursor(ends, limit), silent)


def next_cursor(ends: Sequence[RowKey], limit: int) -> str | None:
    """Returns where the next page begins, of the ends of up to `limit` + 1 rows."""
    return write_row_cursor(ends[limit - 1]) if len(ends) > limit else None
