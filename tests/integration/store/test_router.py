"""The router finds a slot that has moved or is moving."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.errors import Unavailable
from snapurl.model import Link
from tests.integration.store.conftest import NewLinkMaker, Store


async def hand_over(direct: dict[str, Any], slot: int, source: str, target: str) -> None:
    """Moves one slot with its rows by SQL, and leaves it as a finished hand-off does."""
    rows = await direct[source].fetch("SELECT * FROM links WHERE slot = $1", slot)
    columns = ", ".join(rows[0].keys()) if rows else ""
    for row in rows:
        marks = ", ".join(f"${n}" for n in range(1, len(row) + 1))
        await direct[target].execute(f"INSERT INTO links ({columns}) VALUES ({marks})", *row.values())
    await direct[source].execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot)
    epoch = await direct[source].fetchval("SELECT epoch FROM slots WHERE slot = $1", slot) + 1
    await direct[target].execute(
        "INSERT INTO slots (slot, state, epoch) VALUES ($1, 'owned', $2)", slot, epoch
    )
    await direct[source].execute(
        "UPDATE slots SET state = 'released', peer = $2, epoch = $3 WHERE slot = $1", slot, target, epoch
    )


def other(name: str) -> str:
    return "db1" if name == "db0" else "db0"


async def test_calls_follow_a_slot_that_has_moved(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A process with an outdated map reads and writes a moved link without an error."""
    await store.links.create(new_link("wander"))
    slot = slot_of("wander")
    source = store.shards.map.owner(slot)
    await hand_over(direct, slot, source, other(source))
    found = await store.links.get("wander")
    assert found is not None
    await store.links.delete("wander", if_match=None, owner=None, token=new_link("x").token)
    assert store.shards.map.owner(slot) == other(source)


async def test_a_stale_claim_never_undoes_a_newer_one(store: Store) -> None:
    """The claim with the higher epoch wins, in whichever order two claims to a slot arrive."""
    assert store.shards.map.learn(7, "db2", 9)
    assert not store.shards.map.learn(7, "db3", 9)
    assert not store.shards.map.learn(7, "db3", 3)
    assert store.shards.map.owner(7) == "db2"


async def test_a_call_waits_out_a_hand_off(
    store: Store, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A create that meets a slot in hand-off succeeds as soon as the slot is owned again."""
    slot = slot_of("patient")
    connection = direct[store.shards.map.owner(slot)]
    await connection.execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot)
    create = asyncio.create_task(store.links.create(new_link("patient")))
    await asyncio.sleep(0.05)
    assert not create.done()
    await connection.execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", slot)
    assert isinstance(await create, Link)


async def test_waiting_calls_hold_no_connection(
    ready: Settings, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """While ten calls wait for a hand-off, the only connection to the shard serves another slot."""
    store = await Store.open(ready.model_copy(update={"pool_connections": 1, "busy_wait_ms": 3000}))
    try:
        slot = slot_of("stuck")
        name = store.shards.map.owner(slot)
        free = next(
            code
            for code in map(str, range(999))
            if store.shards.map.owner(slot_of(code)) == name and slot_of(code) != slot
        )
        await direct[name].execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot)
        waiting = [asyncio.create_task(store.links.get("stuck")) for _ in range(10)]
        await asyncio.sleep(0.05)
        assert isinstance(await store.links.create(new_link(free)), Link)
        assert not any(task.done() for task in waiting)
        await direct[name].execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", slot)
        assert await asyncio.gather(*waiting) == [None] * 10
    finally:
        await store.shards.close()


async def test_a_hand_off_that_lasts_too_long_is_a_503(
    ready: Settings, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """A call to a slot that stays in hand-off beyond the bound is refused with a Retry-After."""
    store = await Store.open(ready.model_copy(update={"busy_wait_ms": 100}))
    try:
        slot = slot_of("stuck")
        await direct[store.shards.map.owner(slot)].execute(
            "UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot
        )
        for call in (store.links.get("stuck"), store.links.create(new_link("stuck"))):
            with pytest.raises(Unavailable) as caught:
                await call
            assert caught.value.retry_after_s
    finally:
        await store.shards.close()
