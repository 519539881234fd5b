"""Creates, lists and revokes API keys, and parses a presented key. Only the SHA-256 of a secret is stored.

A key is `snap_<id>_<secret>`: 10 and 32 characters of base 62, so the secret has 190 bits and a plain SHA-256
is enough. The id selects the row; the secret authenticates.
"""

from __future__ import annotations

import hmac
import re
import secrets
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from hashlib import sha256

from limits import parse as parse_rate

from snapurl.codes import ALPHABET
from snapurl.config import Settings
from snapurl.errors import ConfigError, NotFound, Unavailable
from snapurl.model import ApiKey, Right
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.keys import KeyStore

KEY_ID_CHARS = 10
SECRET_CHARS = 32
NAME_CHARS_MAX = 100
ATTEMPTS = 32  # at a new key: with half of the shards down, none succeeds once in four billion times
KEY_PATTERN = re.compile(f"snap_([0-9A-Za-z]{{{KEY_ID_CHARS}}})_([0-9A-Za-z]{{{SECRET_CHARS}}})")


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
        return cls(_random(KEY_ID_CHARS), _random(SECRET_CHARS))

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


def _random(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _ in range(length))


async def create_key(settings: Settings, name: str, rights: Collection[str], limit: str = "") -> str:
    """Creates a key and returns it with its secret, which is not stored.

    `rights` are names of `Right`; `limit` is a rate, "none", or "" for the service's default. Raises
    ConfigError for an invalid name, right or limit, and Unavailable.
    """
    _check(name, limit)
    granted = _rights(rights)
    async with _store(settings) as store:
        for attempt in range(ATTEMPTS):
            plain = PlainKey.random()
            key = ApiKey(plain.key_id, name, plain.secret_hash, granted, limit, datetime.now(UTC), None)
            try:
                if await store.add(key):
                    return str(plain)
            except Unavailable:  # another id belongs to another shard
                if attempt == ATTEMPTS - 1:
                    raise
        raise Unavailable("no free key id was found")


async def list_keys(settings: Settings) -> tuple[list[ApiKey], tuple[str, ...]]:
    """Returns the keys, also the revoked ones, oldest first, and the shards whose keys are missing."""
    async with _store(settings) as store:
        return await store.all()


async def revoke_key(settings: Settings, key_id: str) -> ApiKey:
    """Revokes a key, given by its id or in full. Workers refuse it within 5 seconds. Raises NotFound."""
    plain = PlainKey.parse(key_id)
    async with _store(settings) as store:
        revoked = await store.revoke(plain.key_id if plain else key_id)
    if revoked is None:
        raise NotFound("there is no key with that id: `snapurl keys list` shows them")
    return revoked


def _check(name: str, limit: str) -> None:
    if not name.strip() or len(name) > NAME_CHARS_MAX or not name.isprintable():
        raise ConfigError(f"a key's name must have 1 to {NAME_CHARS_MAX} printable characters")
    if limit not in ("", "none"):
        try:
            parse_rate(limit)
        except ValueError:
            raise ConfigError("a key's limit must be a rate such as 600/minute, or none") from None


def _rights(names: Collection[str]) -> frozenset[Right]:
    try:
        granted = frozenset(Right(name) for name in names)
    except ValueError:
        known = ", ".join(right.value for right in Right)
        raise ConfigError(f"a right is one of {known}") from None
    if not granted:
        raise ConfigError("a key needs at least one right")
    return granted


@asynccontextmanager
async def _store(settings: Settings) -> AsyncIterator[KeyStore]:
    shards = await Shards.connect(settings)
    try:
        yield KeyStore(shards, Router(shards, settings.busy_wait_ms))
    finally:
        await shards.close()
