"""Writers that a freeze must wait for, and writers that it must not wait for indefinitely."""

from __future__ import annotations

import asyncio
import itertools
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import tools.transfer.executor
from ring.slots import slot_of
from snapurl.local import postgres_server
from snapurl.local.cluster import LocalCluster
from snapurl.model import LinkPatch
from tests.faults.pair import Pair, new_link, open_pair
from tests.faults.wire import When
from tests.support.waits import HANG_S, until
from tools.migrator.loop import Migrator, Options

CHANGE = (
    "SELECT outcome FROM link_change_v1($1, $2, NULL, NULL, $3, false, '{title}', NULL, $4, NULL, NULL, NULL)"
)


@asynccontextmanager
async def migrating(pair: Pair) -> AsyncIterator[Migrator]:
    """Runs a migrator during the block."""
    await pair.forget_lease()
    migrator, stop = Migrator(pair.settings, Options(grace_s=0.0)), asyncio.Event()
    running = asyncio.create_task(migrator.run(stop))
    try:
        yield migrator
    finally:
        stop.set()
        await running


async def has_given_up(migrator: Migrator) -> str:
    """Waits until the migrator gives up a move. Returns its error."""
    async with asyncio.timeout(HANG_S):
        while "held the lock of one of the slots for too long" not in migrator.status.last_error:
            await asyncio.sleep(0.02)
    return migrator.status.last_error


async def state(connection: Any, slot: int) -> str:
    return str(await connection.fetchval("SELECT state FROM slots WHERE slot = $1", slot))


async def write_and_wait(pair: Pair, source: str, found: str) -> tuple[Any, Any, str]:
    """A write to a slot in state `found` that has passed the fence and has not committed: its connection, its
    transaction, its code. Other batches go on meanwhile: a slot may have been frozen before the write comes."""
    connection = await pair.connect(source)
    for code in pair.traffic.acked:
        if await state(connection, slot_of(code)) != found:
            continue
        transaction = connection.transaction()
        await transaction.start()
        if await connection.fetchval(CHANGE, slot_of(code), code, uuid.uuid4(), "slow") == "ok":
            return connection, transaction, code
        await transaction.rollback()
    raise AssertionError(f"no write was taken in a slot that is {found}")


async def test_a_write_that_passed_the_check_and_commits_after_the_freeze_is_waited_for(pair: Pair) -> None:
    """A freeze waits for a write under way, and the write moves with the slot."""
    pair.whole = False
    source, _ = await pair.reverse()
    wire = pair.wires[source]
    frozen = wire.set_trip(When.BEFORE, "handoff_freeze_v1")
    process = await pair.process()
    await asyncio.wait_for(frozen.reached.wait(), HANG_S)
    connection, transaction, code = await write_and_wait(pair, source, "leaving")
    frozen.deliver()
    await asyncio.sleep(0.2)
    looker = await pair.connect(source)
    assert await state(looker, slot_of(code)) == "leaving"
    await transaction.commit()
    version = pair.traffic.acked[code][0] + 1
    pair.traffic.acked[code] = (version, "slow")
    await process.finishes()
    await pair.check()
    link = await pair.traffic.store.links.get(code)
    assert link is not None
    assert (link.version, link.title) == (version, "slow")
    await asyncio.gather(connection.close(), looker.close())
    pair.whole = True


async def test_a_transaction_left_idle_makes_the_move_give_up_and_harms_nobody(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If an idle transaction holds a slot, the move gives up and says so, all is served, and later it succeeds."""
    pair.whole = False
    monkeypatch.setattr(tools.transfer.executor, "LOCK_ATTEMPTS", 5)
    source, _ = await pair.reverse()
    connection, transaction, code = await write_and_wait(pair, source, "owned")
    others = [other for other in pair.traffic.acked if slot_of(other) != slot_of(code)]
    async with migrating(pair) as migrator:
        why = await has_given_up(migrator)
        assert source in why
        assert "pg_stat_activity" in why
        for number, other in enumerate(others[:20]):
            before = pair.traffic.acked[other][0]
            await pair.traffic.change(other, f"meanwhile {number}")
            assert pair.traffic.acked[other][0] == before + 1
        assert await pair.traffic.store.links.get(code) is not None
        await transaction.rollback()
    await connection.close()
    await pair.settle()
    await pair.check()
    pair.whole = True


async def test_a_prepared_transaction_makes_the_move_give_up_and_harms_nobody(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A prepared transaction that holds a slot aborts the move, and the error names it; later the move succeeds."""
    monkeypatch.setattr(tools.transfer.executor, "LOCK_ATTEMPTS", 5)
    monkeypatch.setitem(postgres_server._SETTINGS, "max_prepared_transactions", "5")
    async with (
        LocalCluster(tmp_path, ("db0", "db1"), durable=False, loopback=True) as own,
        open_pair(own, "prepared") as pair,
    ):
        source, _ = await pair.reverse()
        code = next(iter(pair.traffic.acked))
        connection = await pair.connect(source)
        await connection.execute("BEGIN")
        assert await connection.fetchval(CHANGE, slot_of(code), code, uuid.uuid4(), "prepared") == "ok"
        await connection.execute("PREPARE TRANSACTION 'forgotten'")
        async with migrating(pair) as migrator:
            assert "pg_prepared_xacts" in await has_given_up(migrator)
            assert await pair.traffic.store.links.get(code) is not None
            await connection.execute("COMMIT PREPARED 'forgotten'")
        pair.traffic.acked[code] = (pair.traffic.acked[code][0] + 1, "prepared")
        await pair.settle()
        await pair.check()
        await connection.close()


async def test_requests_that_wait_for_a_move_hold_no_connection(pair: Pair) -> None:
    """With two connections per shard and twenty requests waiting for frozen slots, other links are answered."""
    pair.whole = False
    source, _ = await pair.reverse()
    trip = pair.wires[source].set_trip(When.BEFORE, "handoff_close_v1")
    process = await pair.process()
    await asyncio.wait_for(trip.reached.wait(), HANG_S)
    settings = pair.settings.model_copy(update={"pool_connections": 2, "busy_wait_ms": 30_000})
    store = await type(pair.traffic.store).open(settings)
    connection = await pair.connect(source)

    async def held() -> set[int]:
        """Returns the frozen slots once they are all of the batch held back: the other lane's batch moves on."""
        rows = await connection.fetch("SELECT slot, move_token FROM slots WHERE state = 'frozen'")
        return {row["slot"] for row in rows} if len({row["move_token"] for row in rows}) == 1 else set()

    frozen = await until(held)
    await connection.close()
    codes = list(itertools.islice(itertools.cycle(c for c in pair.traffic.acked if slot_of(c) in frozen), 20))
    waiting = [
        asyncio.create_task(
            store.links.change(code, LinkPatch(title="waited"), if_match=None, owner=None, token=uuid.uuid4())
        )
        for code in codes
    ]
    served = [code for code in (f"free{n}" for n in range(100)) if slot_of(code) not in pair.slots]
    for code in served:
        await store.links.create(new_link(code))
        pair.traffic.acked[code] = (1, None)
    assert not any(task.done() for task in waiting)
    trip.deliver()
    for code, link in zip(codes, await asyncio.gather(*waiting), strict=True):
        pair.traffic.acked[code] = max(pair.traffic.acked[code], (link.version, link.title))
    await process.finishes()
    await pair.check()
    await store.shards.close()
    pair.whole = True
