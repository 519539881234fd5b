"""Links in the shards. Every call goes to the owner of the slot.

What happens after a lost reply. A create carries a token that its row keeps. The call is repeated: if the first one
was committed, the second finds its own row. A change carries a token too, and a change that names a version is
repeated likewise. Any other change is not repeated, because that could undo a later change of another client.
Instead the row is read: if it has the token, the change was made. If not, the call raises OutcomeUnknown.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from typing import Any, TypeVar

from pydantic_core import to_json

from ring.slots import slot_of
from snapurl.errors import (
    Gone,
    NotFound,
    OutcomeUnknown,
    SnapURLError,
    Unavailable,
    VersionMismatch,
)
from snapurl.history import LinkHistory, changes_of
from snapurl.model import (
    LINK_FIELDS,
    CachedLink,
    Failed,
    IdempotencyKey,
    IdempotencyRecord,
    ImportedDay,
    Link,
    LinkCount,
    LinkOrder,
    LinkPatch,
    LinkQuery,
    ListedLinks,
    NewLink,
    PageKey,
    TagCounts,
    Taken,
    link_values,
)
from snapurl.store.batching.bulk import BulkCall, Unsettled, repeat_or_refuse
from snapurl.store.batching.columns import create_rows, import_day_rows, import_rows
from snapurl.store.batching.creates import CreateBatcher
from snapurl.store.batching.reads import ReadBatcher
from snapurl.store.batching.uses import Use, UseBatcher
from snapurl.store.cluster.pool import Pool, Row, ShardFailed
from snapurl.store.cluster.router import Call, Router
from snapurl.store.cluster.shards import Shards
from snapurl.store.pages import link_of, read_count, read_page, read_tags
from snapurl.store.queries import load_queries
from snapurl.store.tokens import random_token
from snapurl.telemetry.metrics import WRITES_REFUSED

SQL = load_queries("links")
BULK_CALLS_AT_ONCE = 2  # per process: each holds a lock per slot, and PostgreSQL's lock table is bounded
SEARCHES_AT_ONCE = 2  # per process: each holds a connection to every shard, which redirects need too
SEARCH_WAIT_S = 2.0

R = TypeVar("R")


class LinkStore:
    """Creates, reads, changes and lists links over all shards. Raises Unavailable when a shard does not answer."""

    def __init__(self, shards: Shards, router: Router) -> None:
        self._shards = shards
        self._router = router
        self._creates = CreateBatcher(lambda code: shards.map.owner(slot_of(code)), shards.serves)
        self._reads = ReadBatcher(shards, router)
        self._uses = UseBatcher(router)
        self._bulk = asyncio.Semaphore(BULK_CALLS_AT_ONCE)
        self._searches = asyncio.Semaphore(SEARCHES_AT_ONCE)

    async def close(self) -> None:
        """Cancels the creates, the uses and the reads of `find` that have no answer."""
        await self._uses.stop()
        await self._reads.stop()
        await self._creates.stop()

    def new_code(self, domain: str = "") -> str:
        """Returns the key of a generated code. It is probably free; the create finds out."""
        return self._creates.new_code(domain)

    def new_codes(self, count: int, domain: str = "") -> list[str]:
        """Returns the keys of generated codes for a bulk create."""
        return self._creates.new_codes(count, domain)

    async def create(self, new: NewLink) -> Link | Taken:
        """Returns the link as created, or Taken. A repeat with the same token returns the same."""
        slot = slot_of(new.code)

        async def call(pool: Pool) -> Sequence[Mapping[str, Any]]:
            return await self._creates.create(pool, new)

        try:
            row = (await repeat_or_refuse(lambda: self._router.at_owner(slot, call)))[0]
        except (Unavailable, OutcomeUnknown) as refusal:
            WRITES_REFUSED.labels(refusal.cause).inc()
            raise
        return _created_or_taken(new, row)

    async def create_many(self, new: Sequence[NewLink]) -> list[Link | Taken | Failed]:
        """Creates many links with one call per shard. Returns one result per link, in their order."""
        return await self._create_many(new, create_rows, _created_or_taken)

    async def import_many(self, new: Sequence[NewLink]) -> list[Taken | Failed | None]:
        """As `create_many`, with the origin of each link. Returns None for each that was created.

        A code that is taken says where it leads.
        """
        return await self._create_many(new, import_rows, _imported_or_taken)

    async def import_days(self, days: Sequence[ImportedDay]) -> list[Failed | bool]:
        """Writes days of imported visits, in place of what is there. Returns whether there is the link of each.

        No link has the same day twice.
        """
        bulk = BulkCall[ImportedDay, bool](
            self._router,
            self._shards,
            lambda item: slot_of(item.code),
            import_day_rows,
            lambda _, row: bool(row["outcome"] == "ok"),
        )
        async with self._bulk:
            answers = await bulk.run(days)
        return [
            Failed(item.code, found.detail, outcome_known=True) if isinstance(found, Unsettled) else found
            for item, found in zip(days, answers, strict=True)
        ]

    async def _create_many(
        self,
        new: Sequence[NewLink],
        send: Callable[[Pool, Sequence[NewLink]], Awaitable[Sequence[Row]]],
        answer: Callable[[NewLink, Row], R],
    ) -> list[R | Failed]:
        bulk = BulkCall[NewLink, R](self._router, self._shards, lambda item: slot_of(item.code), send, answer)
        async with self._bulk:
            answers = await bulk.run(new)
        return [
            _failed(item, found) if isinstance(found, Unsettled) else found
            for item, found in zip(new, answers, strict=True)
        ]

    async def get(self, code: str) -> Link | None:
        """Returns the row as its owner has it now, also when expired or deleted; None if there is no row."""
        row = await self._row(code)
        return None if row["code"] is None else link_of(row)

    async def history(self, code: str) -> LinkHistory | None:
        """Returns the link and its changes, as `get` returns the link."""
        row = await self._row(code, "history")
        return None if row["code"] is None else LinkHistory(link_of(row), changes_of(row["changes"]))

    def find(self, code: str) -> Awaitable[CachedLink]:
        """Reads what a redirect needs of a link, in a batch with other reads. MISSING if there is no row."""
        return self._reads.find(code)

    async def use(self, code: str, version: int, *, takes: bool) -> Use:
        """Returns whether a request may redirect to a link with `max_clicks`; `takes`: it uses one up.

        Raises Unavailable.
        """
        return await self._uses.use(code, version, takes=takes)

    async def used(self, code: str) -> int:
        """Returns how many uses of a link with `max_clicks` were given. Raises Unavailable."""
        return int((await self._row(code, "used"))["used"] or 0)

    async def _row(self, code: str, query: str = "get") -> Mapping[str, Any]:
        slot = slot_of(code)
        return (await self._router.read(slot, lambda pool: pool.fetch(SQL[query], slot, code)))[0]

    async def change(
        self,
        code: str,
        patch: LinkPatch,
        *,
        if_match: int | None,
        owner: str | None,
        token: uuid.UUID,
        by: str = "",
    ) -> Link:
        """Returns the changed link. `owner` None is an admin, `by` the key_id of the API key that changes it.

        Raises NotFound, also for a link of another owner, Gone, VersionMismatch, OutcomeUnknown, Unavailable.
        """
        return await self._change(code, if_match, owner, by, token, delete=False, values=patch.values)

    async def delete(
        self, code: str, *, if_match: int | None, owner: str | None, token: uuid.UUID, by: str = ""
    ) -> Link:
        """Makes the link a tombstone and returns it. Raises as `change` does."""
        return await self._change(code, if_match, owner, by, token, delete=True, values={})

    async def transfer(
        self, code: str, account_id: str, *, if_match: int | None, by: str, token: uuid.UUID
    ) -> Link:
        """Returns the link, which belongs to that account now; `by` is the id of a key. Raises as `change` does."""
        args = (slot_of(code), code, if_match, account_id, by, token)
        return await self._write(code, if_match, token, lambda pool: pool.fetch(SQL["transfer"], *args))

    async def rename(
        self,
        code: str,
        new: str,
        *,
        gives_up: bool,
        if_match: int,
        owner: str | None,
        token: uuid.UUID,
        by: str = "",
    ) -> Link:
        """Marks the link as renamed to the code `new`, makes it a tombstone if it `gives_up` its own. Raises as
        `change` does."""
        args = (slot_of(code), code, if_match, owner, by, token, new, gives_up)
        return await self._write(code, if_match, token, lambda pool: pool.fetch(SQL["rename"], *args))

    async def restore(
        self, code: str, *, if_match: int | None, owner: str | None, token: uuid.UUID, by: str = ""
    ) -> Link:
        """Returns the link, which is no longer deleted. Raises as `change` does, Gone if it is too late."""
        args = (slot_of(code), code, if_match, owner, by, token)
        return await self._write(code, if_match, token, lambda pool: pool.fetch(SQL["restore"], *args))

    async def _change(
        self,
        code: str,
        if_match: int | None,
        owner: str | None,
        by: str,
        token: uuid.UUID,
        *,
        delete: bool,
        values: Mapping[str, Any],
    ) -> Link:
        args = (
            slot_of(code), code, if_match, owner, by, token, delete, list(values),
            *map(values.get, LINK_FIELDS),
        )  # fmt: skip
        return await self._write(code, if_match, token, lambda pool: pool.fetch(SQL["change"], *args))

    async def _write(self, code: str, if_match: int | None, token: uuid.UUID, call: Call) -> Link:
        slot = slot_of(code)
        try:
            if if_match is not None:
                # Both the original and the repeat require that version, so at most one of them changes the row.
                row = (await repeat_or_refuse(lambda: self._router.at_owner(slot, call)))[0]
            else:
                row = await self._once(slot, call, code, token)
        except (Unavailable, OutcomeUnknown) as refusal:
            WRITES_REFUSED.labels(refusal.cause).inc()
            raise
        _raise_for(row["outcome"], code)
        return link_of(row)

    async def _once(self, slot: int, call: Call, code: str, token: uuid.UUID) -> Mapping[str, Any]:
        try:
            return (await self._router.at_owner(slot, call))[0]
        except ShardFailed as error:
            if not error.sent:
                raise error.as_unavailable() from error
        return await self._read_outcome(code, token)

    async def _read_outcome(self, code: str, token: uuid.UUID) -> Mapping[str, Any]:
        try:
            row = await self._row(code)
        except Unavailable:
            raise OutcomeUnknown(retry_after_s=1.0) from None
        if row["code"] is not None and row["change_token"] == token:
            return row
        raise OutcomeUnknown(retry_after_s=1.0)

    async def page(self, query: LinkQuery, limit: int, after: PageKey | None = None) -> ListedLinks:
        """Returns up to `limit` links of a list, after `after`. Raises Unavailable."""
        async with self._search(query.text is not None or query.order is LinkOrder.CLICKS):
            return await read_page(self._shards, query, limit, after)

    async def count(self, query: LinkQuery) -> LinkCount | None:
        """Returns how many links a list has; None if a part cannot be counted now. Raises Unavailable."""
        async with self._search(True):
            return await read_count(self._shards, query)

    async def tags(self, query: LinkQuery, prefix: str, limit: int) -> TagCounts:
        """Returns up to `limit` tags of a list that begin with `prefix`, most links first. Raises Unavailable."""
        async with self._search(True):
            return await read_tags(self._shards, query, prefix, limit)

    @asynccontextmanager
    async def _search(self, is_long: bool) -> AsyncIterator[None]:
        """Lets SEARCHES_AT_ONCE long reads run at a time. Raises Unavailable after SEARCH_WAIT_S."""
        if not is_long:
            yield
            return
        try:
            async with asyncio.timeout(SEARCH_WAIT_S):
                await self._searches.acquire()
        except TimeoutError:
            raise Unavailable("too many searches run", is_public=True, retry_after_s=1.0) from None
        try:
            yield
        finally:
            self._searches.release()

    async def reserve(self, key: IdempotencyKey, fingerprint: bytes) -> IdempotencyRecord:
        """Stores an Idempotency-Key and returns its record. If it was stored within 24 hours, returns that record.

        Raises Unavailable.
        """
        found = (await self.reserve_many([(key, fingerprint)]))[0]
        if isinstance(found, Failed):
            raise Unavailable(found.detail, retry_after_s=1.0)
        return found

    async def reserve_many(
        self, keys: Sequence[tuple[IdempotencyKey, bytes]]
    ) -> list[IdempotencyRecord | Failed]:
        """As `reserve` for each key and fingerprint, with one call per shard."""
        bulk = BulkCall[_Reservation, IdempotencyRecord](
            self._router,
            self._shards,
            lambda item: slot_of(item.key_hash),
            _reserve_rows,
            lambda _, row: IdempotencyRecord(row["nonce"], row["fingerprint"]),
        )
        async with self._bulk:
            answers = await bulk.run([_Reservation(key, fingerprint) for key, fingerprint in keys])
        return [
            Failed("", found.detail, outcome_known=True) if isinstance(found, Unsettled) else found
            for found in answers
        ]

    async def purge_idempotency_records(self, batch: int) -> int:
        """Deletes expired records, up to `batch` per shard that answers. Returns how many were deleted."""
        purged = 0
        for shard in self._shards.topology.shards:
            try:
                row = await self._shards.pool(shard.name).fetchrow(SQL["purge_idempotency_records"], batch)
            except ShardFailed:
                continue
            purged += int(row["purged"])
        return purged


class _Reservation:
    """An IdempotencyKey to be stored: by its SHA-256, so that the row says nothing of the client."""

    __slots__ = ("fingerprint", "key_hash", "token")

    def __init__(self, key: IdempotencyKey, fingerprint: bytes) -> None:
        self.key_hash = sha256(f"{key.scope}\0{key.key}".encode()).hexdigest()
        self.fingerprint = fingerprint
        self.token = random_token()

    def as_item(self, place: int) -> dict[str, Any]:
        return {
            "place": place,
            "slot": slot_of(self.key_hash),
            "key_hash": self.key_hash,
            "nonce": str(self.token),
            "fingerprint": self.fingerprint.hex(),
        }


async def _reserve_rows(pool: Pool, items: Sequence[_Reservation]) -> Sequence[Mapping[str, Any]]:
    payload = to_json([item.as_item(place) for place, item in enumerate(items)]).decode()
    return sorted(await pool.fetch(SQL["reserve"], payload), key=lambda row: int(row["place"]))


def _failed(new: NewLink, why: Unsettled) -> Failed:
    WRITES_REFUSED.labels(why.cause).inc()
    return Failed(new.code, why.detail, outcome_known=why.known)


def _created_or_taken(new: NewLink, row: Mapping[str, Any]) -> Link | Taken:
    if row["outcome"] == "taken":
        return Taken(new.code)
    return Link(
        *link_values(new.fields),
        code=new.code,
        created_at=row["created_at"],
        deleted_at=None,
        owner=new.owner,
        version=1,
        created_by=new.created_by,
    )


def _imported_or_taken(new: NewLink, row: Mapping[str, Any]) -> Taken | None:
    if row["outcome"] == "taken":
        return Taken(new.code, row["url"])
    return None if row["created_at"] else Taken(new.code, row["url"], is_own=True)


_REFUSALS: dict[str, type[SnapURLError]] = {
    "missing": NotFound,
    "forbidden": NotFound,
    "gone": Gone,
    "mismatch": VersionMismatch,
}


def _raise_for(outcome: str, code: str) -> None:
    if refusal := _REFUSALS.get(outcome):
        raise refusal()
    assert outcome == "ok", f"unexpected outcome {outcome} for {code}"
