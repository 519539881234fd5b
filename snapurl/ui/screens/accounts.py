"""Accounts: the list, a new one, one with its keys, another name for it, and giving all its links to another."""

from __future__ import annotations

import re
from contextlib import suppress
from dataclasses import dataclass
from urllib.parse import urlencode

from sanic import HTTPResponse

from snapurl.errors import FieldError, Invalid, NameTaken, NoSuchAccount, SnapURLError
from snapurl.http.api.cursors import read_row_cursor, write_row_cursor
from snapurl.http.api.keys import account_in_body
from snapurl.http.schema.keys import AccountDraft, TransferBody
from snapurl.http.schema.requests import check
from snapurl.model import Account, RowKey
from snapurl.ui.call import Call
from snapurl.ui.forms import errors_by_field

PAGE_ROWS = 50
CHOICES_MAX = 200  # accounts to choose from; with more, the page of an account makes a key for it
_NUMBER = re.compile("[0-9]{1,12}")


async def choices(call: Call, *wanted: str) -> tuple[list[Account], tuple[str, ...]]:
    """Returns the accounts to choose from, those of the ids `wanted` among them, and the shards that are silent."""
    found, silent = await call.services.accounts.page(CHOICES_MAX)
    for account_id in set(wanted) - {account.account_id for account in found}:
        with suppress(NoSuchAccount):
            found.insert(0, await call.services.accounts.get(account_id))
    return found, silent


# -- the list ----------------------------------------------------------------------------------------------------


async def show(call: Call) -> HTTPResponse:
    return await _list(call)


async def create(call: Call) -> HTTPResponse:
    """Creates an account, and shows it."""
    draft = check(AccountDraft, {"name": call.form.get("name", "").strip()}, call.context.rules())
    account = await call.services.accounts.create(draft.name, call.user.key_id)
    return call.go(f"/ui/accounts/{account.account_id}?made=1")


async def create_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    return await _list(call, refusal)


async def _list(call: Call, refusal: SnapURLError | None = None) -> HTTPResponse:
    cursor = call.query.get("cursor")
    found, silent = await call.services.accounts.page(
        PAGE_ROWS + 1, read_row_cursor(cursor) if cursor else None
    )
    errors = errors_by_field(refusal)
    return call.page(
        "accounts.html",
        refusal.status if refusal else 200,
        accounts=found[:PAGE_ROWS],
        more=_more("/ui/accounts", [RowKey(each.created_at, each.account_id) for each in found]),
        silent=silent,
        errors=errors,
        fault=refusal.public_detail if refusal and not errors else "",
        typed=call.form,
    )


def _more(path: str, ends: list[RowKey]) -> str:
    """Returns the address of the next page, "" on the last one. `ends` has a row more if there is one."""
    return (
        f"{path}?{urlencode({'cursor': write_row_cursor(ends[PAGE_ROWS - 1])})}"
        if len(ends) > PAGE_ROWS
        else ""
    )


# -- one account -------------------------------------------------------------------------------------------------


async def one(call: Call) -> HTTPResponse:
    return await _account(call)


async def _account(call: Call, refusal: SnapURLError | None = None) -> HTTPResponse:
    account = await call.services.accounts.get(call.path["account_id"])
    cursor = call.query.get("cursor")
    keys, silent = await call.services.accounts.members(
        account.account_id, PAGE_ROWS + 1, read_row_cursor(cursor) if cursor else None
    )
    others, _ = await choices(call)
    errors = errors_by_field(refusal)
    return call.page(
        "account.html",
        refusal.status if refusal else 200,
        account=account,
        keys=keys[:PAGE_ROWS],
        names={account.account_id: account.name} | {key.key_id: key.name for key in keys},
        more=_more(
            f"/ui/accounts/{account.account_id}", [RowKey(each.created_at, each.key_id) for each in keys]
        ),
        silent=silent,
        others=[each for each in others if each.account_id != account.account_id],
        errors=errors,
        fault=refusal.public_detail if refusal and not errors else "",
        is_made="made" in call.query,
        is_renamed="renamed" in call.query,
        name=call.form.get("name", account.name),
    )


async def rename(call: Call) -> HTTPResponse:
    account_id = call.path["account_id"]
    draft = check(AccountDraft, {"name": call.form.get("name", "").strip()}, call.context.rules())
    await call.services.accounts.rename(account_id, draft.name, call.user.key_id)
    return call.go(f"/ui/accounts/{account_id}?renamed=1")


async def rename_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the account with the name that was refused."""
    if isinstance(refusal, NameTaken):
        refusal = Invalid(fields=(FieldError("/name", "is the name of another account"),))
    if isinstance(refusal, NoSuchAccount):
        raise refusal
    return await _account(call, refusal)


# -- giving links to another account -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Transfer:
    """How far a transfer has come, as the page carries it along: links given, and how many there were."""

    source: Account
    target: Account
    given: int
    total: int


async def confirm_transfer(call: Call) -> HTTPResponse:
    """Asks whether to give all links of this account to another, and says how many they are."""
    source, target = await _both(call, call.query.get("account", ""))
    total = await call.services.accounts.count_links(source.account_id)
    return call.page(
        "transfer.html", transfer=_Transfer(source, target, 0, total), is_begun=False, is_over=False, left=""
    )


async def transfer(call: Call) -> HTTPResponse:
    """Gives some links, and says how far it is. The page asks for the next ones until none is left."""
    source, target = await _both(call, call.form.get("account", ""))
    accounts = call.services.accounts
    given, is_over, silent = await accounts.transfer_links(source.account_id, target, call.user.key_id)
    before, total = _number(call, "given"), _number(call, "total")
    left = "" if given or is_over else _left(silent)
    return call.page(
        "transfer.html",
        transfer=_Transfer(source, target, before + given, max(total, before + given)),
        is_begun=True,
        is_over=is_over,
        left=left,
    )


async def choose_again(call: Call, refusal: SnapURLError) -> HTTPResponse:
    """Shows the account again, with what is wrong."""
    return await _account(call, refusal)


async def _both(call: Call, target_id: str) -> tuple[Account, Account]:
    """Returns the account in the path and the one that takes its links.

    Raises Invalid, NoSuchAccount, Unavailable.
    """
    source = await call.services.accounts.get(call.path["account_id"])
    asked = check(TransferBody, {"account": target_id}, call.context.rules())
    target = await account_in_body(call.context, asked.account)
    if target == source:
        raise Invalid(fields=(FieldError("/account", "is the account that has the links"),))
    return source, target


def _left(silent: tuple[str, ...]) -> str:
    if silent:
        return "A part of the cluster does not answer: the links there are left."
    return "The links that are left are being moved between shards at this moment."


def _number(call: Call, name: str) -> int:
    text = call.form.get(name, "")
    return int(text) if _NUMBER.fullmatch(text) else 0
