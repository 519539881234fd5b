"""The fence: which calls each state accepts, and that no write escapes a freeze."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import Any

import asyncpg
import pytest

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.errors import Unavailable
from snapurl.model import NewLink
from snapurl.store.batching.columns import create_row, create_rows
from snapurl.store.cluster.pool import Pool
from snapurl.store.links import SQL as LINKS
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.store.test_batched_creates import codes_at
from tests.support.roles import connected

NAMESPACE = 1397637456


async def set_state(connection: Any, slot: int, state: str) -> None:
    peer = None if state == "owned" else "db9"
    await connection.execute("UPDATE slots SET state = $2, peer = $3 WHERE slot = $1", slot, state, peer)


@pytest.mark.parametrize(
    ("state", "write", "read"),
    [
        ("owned", "ok", "ok"),
        ("leaving", "ok", "ok"),
        ("frozen", "busy", "ok"),
        ("closed", "busy", "busy"),
        ("importing", "moved", "moved"),
        ("released", "moved", "moved"),
        (None, "moved", "moved"),
    ],
)
async def test_each_state_accepts_the_calls_it_should(
    store: Store, direct: dict[str, Any], state: str | None, write: str, read: str
) -> None:
    """Writes pass in owned and leaving, reads also in frozen; a slot that the shard does not hold is moved."""
    slot = slot_of("probe")
    connection = direct[store.shards.map.owner(slot)]
    if state is None:
        await connection.execute("DELETE FROM slots WHERE slot = $1", slot)
    else:
        await set_state(connection, slot, state)
    fenced = await connection.fetchval("SELECT outcome FROM slot_fence_v1($1)", slot)
    many = await connection.fetchval("SELECT outcome FROM slots_fence_v1($1)", [slot, slot])
    reading = await connection.fetchval(
        "SELECT coalesce((SELECT read_outcome_v1(state) FROM slots WHERE slot = $1), 'moved')", slot
    )
    assert (fenced, many, reading) == (write, write, read)


@pytest.mark.parametrize("state", ["owned", "leaving", "frozen", "closed", "importing", "released", None])
async def test_bulk_creates_are_answered_like_single_ones(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker, state: str | None
) -> None:
    """Each link of a bulk call gets the answer that a single call would get: made, repeated, taken or refused."""
    shard = direct["db0"]
    codes = list(itertools.islice(codes_at(store, "db0"), 4))
    slot = slot_of(codes[3])
    if state is None:
        await shard.execute("DELETE FROM slots WHERE slot = $1", slot)
    else:
        await set_state(shard, slot, state)
    old = [new_link(code) for code in (codes[0], codes[3])]
    new = [new_link(codes[2]), old[0], new_link(codes[0]), new_link(codes[2]), old[1], new_link(codes[3])]
    answers = []
    for create in (one_by_one, create_rows):
        await shard.execute("DELETE FROM links")
        await create(store.shards.pool("db0"), old)
        rows = await create(store.shards.pool("db0"), new)
        refused = [(row["peer"], row["epoch"]) for row in rows if row["outcome"] in ("moved", "busy")]
        answers.append(([(row["outcome"], row["created_at"] is not None) for row in rows], refused))
        assert await shard.fetchval("SELECT count(*) FROM links") == (
            3 if state in ("owned", "leaving") else 2
        )
    assert answers[0] == answers[1]


async def one_by_one(pool: Pool, links: Sequence[NewLink]) -> Sequence[Any]:
    """Returns the answers to one call per link."""
    return [await create_row(pool, new) for new in links]


async def test_a_slot_that_arrives_while_bulk_creates_wait_is_asked_again(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A link that was refused because its slot was elsewhere is not reported as taken once the slot has arrived."""
    shard, pool = direct["db0"], store.shards.pool("db0")
    code, coming = itertools.islice(codes_at(store, "db0"), 2)
    await set_state(shard, slot_of(coming), "importing")
    async with connected(next(item.dsn for item in store.settings.shard_dsns if item.name == "db0")) as other:
        transaction = other.transaction()
        await transaction.start()
        await create_row(other, new_link(code))
        create = asyncio.create_task(create_rows(pool, [new_link(code), new_link(coming)]))
        await _until_waiting("db0", store.settings, "transactionid")
        await set_state(shard, slot_of(coming), "owned")
        await transaction.commit()
    assert [row["outcome"] for row in await create] == ["taken", "busy"]


async def test_bulk_creates_that_waited_for_a_freeze_see_it(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """After a bulk call waited for a freeze, its links in the frozen slot are refused and the others are made."""
    freezer = direct["db0"]
    codes = list(itertools.islice(codes_at(store, "db0"), 5))
    transaction = freezer.transaction()
    await transaction.start()
    await freezer.execute("SELECT pg_advisory_xact_lock($1, $2)", NAMESPACE, slot_of(codes[2]))
    write = asyncio.create_task(create_rows(store.shards.pool("db0"), [new_link(code) for code in codes]))
    await _until_waiting("db0", store.settings)
    await set_state(freezer, slot_of(codes[2]), "frozen")
    await transaction.commit()
    assert [row["outcome"] for row in await write] == ["ok", "ok", "busy", "ok", "ok"]
    assert await freezer.fetchval("SELECT count(*) FROM links") == 4


async def test_a_write_that_waited_for_a_freeze_sees_the_freeze(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A write that waited for a freeze is refused, not executed on the state from before the freeze."""
    slot = slot_of("probe")
    name = store.shards.map.owner(slot)
    freezer = direct[name]
    transaction = freezer.transaction()
    await transaction.start()
    await freezer.execute("SELECT pg_advisory_xact_lock($1, $2)", NAMESPACE, slot)
    write = asyncio.create_task(store.links.create(new_link("probe")))
    await _until_waiting(name, store.settings)
    await set_state(freezer, slot, "frozen")
    await transaction.commit()
    with pytest.raises(Unavailable):
        await write
    assert await freezer.fetchval("SELECT count(*) FROM links") == 0


async def _until_waiting(name: str, settings: Settings, kind: str = "advisory") -> None:
    """Returns when a backend waits for a lock of that kind on shard `name`."""
    dsn = next(item.dsn for item in settings.shard_dsns if item.name == name)
    watcher = await asyncpg.connect(dsn)
    try:
        for _ in range(500):
            if await watcher.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = $1 AND NOT granted", kind
            ):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nobody waits")
    finally:
        await watcher.close()


async def test_a_freeze_waits_for_a_write_that_passed_the_fence(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """The exclusive lock is not granted while a transaction that has passed the fence is open."""
    slot = slot_of("probe")
    dsn = next(item.dsn for item in store.settings.shard_dsns if item.name == store.shards.map.owner(slot))
    writer, freezer = await asyncpg.connect(dsn), await asyncpg.connect(dsn)
    try:
        transaction = writer.transaction()
        await transaction.start()
        assert await writer.fetchval("SELECT outcome FROM slot_fence_v1($1)", slot) == "ok"
        await freezer.execute("SET lock_timeout = '50ms'")
        with pytest.raises(asyncpg.LockNotAvailableError):
            await freezer.execute("SELECT pg_advisory_lock($1, $2)", NAMESPACE, slot)
        await transaction.commit()
        await freezer.execute("SELECT pg_advisory_lock($1, $2)", NAMESPACE, slot)
    finally:
        await writer.close()
        await freezer.close()


async def test_a_fenced_write_refuses_other_isolation_levels(store: Store, direct: dict[str, Any]) -> None:
    """The fence refuses to run under REPEATABLE READ, which would read the state from before the lock."""
    connection = direct["db0"]
    with pytest.raises(asyncpg.RaiseError, match="READ COMMITTED"):
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch("SELECT * FROM slot_fence_v1(1::smallint)")
    with pytest.raises(asyncpg.RaiseError, match="READ COMMITTED"):
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch(LINKS["create_many"], *([] for _ in range(19)))
