"""Creates, lists and revokes API keys, and parses a presented key. Only the SHA-256 of a secret is stored.

A key is `snap_<id>_<secret>`: 10 and 32 characters of base 62, so the secret has 190 bits and a plain SHA-256
is enough. The id selects the row; the secret authenticates.
"""

from __future__ import annotations

import hmac
import logging
import re
from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import datetime
from hashlib import sha256

from snapurl.accounts import ATTEMPTS, ID_CHARS, KEY_ID_PATTERN, check_name, connected, now
from snapurl.codes import random_text
from snapurl.config import Settings
from snapurl.errors import ConfigError, NoSuchKey, Unavailable
from snapurl.model import Account, ApiKey, Right, RowKey, is_limit
from snapurl.store.keys import KeyStore

SECRET_CHARS = 32
KEY_PATTERN = re.compile(f"snap_([0-9A-Za-z]{{{ID_CHARS}}})_([0-9A-Za-z]{{{SECRET_CHARS}}})")

Page = tuple[list[ApiKey], tuple[str, ...]]

log = logging.getLogger("snapurl.keys")


@dataclass(frozen=True, slots=True)
class PlainKey:
    """A key with its secret, as the client has it."""

    key_id: str
    secret: str

    @classmethod
    def parse(cls, text: str) -> PlainKey | None:
        """Splits a presented key into its parts. None if it is not a key."""
        match = KEY_PATTERN.fullmatch(text)
        return cls(match[1], match[2]) if match else None

    @classmethod
    def random(cls) -> PlainKey:
        return cls(random_text(ID_CHARS), random_text(SECRET_CHARS))

    def __str__(self) -> str:
        return f"snap_{self.key_id}_{self.secret}"

    def __repr__(self) -> str:
        return f"PlainKey({self.key_id!r})"

    @property
    def secret_hash(self) -> bytes:
        return sha256(self.secret.encode()).digest()

    def matches(self, key: ApiKey) -> bool:
        """Whether this is the secret of `key`. Compares in constant time."""
        return hmac.compare_digest(self.secret_hash, key.secret_hash)


class KeyService:
    """Creates, lists and revokes keys. Raises Unavailable when a shard that it needs does not answer."""

    def __init__(self, store: KeyStore, clock: Callable[[], datetime] = now) -> None:
        self._store = store
        self._clock = clock

    async def create(
        self,
        name: str,
        rights: frozenset[Right],
        limit: str = "",
        account: Account | None = None,
        created_by: str = "",
    ) -> tuple[PlainKey, ApiKey]:
        """Creates a key; its secret is not stored. Without an account it gets one of its own.

        `limit` is a rate, "none", or "" for the service's default. `created_by` is the id of a key, "" for the
        command line. Raises OutcomeUnknown.
        """
        for attempt in range(ATTEMPTS):
            plain = PlainKey.random()
            key = ApiKey(
                plain.key_id, name, plain.secret_hash, rights, limit, self._clock(), None,
                account.account_id if account else "", created_by,
            )  # fmt: skip
            try:
                if await self._store.add(key):
                    by = created_by or "the operator"
                    log.info("key %s of account %s was created by %s", key.key_id, key.account, by)
                    return plain, key
            except Unavailable:  # another id belongs to another shard
                if attempt == ATTEMPTS - 1:
                    raise
        raise Unavailable("no free key id was found")

    async def page(self, limit: int | None, before: RowKey | None = None, account: str | None = None) -> Page:
        """Returns up to `limit` keys, also revoked ones, newest first, and the shards whose keys are missing.

        With `account`, only keys of that account.
        """
        return await self._store.page(limit, before, account)

    async def revoke(self, key_id: str, revoked_by: str = "") -> ApiKey:
        """Revokes a key. Workers refuse it within 5 seconds. Raises NoSuchKey, OutcomeUnknown."""
        revoked = await self._store.revoke(key_id) if KEY_ID_PATTERN.fullmatch(key_id) else None
        if revoked is None:
            raise NoSuchKey()
        log.info("key %s was revoked by %s", key_id, revoked_by or "the operator")
        return revoked

    async def called(self, name_or_id: str) -> str:
        """Returns the id of the key with that id, or of the one key with that name that is not revoked.

        Raises NoSuchKey, ConfigError if several have the name, and Unavailable if another one may have it.
        """
        keys, silent = await self.page(None)
        if any(key.key_id == name_or_id for key in keys):
            return name_or_id
        named = [key.key_id for key in keys if key.name == name_or_id and key.revoked_at is None]
        if len(named) > 1:
            raise ConfigError(f"{len(named)} keys have this name: name one by its id, {', '.join(named)}")
        if silent:
            missing = ", ".join(silent)
            if named:
                other = f"another key may have this name on {missing}, which does not serve now"
                raise Unavailable(f"{other}: name the key by its id, {named[0]}")
            raise Unavailable(
                f"no key has this id or name, except perhaps on {missing}, which does not serve now"
            )
        if not named:
            raise NoSuchKey("there is no valid key with that id or name: `snapurl keys list` shows them")
        return named[0]


async def create_key(
    settings: Settings, name: str, rights: Collection[str], limit: str = "", account: str = ""
) -> str:
    """Creates a key and returns it with its secret, which is not stored.

    `rights` are names of `Right`; `limit` is a rate, "none", or "" for the service's default; `account` is the id
    or the name of an account, "" for one of its own. Raises ConfigError for an invalid name, right or limit,
    NoSuchAccount, Unavailable.
    """
    check_name(name)
    if limit and not is_limit(limit):
        raise ConfigError("a key's limit must be a rate such as 600/minute, or none")
    granted = _rights(rights)
    async with connected(settings) as (store, accounts):
        found = await accounts.called(account) if account else None
        plain, _ = await KeyService(store).create(name, granted, limit, found)
        return str(plain)


async def list_keys(settings: Settings) -> Page:
    """Returns the keys, also the revoked ones, oldest first, and the shards whose keys are missing."""
    async with connected(settings) as (store, _):
        found, silent = await KeyService(store).page(None)
        return found[::-1], silent


async def revoke_key(settings: Settings, name_or_id: str) -> ApiKey:
    """Revokes a key, given by its id, in full, or by a name that no other valid key has.

    Workers refuse it within 5 seconds. Raises NoSuchKey, ConfigError for an ambiguous name, Unavailable.
    """
    plain = PlainKey.parse(name_or_id)
    async with connected(settings) as (store, _):
        keys = KeyService(store)
        return await keys.revoke(plain.key_id if plain else await keys.called(name_or_id))


def _rights(names: Collection[str]) -> frozenset[Right]:
    try:
        granted = frozenset(Right(name) for name in names)
    except ValueError:
        known = ", ".join(right.value for right in Right)
        raise ConfigError(f"a right is one of {known}") from None
    if not granted:
        raise ConfigError("a key needs at least one right")
    return granted
