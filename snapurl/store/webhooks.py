"""Webhooks and their messages in the shards: `migrations/0029_webhooks.sql` has the theory."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

from ring.slots import slot_of
from snapurl.errors import Unavailable
from snapurl.messages import Message, MessageState, Webhook
from snapurl.model import RowKey
from snapurl.store.batching.bulk import repeat_or_refuse
from snapurl.store.cluster.fanout import ShardSilent, every_row_once, fetch_at
from snapurl.store.cluster.router import Call, Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries

SQL = load_queries("webhooks")
MESSAGES_PER_CALL = 500  # each holds a lock of its slot, and PostgreSQL's lock table is bounded


class WebhookStore:
    """Adds, finds and changes webhooks, and lets every shard know of them. Raises Unavailable, OutcomeUnknown."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router

    @property
    def shard_names(self) -> list[str]:
        return self._shards.names

    # -- webhooks --------------------------------------------------------------------------------------------

    async def add(self, webhook: Webhook) -> bool:
        """Stores a new webhook. Returns False if its id is in use. A repeat with the same one changes nothing."""
        slot = slot_of(webhook.webhook_id)
        args = (
            webhook.webhook_id, webhook.account, webhook.url, list(webhook.kinds), webhook.note,
            webhook.secrets[0], webhook.created_at, webhook.created_by,
        )  # fmt: skip
        row = await self._write(slot, lambda pool: pool.fetch(SQL["add"], slot, *args))
        return bool(row["outcome"] == "ok")

    async def find(self, webhook_id: str) -> Webhook | None:
        """Returns the webhook. None if there is none, or it is deleted."""
        slot = slot_of(webhook_id)
        row = (await self._router.read(slot, lambda pool: pool.fetch(SQL["find"], slot, webhook_id)))[0]
        return None if row["webhook_id"] is None else _webhook(row)

    async def change(
        self,
        webhook_id: str,
        *,
        url: str | None = None,
        kinds: Sequence[str] | None = None,
        note: str | None = None,
        secret: str | None = None,
        disabled_why: str | None = None,
        delete: bool = False,
    ) -> Webhook | None:
        """Changes what is not None and returns the webhook; None if there is none. `disabled_why` "" enables it."""
        slot = slot_of(webhook_id)
        args = (webhook_id, url, None if kinds is None else list(kinds), note, secret, disabled_why, delete)
        row = await self._write(slot, lambda pool: pool.fetch(SQL["change"], slot, *args))
        return None if row["outcome"] == "missing" else _webhook(row)

    async def all(self, account: str | None = None) -> tuple[list[Webhook], tuple[str, ...]]:
        """Returns the webhooks, newest first, and the shards whose webhooks are missing; of `account`, if named."""
        listed = await every_row_once(self._shards, SQL["all"], (account,))
        found = sorted(
            map(_webhook, listed.answers), key=lambda each: (each.created_at, each.webhook_id), reverse=True
        )
        return found, listed.silent

    # -- what the shards know of them ------------------------------------------------------------------------

    async def watch_everywhere(self, webhooks: Sequence[Webhook]) -> list[str]:
        """Lets every shard know of these webhooks. Returns the shards that do not answer."""
        while True:
            names = self.shard_names
            outcomes = await asyncio.gather(
                *(self.watch(name, webhooks) for name in names), return_exceptions=True
            )
            failed = [name for name, outcome in zip(names, outcomes, strict=True) if outcome is not None]
            for outcome in outcomes:
                if outcome is not None and not isinstance(outcome, ShardSilent):
                    raise outcome
            await self._shards.refresh()
            if set(self.shard_names) <= set(names):
                return failed

    async def watches(self, name: str) -> dict[str, int]:
        """Returns which version of which webhook a shard knows: 0 if it is to be told again. Raises
        ShardSilent."""
        return {
            row["webhook_id"]: row["version"] for row in await fetch_at(self._shards, name, SQL["watches"])
        }

    async def watch(self, name: str, webhooks: Sequence[Webhook], gone: Collection[str] = ()) -> None:
        """Lets a shard know of these webhooks, and forget those that are gone. Raises ShardSilent."""
        kinds = [_array(each.kinds if each.is_enabled else ()) for each in webhooks]
        await fetch_at(
            self._shards,
            name,
            SQL["watch"],
            [each.webhook_id for each in webhooks],
            [each.version for each in webhooks],
            [each.account for each in webhooks],
            kinds,
            [each.created_at for each in webhooks],
            list(gone),
        )

    # -- messages --------------------------------------------------------------------------------------------

    async def add_test(self, webhook_id: str, message_id: str, data: Mapping[str, Any]) -> None:
        """Adds a message that asks for nothing but an answer. A repeat with the same id changes nothing."""
        slot = slot_of(webhook_id)
        args = (webhook_id, message_id, json.dumps(data))
        await self._write(slot, lambda pool: pool.fetch(SQL["test"], slot, *args))

    async def page(
        self, webhook_id: str, limit: int, before: RowKey | None, state: MessageState | None
    ) -> tuple[list[Message], tuple[str, ...]]:
        """Returns up to `limit` messages of a webhook without what they say, newest first, and the shards whose
        messages are missing; with `state`, those that are in it."""
        keyset = (before.created_at, before.row_id) if before else (None, None)
        listed = await every_row_once(self._shards, SQL["page"], (webhook_id, limit, *keyset, state))
        found = sorted(
            map(_message, listed.answers), key=lambda each: (each.at, each.message_id), reverse=True
        )
        return found[:limit], listed.silent

    async def replay(self, webhook_id: str, message_id: str) -> bool:
        """Sends a message again. Whether there is such a one."""
        listed = await every_row_once(self._shards, SQL["place"], (webhook_id, message_id))
        if not listed.answers:
            if listed.silent:
                raise Unavailable(f"the message may be on {', '.join(listed.silent)}", retry_after_s=1.0)
            return False
        slot = listed.answers[0]["slot"]
        args = (slot, message_id, webhook_id)
        row = await self._write(slot, lambda pool: pool.fetch(SQL["replay"], *args))
        return bool(row["outcome"] == "ok")

    async def replay_dead(self, webhook_id: str) -> tuple[int, bool, tuple[str, ...]]:
        """Sends up to MESSAGES_PER_CALL messages per shard again that were given up.

        Returns how many, whether none was found to be left, and the shards whose messages are left.
        """
        replayed, silent, is_complete = 0, [], True
        for name in self.shard_names:
            try:
                (row,) = await fetch_at(self._shards, name, SQL["replay_dead"], webhook_id, MESSAGES_PER_CALL)
            except ShardSilent:
                silent.append(name)
            else:
                replayed += row["replayed"]
                is_complete = is_complete and row["replayed"] < MESSAGES_PER_CALL
        return replayed, is_complete and not silent, tuple(silent)

    async def gone(self) -> list[str]:
        """Returns the ids of webhooks that are deleted."""
        listed = await every_row_once(self._shards, SQL["gone"], ())
        return [row["webhook_id"] for row in listed.answers]

    async def purge(self, name: str, there: Sequence[str], gone: Sequence[str], days: int, kept: int) -> int:
        """Deletes some messages of a shard: all of webhooks that are gone, and old ones of the others. Returns how
        many; 0 if none was left. Raises ShardSilent."""
        args = (list(there), list(gone), days, kept, MESSAGES_PER_CALL)
        (row,) = await fetch_at(self._shards, name, SQL["purge"], *args)
        return int(row["purged"])

    async def notify_expired(self, name: str, since: datetime, code: str) -> tuple[datetime, str] | None:
        """Adds messages of links that have expired on a shard since then, the first ones after `code`.

        Returns where to go on; None if there are no more. Raises ShardSilent.
        """
        (row,) = await fetch_at(self._shards, name, SQL["notify_expired"], since, code, MESSAGES_PER_CALL)
        is_over = row["looked_at"] < MESSAGES_PER_CALL
        return None if is_over else (row["more_since"], row["more_code"])

    async def waiting(self, name: str) -> dict[str, tuple[int, float]]:
        """Returns of each webhook how many messages wait on a shard, and for how many seconds the first of them is
        due. Raises ShardSilent."""
        rows = await fetch_at(self._shards, name, SQL["waiting"])
        return {row["webhook_id"]: (row["waiting"], row["overdue_s"]) for row in rows}

    async def claim(self, name: str, holder: str, limits: Mapping[str, int], held_s: int) -> list[Message]:
        """Returns messages of a shard that are due, up to `limits` of each webhook; they are the holder's for
        `held_s` seconds. Raises ShardSilent."""
        rows = await fetch_at(
            self._shards, name, SQL["claim"], holder, list(limits), list(limits.values()), held_s
        )
        return list(map(_message, rows))

    async def release(self, name: str, holder: str) -> None:
        """Takes back what other senders hold at a shard. Raises ShardSilent."""
        released = MESSAGES_PER_CALL
        while released == MESSAGES_PER_CALL:
            (row,) = await fetch_at(self._shards, name, SQL["release"], holder, MESSAGES_PER_CALL)
            released = row["released"]

    async def settle(
        self,
        message: Message,
        holder: str,
        state: MessageState,
        wait_s: float,
        status: int | None,
        answer: str,
    ) -> None:
        """Notes what came of an attempt, unless another sender has taken the message meanwhile."""
        args = (message.slot, message.message_id, holder, state, wait_s, status, answer)
        await self._write(message.slot, lambda pool: pool.fetch(SQL["settle"], *args))

    async def _write(self, slot: int, call: Call) -> Mapping[str, Any]:
        return (await repeat_or_refuse(lambda: self._router.at_owner(slot, call)))[0]


def _array(words: Sequence[str]) -> str:
    return "{" + ",".join(words) + "}"


def _webhook(row: Mapping[str, Any]) -> Webhook:
    return Webhook(
        row["webhook_id"], row["version"], row["account"], row["url"], tuple(row["kinds"]), row["note"],
        tuple(row["secrets"]), row["rotated_at"], row["created_at"], row["created_by"], row["disabled_at"],
        row["disabled_why"],
    )  # fmt: skip


def _message(row: Mapping[str, Any]) -> Message:
    return Message(
        row["slot"], row["message_id"], row["webhook_id"], row["code"], row["kind"], row["at"],
        json.loads(row["data"]), MessageState(row["state"]), row["attempts"], row["due_at"], row["tried_at"],
        row["status"], row["answer"], )  # fmt: skip
