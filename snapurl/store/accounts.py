"""Accounts in the shards. An account belongs to the slot of its id."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any

from ring.slots import slot_of
from snapurl.model import Account, RowKey
from snapurl.store.batching.bulk import repeat_or_refuse
from snapurl.store.cluster.fanout import every_row_once
from snapurl.store.cluster.pool import ShardFailed
from snapurl.store.cluster.router import Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

SQL = load_queries("accounts")
TRANSFER_LINKS_MAX = (
    500  # per shard and call: each holds a lock per slot, and PostgreSQL's lock table is bounded
)


class AccountStore:
    """Adds and finds accounts. Raises Unavailable when the shard of an account does not answer."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    async def add(self, account: Account) -> bool:
        """Stores a new account. Returns False if its id is in use. A repeat with the same account changes nothing.

        Raises OutcomeUnknown, Unavailable.
        """
        slot = slot_of(account.account_id)
        args = (account.account_id, account.name, account.created_at, account.created_by)
        rows = await repeat_or_refuse(
            lambda: self._router.at_owner(slot, lambda pool: pool.fetch(SQL["add"], slot, *args))
        )
        return bool(rows[0]["outcome"] == "ok")

    async def rename(self, account_id: str, name: str) -> Account | None:
        """Gives an account another name and returns it. None if none was made with this id.

        Raises OutcomeUnknown, Unavailable.
        """
        slot = slot_of(account_id)
        rows = await repeat_or_refuse(
            lambda: self._router.at_owner(
                slot, lambda pool: pool.fetch(SQL["rename"], slot, account_id, name)
            )
        )
        return None if rows[0]["outcome"] == "missing" else _account(rows[0])

    async def find(self, account_id: str) -> Account | None:
        """Returns the account. None if none was made with this id."""
        slot = slot_of(account_id)
        row = (await self._router.read(slot, lambda pool: pool.fetch(SQL["find"], slot, account_id)))[0]
        return None if row["account_id"] is None else _account(row)

    async def page(
        self, limit: int | None, before: RowKey | None, name: str | None = None
    ) -> tuple[list[Account], tuple[str, ...]]:
        """Returns up to `limit` accounts, newest first, and the shards whose accounts are missing.

        `limit` None is no limit. With `name`, only accounts that have it.
        """
        args = (limit, before.created_at if before else None, before.row_id if before else None, name)
        listed = await every_row_once(self._shards, SQL["page"], args)
        found = sorted(
            map(_account, listed.answers), key=lambda item: (item.created_at, item.account_id), reverse=True
        )
        return found[:limit], listed.silent

    async def transfer_links(self, source: str, target: str, by: str) -> tuple[int, bool, tuple[str, ...]]:
        """Gives up to TRANSFER_LINKS_MAX links per shard, also deleted ones, from one account to another.

        Returns how many were given, whether none was found to be left, and the shards whose links are missing. A
        repeat goes on where this call ended, whatever became of it. `by` is the id of a key.
        """
        given = await asyncio.gather(
            *(self._transfer_on(name, source, target, by) for name in self._shards.names)
        )
        left = await every_row_once(self._shards, SQL["any_link"], (source,))
        return sum(given), not left.answers and not left.silent, left.silent

    async def _transfer_on(self, name: str, source: str, target: str, by: str) -> int:
        """Returns how many links were given on one shard: 0 if it does not answer, or its answer was lost."""
        try:
            row = await self._shards.pool(name).fetchrow(
                SQL["transfer_links"], source, target, by, TRANSFER_LINKS_MAX
            )
        except ShardFailed:
            return 0
        return int(row["given"])

    async def count_links(self, account_id: str) -> int:
        """Returns how many links the account has on shards that serve, also deleted ones."""
        listed = await every_row_once(self._shards, SQL["count_links"], (account_id,))
        return sum(row["links"] for row in listed.answers)


def _account(row: Mapping[str, Any]) -> Account:
    return Account(row["account_id"], row["name"], row["created_at"], row["created_by"])
