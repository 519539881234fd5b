"""Links in the shards: every call finds the owner of the slot by itself.

A lost reply is never guessed at. A create carries a token that its row keeps, so it is simply called
again: if the first call had committed, the second finds its own row. A change carries a token too, and one
that names the version it is for is repeated likewise. Any other change is not repeated, since that could undo
somebody else's later one: the row is asked whether it bears the token, and if not the caller is told so
(`OutcomeUnknown`).
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Mapping, Sequence
from hashlib import sha256
from typing import Any, TypeVar

from pydantic_core import to_json

from ring.slots import slot_of
from snapurl.errors import (
    Forbidden,
    Gone,
    NotFound,
    OutcomeUnknown,
    SnapURLError,
    Unavailable,
    VersionMismatch,
)
from snapurl.model import CachedLink, Change, Failed, Intent, Link, NewLink, PageKey, Taken, Unset
from snapurl.store.batching.bulk import BulkCall, Unsettled, repeat_lost
from snapurl.store.batching.columns import create_rows
from snapurl.store.batching.creates import CreateBatcher
from snapurl.store.batching.reads import ReadBatcher
from snapurl.store.cluster.fanout import every_slot_once
from snapurl.store.cluster.pool import Pool, ShardFailed
from snapurl.store.cluster.router import Call, Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.queries import load_queries
from snapurl.store.tokens import random_token
from snapurl.telemetry.metrics import WRITES_REFUSED

SQL = load_queries("links")
BULK_CALLS_AT_ONCE = 2  # per process: each holds a lock per slot, and PostgreSQL's lock table is bounded

R = TypeVar("R")


class LinkStore:
    """Creates, reads, changes and lists links over all shards. Raises Unavailable when a shard is silent."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router
        self._creates = CreateBatcher(lambda code: shards.map.owner(slot_of(code)), shards.serves)
        self._reads = ReadBatcher(shards, router)
        self._bulk = asyncio.Semaphore(BULK_CALLS_AT_ONCE)

    async def close(self) -> None:
        """Cancels the creates and the reads of `find` that have no answer."""
        await self._reads.stop()
        await self._creates.stop()

    def new_code(self) -> str:
        """A code for a link, made up; that it is free is likely, and seen when the link is created."""
        return self._creates.new_code()

    def new_codes(self, count: int) -> list[str]:
        """Codes for links that are created in bulk."""
        return self._creates.new_codes(count)

    async def create(self, new: NewLink) -> Link | Taken:
        """The link as created, or Taken. Calling again with the same token answers the same."""
        slot = slot_of(new.code)

        async def call(pool: Pool) -> Sequence[Mapping[str, Any]]:
            return await self._creates.create(pool, new)

        try:
            row = (await _repeat(lambda: self._router.at_owner(slot, call)))[0]
        except (Unavailable, OutcomeUnknown) as refusal:
            WRITES_REFUSED.labels(refusal.cause).inc()
            raise
        return _created_or_taken(new, row)

    async def create_many(self, new: Sequence[NewLink]) -> list[Link | Taken | Failed]:
        """As `create` for each, with one call per shard; what cannot be done now is Failed, item by item."""
        bulk = BulkCall[NewLink, Link | Taken](
            self._router, self._shards, lambda item: slot_of(item.code), create_rows, _created_or_taken
        )
        async with self._bulk:
            answers = await bulk.run(new)
        return [
            _failed(item, found) if isinstance(found, Unsettled) else found
            for item, found in zip(new, answers, strict=True)
        ]

    async def get(self, code: str) -> Link | None:
        """The row as its owner has it now, also when expired or deleted; None if there is none."""
        row = await self._row(code)
        return None if row["code"] is None else _link(row)

    def find(self, code: str) -> Awaitable[CachedLink]:
        """As `get`, but only what a redirect needs, and MISSING if there is none. Reads are batched."""
        return self._reads.find(code)

    async def _row(self, code: str) -> Mapping[str, Any]:
        slot = slot_of(code)
        return (await self._router.read(slot, lambda pool: pool.fetch(SQL["get"], slot, code)))[0]

    async def change(
        self, code: str, change: Change, *, if_match: int | None, owner: str | None, token: uuid.UUID
    ) -> Link:
        """The changed link. `owner` None is an admin. Raises NotFound, Forbidden, Gone, VersionMismatch,
        OutcomeUnknown, Unavailable."""
        values = {
            name: value
            for name in ("url", "title", "tags", "redirect_status", "expires_at")
            if not isinstance(value := getattr(change, name), Unset)
        }
        return await self._write(code, if_match, owner, token, delete=False, values=values)

    async def delete(self, code: str, *, if_match: int | None, owner: str | None, token: uuid.UUID) -> Link:
        """The tombstone that the link has become. Raises as `change` does."""
        return await self._write(code, if_match, owner, token, delete=True, values={})

    async def _write(
        self,
        code: str,
        if_match: int | None,
        owner: str | None,
        token: uuid.UUID,
        *,
        delete: bool,
        values: Mapping[str, Any],
    ) -> Link:
        slot = slot_of(code)

        async def call(pool: Pool) -> Sequence[Mapping[str, Any]]:
            return await pool.fetch(
                SQL["change"], slot, code, if_match, owner, token, delete, list(values),
                values.get("url"), values.get("title"), list(values.get("tags") or ()),
                values.get("redirect_status"), values.get("expires_at"),
            )  # fmt: skip

        try:
            if if_match is not None:
                # Original and repeat both need that version, so at most one of them changes anything.
                row = (await _repeat(lambda: self._router.at_owner(slot, call)))[0]
            else:
                row = await self._once(slot, call, code, token)
        except (Unavailable, OutcomeUnknown) as refusal:
            WRITES_REFUSED.labels(refusal.cause).inc()
            raise
        _raise_for(row["outcome"], code)
        return _link(row)

    async def _once(self, slot: int, call: Call, code: str, token: uuid.UUID) -> Mapping[str, Any]:
        try:
            return (await self._router.at_owner(slot, call))[0]
        except ShardFailed as error:
            if not error.sent:
                raise error.as_unavailable() from error
        return await self._ask_outcome(code, token)

    async def _ask_outcome(self, code: str, token: uuid.UUID) -> Mapping[str, Any]:
        try:
            row = await self._row(code)
        except Unavailable:
            raise OutcomeUnknown(retry_after_s=1.0) from None
        if row["code"] is not None and row["change_token"] == token:
            return row
        raise OutcomeUnknown(retry_after_s=1.0)

    async def page(self, limit: int, before: PageKey | None, owner: str | None) -> list[Link]:
        """Up to `limit` links that are not deleted, newest first over all shards; `owner` None lists all.

        Every shard also says for which slots it answers, in the same snapshot as its rows. Only when those
        sets cover each slot exactly once is no link shown twice or left out while slots move.
        """
        args: tuple[object, ...] = (
            limit,
            before.created_at if before else None,
            before.code if before else None,
        )
        if owner is None:
            rows = await every_slot_once(self._shards, SQL["page"], args)
        else:
            rows = await every_slot_once(self._shards, SQL["page_of_owner"], (*args, owner))
        links = sorted(map(_link, rows), key=lambda link: (link.created_at, link.code), reverse=True)
        return links[:limit]

    async def claim(self, scope: str, key: str, fingerprint: bytes) -> Intent:
        """What an Idempotency-Key stands for; the first claim within 24 hours wins and is answered to all."""
        found = (await self.claim_many([(scope, key, fingerprint)]))[0]
        if isinstance(found, Failed):
            raise Unavailable(found.detail, retry_after_s=1.0)
        return found

    async def claim_many(self, claims: Sequence[tuple[str, str, bytes]]) -> list[Intent | Failed]:
        """As `claim` for each (scope, key, fingerprint), with one call per shard."""
        items = [
            _Claim(sha256(f"{scope}\0{key}".encode()).hexdigest(), print_) for scope, key, print_ in claims
        ]
        bulk = BulkCall[_Claim, Intent](
            self._router,
            self._shards,
            lambda item: slot_of(item.key_hash),
            _intent_rows,
            lambda _, row: Intent(row["nonce"], row["fingerprint"]),
        )
        async with self._bulk:
            answers = await bulk.run(items)
        return [
            Failed("", found.detail, outcome_known=True) if isinstance(found, Unsettled) else found
            for found in answers
        ]

    async def purge_intents(self, batch: int) -> int:
        """Deletes expired intents, up to `batch` per shard that answers; how many went."""
        purged = 0
        for shard in self._shards.topology.shards:
            try:
                row = await self._shards.pool(shard.name).fetchrow(SQL["purge_intents"], batch)
            except ShardFailed:
                continue
            purged += int(row["purged"])
        return purged


class _Claim:
    __slots__ = ("fingerprint", "key_hash", "nonce")

    def __init__(self, key_hash: str, fingerprint: bytes) -> None:
        self.key_hash = key_hash
        self.fingerprint = fingerprint
        self.nonce = random_token()

    def as_item(self, place: int) -> dict[str, Any]:
        return {
            "place": place,
            "slot": slot_of(self.key_hash),
            "key_hash": self.key_hash,
            "nonce": str(self.nonce),
            "fingerprint": self.fingerprint.hex(),
        }


async def _intent_rows(pool: Pool, claims: Sequence[_Claim]) -> Sequence[Mapping[str, Any]]:
    payload = to_json([claim.as_item(place) for place, claim in enumerate(claims)]).decode()
    return sorted(await pool.fetch(SQL["claim"], payload), key=lambda row: int(row["place"]))


async def _repeat(call: Callable[[], Awaitable[R]]) -> R:
    """As `repeat_lost`, with the failure as a client hears it."""
    try:
        return await repeat_lost(call)
    except ShardFailed as error:
        if error.sent:
            raise OutcomeUnknown(retry_after_s=1.0) from error
        raise error.as_unavailable() from error


def _failed(new: NewLink, why: Unsettled) -> Failed:
    WRITES_REFUSED.labels(why.cause).inc()
    return Failed(new.code, why.detail, outcome_known=why.known)


def _created_or_taken(new: NewLink, row: Mapping[str, Any]) -> Link | Taken:
    if row["outcome"] == "taken":
        return Taken(new.code)
    return Link(
        code=new.code,
        url=new.url,
        title=new.title,
        tags=new.tags,
        redirect_status=new.redirect_status,
        created_at=row["created_at"],
        expires_at=new.expires_at,
        deleted_at=None,
        owner=new.owner,
        version=1,
    )


def _link(row: Mapping[str, Any]) -> Link:
    return Link(
        code=row["code"],
        url=row["url"],
        title=row["title"],
        tags=tuple(row["tags"]),
        redirect_status=row["redirect_status"],
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        deleted_at=row["deleted_at"],
        owner=row["owner"],
        version=row["version"],
    )


_REFUSALS: dict[str, type[SnapURLError]] = {
    "missing": NotFound,
    "forbidden": Forbidden,
    "gone": Gone,
    "mismatch": VersionMismatch,
}


def _raise_for(outcome: str, code: str) -> None:
    if refusal := _REFUSALS.get(outcome):
        raise refusal()
    assert outcome == "ok", f"unexpected outcome {outcome} for {code}"
