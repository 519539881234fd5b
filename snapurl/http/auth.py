"""Authentication: API keys from headers, looked up in the shards and cached for a few seconds.

A look-up, also one that found no key, is cached for KEY_AGE_MAX_S. This bounds how long a revoked key still
works. While the shard of a key is down, the cached key stays valid for KEY_STALE_MAX_S: the outage of one shard
must not lock its keys out of the others, and a key cannot be revoked on a shard that is down.
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
KEYS_CACHED_MAX = 10_000  # per worker; the least recently used is evicted

MISSING = "send your API key as `X-Api-Key` or as `Authorization: Bearer`"
UNKNOWN = "the API key is unknown or revoked"


@dataclass(frozen=True, slots=True)
class _CachedKey:
    key: ApiKey | None
    at_s: float


class Authenticator:
    """Finds the API key of a request. `clock_s` is monotonic."""

    def __init__(self, store: KeyStore, clock_s: Callable[[], float]) -> None:
        self._store = store
        self._clock_s = clock_s
        self._cached: OrderedDict[str, _CachedKey] = OrderedDict()

    async def identify(self, headers: Mapping[str, str]) -> ApiKey | None:
        """Returns the valid key in the headers, or None without one. Raises Unauthorized, Unavailable."""
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
        cached = self._cached.get(key_id)
        if cached is not None and now_s - cached.at_s < KEY_AGE_MAX_S:
            self._cached.move_to_end(key_id)
            KEY_LOOKUPS.labels("remembered").inc()
            return cached.key
        try:
            key = await self._store.find(key_id)
        except Unavailable:
            if cached is None or now_s - cached.at_s > KEY_STALE_MAX_S:
                raise
            KEY_LOOKUPS.labels("stale").inc()
            return cached.key
        KEY_LOOKUPS.labels("shard").inc()
        self._cache(key_id, _CachedKey(key, now_s))
        return key

    def _cache(self, key_id: str, found: _CachedKey) -> None:
        self._cached[key_id] = found
        self._cached.move_to_end(key_id)
        while len(self._cached) > KEYS_CACHED_MAX:
            self._cached.popitem(last=False)


def presented_key(headers: Mapping[str, str]) -> str | None:
    """Returns the text of the key in the headers.

    Raises Unauthorized for two different keys, or a scheme other than Bearer.
    """
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
    """Returns the key if it has the right. Raises Unauthorized without a key, Forbidden without the right."""
    if key is None:
        raise Unauthorized(MISSING)
    if right not in key.rights and not key.is_admin:
        raise Forbidden(f"this API key lacks the right to {right.value}")
    return key


def owner_filter(key: ApiKey) -> str | None:
    """Returns the key id whose links the key may access, or None for all links."""
    return None if key.is_admin else key.key_id
