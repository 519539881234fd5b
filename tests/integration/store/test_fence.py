"""The fence: what each state lets through, and that a freeze cannot be outrun."""

from __future__ import annotations

import asyncio
from typing import Any

import asyncpg
import pytest

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.errors import Unavailable
from tests.integration.store.conftest import NewLinkMaker, Store

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
async def test_each_state_lets_through_what_it_should(
    store: Store, direct: dict[str, Any], state: str | None, write: str, read: str
) -> None:
    """Writes pass in owned and leaving, reads also in frozen; a slot that is not here is moved."""
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


async def test_a_write_that_waited_for_a_freeze_sees_the_freeze(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A write that waited for a freeze is refused, not carried out on the state from before it."""
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


async def _until_waiting(name: str, settings: Settings) -> None:
    """Returns when somebody waits for an advisory lock on shard `name`."""
    dsn = next(item.dsn for item in settings.shard_dsns if item.name == name)
    watcher = await asyncpg.connect(dsn)
    try:
        for _ in range(500):
            if await watcher.fetchval(
                "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
            ):
                return
            await asyncio.sleep(0.01)
        raise AssertionError("nobody waits for the freeze")
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
    """Under REPEATABLE READ the state would be read from before the lock, so the fence refuses to run."""
    connection = direct["db0"]
    with pytest.raises(asyncpg.RaiseError, match="READ COMMITTED"):
        async with connection.transaction(isolation="repeatable_read"):
            await connection.fetch("SELECT * FROM slot_fence_v1(1::smallint)")
