"""Bodies about API keys and accounts: their schemas, and the functions that build the answers. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from snapurl.http.schema.requests import AccountId, Body
from snapurl.http.schema.responses import Answer, moment
from snapurl.model import NAME_CHARS_MAX, Account, ApiKey, Right, is_limit, is_name

LIMIT_CHARS_MAX = 100

RightName = Literal["create", "read", "change", "admin"]

RIGHTS_DEFAULT: list[RightName] = ["create", "read", "change"]


def _name(text: str) -> str:
    if not is_name(text):
        raise ValueError("must have printable characters, and not only spaces")
    return text


def _limit(text: str) -> str:
    if not is_limit(text):
        raise ValueError("must be a rate such as 600/minute, or none")
    return text


def _unique(rights: list[RightName]) -> list[RightName]:
    if len(set(rights)) != len(rights):
        raise ValueError("must not repeat a right")
    return rights


Name = Annotated[
    str,
    AfterValidator(_name),
    Field(min_length=1, max_length=NAME_CHARS_MAX, description="A name for people.", examples=["Newsletter"]),
]
Rights = Annotated[
    list[RightName],
    Field(max_length=len(Right)),
    AfterValidator(_unique),
    Field(
        min_length=1,
        description="What the key may do with the links of its account; `admin`: everything, with all links.",
        json_schema_extra={"uniqueItems": True},
    ),
]
Limit = Annotated[
    str,
    AfterValidator(_limit),
    Field(
        max_length=LIMIT_CHARS_MAX,
        description="Rate limit for creating links, or `none`. Left out: that of the deployment, none for admins.",
        examples=["600/minute"],
    ),
]


# -- requests ----------------------------------------------------------------------------------------------------


class KeyDraft(Body):
    """An API key to be created."""

    name: Name
    rights: Rights = RIGHTS_DEFAULT
    limit: Limit | None = None
    account: AccountId | None = None


class AccountDraft(Body):
    """An account to be created, or the name that one gets."""

    name: Name


class TransferBody(Body):
    """To whom links are given."""

    account: AccountId


# -- answers -----------------------------------------------------------------------------------------------------


class KeyBody(Answer):
    """An API key, without its secret."""

    id: str
    name: str
    account: str = Field(
        description="Id of the account whose links it shares; its own id if that is its alone."
    )
    rights: list[RightName]
    limit: str | None = Field(description="Rate limit for creating links; null: the default.")
    created_at: datetime
    created_by: str | None = Field(description="Id of the key that made it; null: made on the command line.")
    last_used_at: datetime | None = Field(description="An hour behind at most; null: never.")
    revoked_at: datetime | None


class NewKeyBody(KeyBody):
    """A new API key."""

    key: str = Field(description="The key itself. It is shown only this once.")


class KeyPage(Answer):
    """API keys, newest first."""

    keys: list[KeyBody]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
    partial: list[str] = Field(description="Shards that do not answer, whose keys are missing here.")


class AccountBody(Answer):
    """An account."""

    id: str
    name: str
    created_at: datetime
    created_by: str | None = Field(description="Id of the key that made it; null: made on the command line.")


class AccountPage(Answer):
    """Accounts, newest first, without those that keys have of their own."""

    accounts: list[AccountBody]
    next_cursor: str | None = Field(description="For the next page; null on the last one.")
    partial: list[str] = Field(description="Shards that do not answer, whose accounts are missing here.")


class AccountMembers(AccountBody, KeyPage):
    """An account and its API keys, newest first."""


class Transferred(Answer):
    """How far a transfer has come."""

    transferred: int = Field(ge=0, description="Links that this request has given.")
    complete: bool = Field(description="Whether none is left. False: repeat the request.")
    partial: list[str] = Field(description="Shards that do not answer, whose links are left.")


class Me(Answer):
    """What the API key of the request may do."""

    id: str
    name: str
    account: str = Field(description="Id of the account whose links it shares.")
    account_name: str | None = Field(description="Null while the account's shard does not answer.")
    rights: list[RightName] = Field(description="An admin has all of them.")
    limit_create: str = Field(description="Its rate limit for creating links, or `none`.")
    limit_api: str = Field(description="Its rate limit for other requests, or `none`.")


def key_body(key: ApiKey) -> dict[str, Any]:
    """Returns a `KeyBody`."""
    return {
        "id": key.key_id,
        "name": key.name,
        "account": key.account,
        "rights": _names(key.rights),
        "limit": key.limit or None,
        "created_at": moment(key.created_at),
        "created_by": key.created_by or None,
        "last_used_at": moment(key.used_at) if key.used_at else None,
        "revoked_at": moment(key.revoked_at) if key.revoked_at else None,
    }


def account_body(account: Account) -> dict[str, Any]:
    """Returns an `AccountBody`."""
    return {
        "id": account.account_id,
        "name": account.name,
        "created_at": moment(account.created_at),
        "created_by": account.created_by or None,
    }


def key_page(keys: Sequence[ApiKey], next_cursor: str | None, partial: Sequence[str]) -> dict[str, Any]:
    """Returns a `KeyPage`."""
    return {"keys": list(map(key_body, keys)), "next_cursor": next_cursor, "partial": list(partial)}


def account_page(
    accounts: Sequence[Account], next_cursor: str | None, partial: Sequence[str]
) -> dict[str, Any]:
    """Returns an `AccountPage`."""
    return {
        "accounts": list(map(account_body, accounts)),
        "next_cursor": next_cursor,
        "partial": list(partial),
    }


def me_body(key: ApiKey, account_name: str | None, limit_create: str, limit_api: str) -> dict[str, Any]:
    """Returns a `Me`."""
    return {
        "id": key.key_id,
        "name": key.name,
        "account": key.account,
        "account_name": account_name,
        "rights": _names(frozenset(Right) if key.is_admin else key.rights),
        "limit_create": limit_create,
        "limit_api": limit_api,
    }


def _names(rights: frozenset[Right]) -> list[str]:
    return [right.value for right in Right if right in rights]
