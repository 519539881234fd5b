"""Accounts: creates and finds them, and lists the keys of one.

A link belongs to an account, not to the key that made it: each key of the account reaches it, also after that key
was revoked. A key that is given no account has one of its own, with the id and the name of the key.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

from snapurl.codes import random_text
from snapurl.config import Settings
from snapurl.errors import ConfigError, FieldError, Invalid, NameTaken, NoSuchAccount, Unavailable
from snapurl.model import NAME_CHARS_MAX, Account, ApiKey, RowKey, is_name
from snapurl.store.accounts import AccountStore
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.keys import KeyStore

ID_CHARS = 10  # of base 62, in the id of a key and, after the prefix, of an account
ATTEMPTS = 32  # at a new id: with half of the shards down, none succeeds once in four billion times
STALLED_S = 0.2  # until links in slots that are being moved are tried again
STALLED_MAX = 300  # of such tries in a row
KEY_ID_PATTERN = re.compile(f"[0-9A-Za-z]{{{ID_CHARS}}}")
ACCOUNT_ID_PATTERN = re.compile(f"(acc_)?[0-9A-Za-z]{{{ID_CHARS}}}")
"""The id of an account, or that of a key, whose own account it may be."""

Page = tuple[list[Account], tuple[str, ...]]
Members = tuple[list[ApiKey], tuple[str, ...]]

log = logging.getLogger("snapurl.accounts")


def now() -> datetime:
    return datetime.now(UTC)


class AccountService:
    """Creates and finds accounts. Raises Unavailable when a shard that it needs does not answer."""

    def __init__(self, accounts: AccountStore, keys: KeyStore, clock: Callable[[], datetime] = now) -> None:
        self._accounts = accounts
        self._keys = keys
        self._clock = clock

    async def create(self, name: str, created_by: str = "") -> Account:
        """Creates an account. `created_by` is the id of a key, "" for the command line.

        Raises NameTaken if an account of that name is found, and OutcomeUnknown. While a shard does not serve, or
        if two are created at once, two may get the same name.
        """
        await self._check_is_free(name)
        for attempt in range(ATTEMPTS):
            account = Account(f"acc_{random_text(ID_CHARS)}", name, self._clock(), created_by)
            try:
                if await self._accounts.add(account):
                    log.info("account %s was created by %s", account.account_id, created_by or "the operator")
                    return account
            except Unavailable:  # another id belongs to another shard
                if attempt == ATTEMPTS - 1:
                    raise
        raise Unavailable("no free account id was found")

    async def rename(self, account_id: str, name: str, by: str = "") -> Account:
        """Gives an account another name and returns it. `by` is the id of a key, "" for the command line.

        Raises NoSuchAccount, Invalid for the own account of a key, which has the name of the key, NameTaken as
        `create` does, and OutcomeUnknown.
        """
        account = await self.get(account_id)
        if KEY_ID_PATTERN.fullmatch(account_id):
            raise Invalid(fields=(FieldError("/name", "is that of the key whose own account it is"),))
        if account.name == name:
            return account
        await self._check_is_free(name)
        renamed = await self._accounts.rename(account_id, name)
        if renamed is None:
            raise NoSuchAccount()
        log.info("account %s was renamed by %s", account_id, by or "the operator")
        return renamed

    async def _check_is_free(self, name: str) -> None:
        """Raises NameTaken if an account of that name is found."""
        found, _ = await self._accounts.page(1, None, name)
        if found:
            raise NameTaken(f"the account {found[0].account_id} has this name")

    async def get(self, account_id: str) -> Account:
        """Returns the account, also one that is a key's own. Raises NoSuchAccount."""
        found = None
        if KEY_ID_PATTERN.fullmatch(account_id):
            key = await self._keys.find(account_id)
            found = _own_account(key) if key is not None and key.has_own_account else None
        elif ACCOUNT_ID_PATTERN.fullmatch(account_id):
            found = await self._accounts.find(account_id)
        if found is None:
            raise NoSuchAccount()
        return found

    async def page(self, limit: int | None, before: RowKey | None = None) -> Page:
        """Returns up to `limit` accounts, newest first, and the shards whose accounts are missing.

        Not the own accounts of keys.
        """
        return await self._accounts.page(limit, before)

    async def members(self, account_id: str, limit: int | None, before: RowKey | None = None) -> Members:
        """Returns up to `limit` keys of the account, newest first, and the shards whose keys are missing."""
        return await self._keys.page(limit, before, account_id)

    async def transfer_links(
        self, source_id: str, target: Account, by: str = ""
    ) -> tuple[int, bool, tuple[str, ...]]:
        """Gives some links of one account, also deleted ones, to another: a bounded number, so repeat it.

        Returns how many were given, whether none was found to be left, and the shards whose links are missing. `by`
        is the id of a key, "" for the command line. Raises NoSuchAccount.
        """
        source = await self.get(source_id)
        given, complete, silent = await self._accounts.transfer_links(
            source.account_id, target.account_id, by
        )
        who = by or "the operator"
        log.info("%d links of account %s were given to %s by %s", given, source_id, target.account_id, who)
        return given, complete, silent

    async def count_links(self, account_id: str) -> int:
        """Returns how many links the account has on shards that serve, also deleted ones."""
        return await self._accounts.count_links(account_id)

    async def called(self, name_or_id: str) -> Account:
        """Returns the account with that id or name.

        Raises NoSuchAccount, and ConfigError, which lists the ids, if several have the name.
        """
        try:
            return await self.get(name_or_id)
        except NoSuchAccount:
            pass
        found, silent = await self._accounts.page(None, None, name_or_id)
        if len(found) > 1:
            ids = ", ".join(account.account_id for account in found)
            raise ConfigError(f"{len(found)} accounts have this name: name one by its id, {ids}")
        if not found and silent:
            missing = ", ".join(silent)
            raise Unavailable(
                f"no account has this id or name, except perhaps on {missing}, which does not serve now"
            )
        if not found:
            raise NoSuchAccount(
                "there is no account with that id or name: `snapurl accounts list` shows them"
            )
        return found[0]


def _own_account(key: ApiKey) -> Account:
    return Account(key.key_id, key.name, key.created_at, key.created_by)


@asynccontextmanager
async def connected(settings: Settings) -> AsyncIterator[tuple[KeyStore, AccountService]]:
    """Connects to the shards for one command. Raises ConfigError."""
    shards = await Shards.connect(settings)
    try:
        router = Router(shards, settings.busy_wait_ms)
        keys = KeyStore(shards, router)
        yield keys, AccountService(AccountStore(shards, router), keys)
    finally:
        await shards.close()


async def create_account(settings: Settings, name: str) -> Account:
    """Creates an account. Raises ConfigError for an invalid name, NameTaken, Unavailable."""
    check_name(name)
    async with connected(settings) as (_, accounts):
        return await accounts.create(name)


async def rename_account(settings: Settings, name_or_id: str, name: str) -> Account:
    """Gives an account another name. Raises as `called` and `AccountService.rename` do, ConfigError for an invalid
    name."""
    check_name(name)
    async with connected(settings) as (_, accounts):
        return await accounts.rename((await accounts.called(name_or_id)).account_id, name)


async def list_accounts(settings: Settings) -> Page:
    """Returns all accounts, newest first, and the shards whose accounts are missing."""
    async with connected(settings) as (_, accounts):
        return await accounts.page(None)


async def list_members(settings: Settings, name_or_id: str) -> tuple[Account, Members]:
    """Returns an account, its keys, newest first, and the shards whose keys are missing. Raises as `called`."""
    async with connected(settings) as (_, accounts):
        account = await accounts.called(name_or_id)
        return account, await accounts.members(account.account_id, None)


async def transfer_links(
    settings: Settings, source: str, target: str, progress: Callable[[int, int], None]
) -> int:
    """Gives all links of one account to another; both are names or ids. Returns how many were given.

    `progress` is called with how many are given and how many there were. It may be ended and called again at any
    time. Raises as `called` does, ConfigError if both are one account, and Unavailable if a shard does not serve.
    """
    async with connected(settings) as (_, accounts):
        giver, taker = await accounts.called(source), await accounts.called(target)
        if giver == taker:
            raise ConfigError("both are the same account")
        total, given, complete, stalled = await accounts.count_links(giver.account_id), 0, False, 0
        while not complete:
            some, complete, silent = await accounts.transfer_links(giver.account_id, taker)
            given, stalled = given + some, 0 if some else stalled + 1
            if some:
                progress(given, max(total, given))
            elif silent or stalled == STALLED_MAX:
                where = ", ".join(silent) or "slots that are being moved"
                raise Unavailable(
                    f"{given} links were given; those on {where} are left: run the command again later"
                )
            elif not complete:
                await asyncio.sleep(STALLED_S)
        return given


def check_name(name: str) -> None:
    """Raises ConfigError for what cannot be the name of a key or an account."""
    if not is_name(name):
        raise ConfigError(f"a name must have 1 to {NAME_CHARS_MAX} printable characters")
