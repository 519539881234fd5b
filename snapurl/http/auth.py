"""Authentication: API keys from headers, looked up in the shards and cached for a few seconds.

A look-up, also one that found no key, is cached for KEY_AGE_MAX_S. This bounds how long a revoked key still
works. While the shard of a key is down, the cached key stays valid for KEY_STALE_MAX_S: the outage of one shard
must not lock its keys out of the others, and a key cannot be revoked on a shard that is down.

Anybody can make up the id of a key. So ids that do not exist have a cache of their own, from which they cannot push
out keys that exist, and concurrent requests share one look-up per id. `dispatch` grants look-ups in turn and limits
how many keys an address may have refused.

That a key is in use is noted in its row about once an hour, in the background, after a look-up: never for a
redirect.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TypeVar

from snapurl.errors import Forbidden, OutcomeUnknown, Unauthorized, Unavailable
from snapurl.keys import PlainKey
from snapurl.model import ApiKey, Right
from snapurl.store.keys import KeyStore
from snapurl.tasks import cancel_and_wait
from snapurl.telemetry.logs import detached_task
from snapurl.telemetry.metrics import KEY_LOOKUPS

KEY_AGE_MAX_S = 5.0
KEY_STALE_MAX_S = 3_600.0
KEYS_CACHED_MAX = 10_000  # per worker; the least recently used is evicted
UNKNOWN_IDS_CACHED_MAX = 10_000  # per worker; the oldest is evicted
USE_NOTED_EVERY = timedelta(hours=1)
USES_NOTED_MAX = 16  # at once per worker; that of another key is noted after its next look-up

MISSING = "send your API key as `X-Api-Key` or as `Authorization: Bearer`"
UNKNOWN = "the API key is unknown or revoked"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _CachedKey:
    key: ApiKey
    at_s: float


class Authenticator:
    """Finds API keys. `clock_s` is monotonic, `clock` the wall clock."""

    def __init__(self, store: KeyStore, clock_s: Callable[[], float], clock: Callable[[], datetime]) -> None:
        self._store = store
        self._clock_s = clock_s
        self._clock = clock
        self._cached: OrderedDict[str, _CachedKey] = OrderedDict()
        self._unknown: OrderedDict[str, float] = OrderedDict()  # when an id was found not to exist
        self._lookups: dict[str, asyncio.Task[ApiKey | None]] = {}
        self._notes: set[asyncio.Task[None]] = set()

    def remembered(self, plain: PlainKey) -> ApiKey | None:
        """Returns the key if it is valid and cached; None if only `find` can tell."""
        cached = self._cached.get(plain.key_id)
        if cached is None or not self._is_fresh(cached.at_s) or not _is_valid(plain, cached.key):
            return None
        self._cached.move_to_end(plain.key_id)
        KEY_LOOKUPS.labels("remembered").inc()
        return cached.key

    def is_known(self, plain: PlainKey) -> bool:
        """Whether a key with this id has been found here, however long ago."""
        return plain.key_id in self._cached

    async def find(self, plain: PlainKey) -> ApiKey:
        """Returns the valid key. Raises Unauthorized, Unavailable."""
        key = await self._find(plain.key_id)
        if key is None or not _is_valid(plain, key):
            raise Unauthorized(UNKNOWN)
        self._note_use(key)
        return key

    async def find_by_id(self, key_id: str) -> ApiKey | None:
        """Returns the valid key with that id, for callers that have checked by other means who presents it.

        None if there is none, or it is revoked. Raises Unavailable.
        """
        key = await self._find(key_id)
        if key is None or key.revoked_at is not None:
            return None
        self._note_use(key)
        return key

    def _note_use(self, key: ApiKey) -> None:
        """Notes in the background that the key is in use, unless that was done within the hour."""
        at, cached = self._clock(), self._cached.get(key.key_id)
        if key.used_at is not None and at - key.used_at < USE_NOTED_EVERY:
            return
        if cached is None or len(self._notes) >= USES_NOTED_MAX:
            return
        # One attempt per look-up, also if it fails.
        self._cached[key.key_id] = replace(cached, key=replace(cached.key, used_at=at))
        note = detached_task(self._write_use(key.key_id), "use of a key")
        self._notes.add(note)
        note.add_done_callback(self._notes.discard)

    async def _write_use(self, key_id: str) -> None:
        with suppress(Unavailable, OutcomeUnknown):
            await self._store.note_use(key_id)

    async def _find(self, key_id: str) -> ApiKey | None:
        cached, unknown_at_s = self._cached.get(key_id), self._unknown.get(key_id)
        if cached is not None and self._is_fresh(cached.at_s):
            KEY_LOOKUPS.labels("remembered").inc()
            return cached.key
        if unknown_at_s is not None and self._is_fresh(unknown_at_s):
            KEY_LOOKUPS.labels("remembered").inc()
            return None
        try:
            return await self._lookup(key_id)
        except Unavailable:
            if cached is None or self._clock_s() - cached.at_s > KEY_STALE_MAX_S:
                raise
            KEY_LOOKUPS.labels("stale").inc()
            return cached.key

    async def _lookup(self, key_id: str) -> ApiKey | None:
        """Returns the key as its shard has it, by the look-up of this id that is in flight or by a new one."""
        task = self._lookups.get(key_id)
        KEY_LOOKUPS.labels("shard" if task is None else "shared").inc()
        if task is None:
            task = self._lookups[key_id] = asyncio.create_task(self._store.find(key_id), name="key-lookup")
            task.add_done_callback(partial(self._finish, key_id, self._clock_s()))
        return await asyncio.shield(task)

    def _finish(self, key_id: str, began_s: float, task: asyncio.Task[ApiKey | None]) -> None:
        """Caches the result of a look-up, which is as old as the look-up's begin."""
        del self._lookups[key_id]
        if task.cancelled() or task.exception() is not None:
            return
        key = task.result()
        if key is None:
            self._cached.pop(key_id, None)
            _put(self._unknown, key_id, began_s, UNKNOWN_IDS_CACHED_MAX)
        else:
            self._unknown.pop(key_id, None)
            _put(self._cached, key_id, _CachedKey(key, began_s), KEYS_CACHED_MAX)

    def _is_fresh(self, at_s: float) -> bool:
        return self._clock_s() - at_s < KEY_AGE_MAX_S

    async def close(self) -> None:
        """Ends the look-ups whose requests have gone away, and the notes under way."""
        await cancel_and_wait(*self._lookups.values(), *self._notes)


def _is_valid(plain: PlainKey, key: ApiKey) -> bool:
    return plain.matches(key) and key.revoked_at is None


def _put(cache: OrderedDict[str, T], key_id: str, value: T, entries_max: int) -> None:
    cache[key_id] = value
    cache.move_to_end(key_id)
    while len(cache) > entries_max:
        cache.popitem(last=False)


def presented_key(headers: Mapping[str, str]) -> PlainKey | None:
    """Returns the key in the headers, None without one.

    Raises Unauthorized for two different keys, a scheme other than Bearer, and what cannot be a key.
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
    text = plain.strip() if plain is not None else bearer
    if text is None:
        return None
    if (key := PlainKey.parse(text)) is None:
        raise Unauthorized(UNKNOWN)
    return key


def require(key: ApiKey | None, right: Right | None) -> ApiKey:
    """Returns the key if it has the right; `right` None is no particular one.

    Raises Unauthorized without a key, Forbidden without the right.
    """
    if key is None:
        raise Unauthorized(MISSING)
    if right is not None and right not in key.rights and not key.is_admin:
        raise Forbidden(f"this API key lacks the right to {right.value}")
    return key


def owner_filter(key: ApiKey) -> str | None:
    """Returns the account whose links the key may access, or None for all links."""
    return None if key.is_admin else key.account
