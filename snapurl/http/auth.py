"""Who is asking: API keys in headers, looked up in the shards and remembered for a few seconds.

A found key (or that there is none) is remembered for KEY_AGE_MAX_S, which bounds how long a revoked key still
works. When the shard of a key is silent, what is remembered serves on for KEY_STALE_MAX_S: a shard that is
down must not lock its keys out of the others, and a key cannot be revoked on a shard that is down.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from snapurl.errors import Forbidden, Unauthorized, Unavailable
from snapurl.keys import PlainKey
from snapurl.model import ApiKey, Right
from snapurl.store.keys import KeyStore
from snapurl.telemetry.metrics import KEY_LOOKUPS

KEY_AGE_MAX_S = 5.0
KEY_STALE_MAX_S = 3_600.0
KEYS_REMEMBERED_MAX = 10_000  # per worker; the longest unused goes

MISSING = "send your API key as `X-Api-Key` or as `Authorization: Bearer`"
UNKNOWN = "the API key is unknown or revoked"


@dataclass(frozen=True, slots=True)
class _Found:
    key: ApiKey | None
    at_s: float


class Authenticator:
    """Finds the key of a request. `clock_s` is monotonic."""

    def __init__(self, store: KeyStore, clock_s: Callable[[], float]) -> None:
        self._store = store
        self._clock_s = clock_s
        self._remembered: OrderedDict[str, _Found] = OrderedDict()

    async def identify(self, headers: Mapping[str, str]) -> ApiKey | None:
        """The key that the headers hold; None if they hold none. Raises Unauthorized, Unavailable."""
        text = presented_key(headers)
        if text is None:
            return None
        plain = PlainKey.parse(text)
        key = await self._find(plain.key_id) if plain else None
        if plain is None or key is None or not plain.matches(key) or key.revoked_at is not None:
            raise Unauthorized(UNKNOWN)
        return key

    async def _find(self, key_id: str) -> ApiKey | None:
        now_s = self._clock_s()
        remembered = self._remembered.get(key_id)
        if remembered is not None and now_s - remembered.at_s < KEY_AGE_MAX_S:
            self._remembered.move_to_end(key_id)
            KEY_LOOKUPS.labels("remembered").inc()
            return remembered.key
        try:
            key = await self._store.find(key_id)
        except Unavailable:
            if remembered is None or now_s - remembered.at_s > KEY_STALE_MAX_S:
                raise
            KEY_LOOKUPS.labels("stale").inc()
            return remembered.key
        KEY_LOOKUPS.labels("shard").inc()
        self._remember(key_id, _Found(key, now_s))
        return key

    def _remember(self, key_id: str, found: _Found) -> None:
        self._remembered[key_id] = found
        self._remembered.move_to_end(key_id)
        while len(self._remembered) > KEYS_REMEMBERED_MAX:
            self._remembered.popitem(last=False)


def presented_key(headers: Mapping[str, str]) -> str | None:
    """The key in the headers. Raises Unauthorized for two that differ, or another kind of authorization."""
    plain = headers.get("x-api-key")
    authorization = headers.get("authorization")
    bearer = None
    if authorization is not None:
        scheme, _, bearer = authorization.partition(" ")
        bearer = bearer.strip()
        if scheme.lower() != "bearer" or not bearer:
            raise Unauthorized(MISSING)
    if plain is not None and bearer is not None and plain.strip() != bearer:
        raise Unauthorized("X-Api-Key and Authorization hold two different keys: send one")
    return plain.strip() if plain is not None else bearer


def require(key: ApiKey | None, right: Right) -> ApiKey:
    """The key, if it has that right. Raises Unauthorized without a key, Forbidden without the right."""
    if key is None:
        raise Unauthorized(MISSING)
    if right not in key.rights and not key.is_admin:
        raise Forbidden(f"this API key lacks the right to {right.value}")
    return key


def owner_filter(key: ApiKey) -> str | None:
    """Whose links the key reaches: its own, or (None) all."""
    return None if key.is_admin else key.key_id
