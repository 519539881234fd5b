"""API keys in the shards. A key belongs to the slot of its id."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ring.slots import slot_of
from snapurl.model import ApiKey, Right, RowKey
from snapurl.store.batching.bulk import repeat_or_refuse
from snapurl.store.cluster.fanout import every_row_once
from snapurl.store.cluster.pool import Pool
from snapurl.store.cluster.router import Call, Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

SQL = load_queries("keys")


class KeyStore:
    """Adds, finds and revokes API keys. Raises Unavailable when the shard of a key does not answer."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    async def add(self, key: ApiKey) -> bool:
        """Stores a new key. Returns False if its id is in use. A repeat with the same key changes nothing."""
        slot = slot_of(key.key_id)

        async def call(pool: Pool) -> Sequence[Mapping[str, Any]]:
            return await pool.fetch(
                SQL["add"], slot, key.key_id, key.name, key.secret_hash, sorted(key.rights), key.limit,
                key.created_at, "" if key.has_own_account else key.account, key.created_by,
            )  # fmt: skip

        outcome: str = (await self._write(slot, call))["outcome"]
        return outcome == "ok"

    async def find(self, key_id: str) -> ApiKey | None:
        """Returns the key as its shard has it now, also when revoked. None if there is no such key."""
        slot = slot_of(key_id)
        row = (await self._router.read(slot, lambda pool: pool.fetch(SQL["find"], slot, key_id)))[0]
        return None if row["key_id"] is None else _key(row)

    async def revoke(self, key_id: str) -> ApiKey | None:
        """Revokes a key and returns it. None if there is no such key. A second call keeps the first time."""
        slot = slot_of(key_id)
        row = await self._write(slot, lambda pool: pool.fetch(SQL["revoke"], slot, key_id))
        return None if row["outcome"] == "missing" else _key(row)

    async def note_use(self, key_id: str) -> None:
        """Notes that the key is in use. At most one call an hour writes. Raises Unavailable, OutcomeUnknown."""
        slot = slot_of(key_id)
        await self._write(slot, lambda pool: pool.fetch(SQL["use"], slot, key_id))

    async def page(
        self, limit: int | None, before: RowKey | None, account: str | None = None
    ) -> tuple[list[ApiKey], tuple[str, ...]]:
        """Returns up to `limit` keys, also revoked ones, newest first, and the shards whose keys are missing.

        `limit` None is no limit. With `account`, only keys of that account.
        """
        args = (limit, before.created_at if before else None, before.row_id if before else None, account)
        listed = await every_row_once(self._shards, SQL["page"], args)
        found = sorted(map(_key, listed.answers), key=lambda key: (key.created_at, key.key_id), reverse=True)
        return found[:limit], listed.silent

    async def _write(self, slot: int, call: Call) -> Mapping[str, Any]:
        return (await repeat_or_refuse(lambda: self._router.at_owner(slot, call)))[0]


def _key(row: Mapping[str, Any]) -> ApiKey:
    return ApiKey(
        key_id=row["key_id"],
        name=row["name"],
        secret_hash=row["secret_hash"],
        rights=frozenset(map(Right, row["rights"])),
        limit=row["limit_rate"],
        created_at=row["created_at"],
        revoked_at=row["revoked_at"],
        account=row["account"],
        created_by=row["created_by"],
        used_at=row["used_at"],
    )
