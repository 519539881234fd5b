"""The steps of a hand-off that wait for the disk and for a synchronous standby."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest

from ring.handoff import Desired, SourceState, Step, TargetState, next_steps
from ring.placement import place
from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.store.cluster.tables import sharded_tables
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.support.waits import HANG_S
from tools.transfer.batch import Batch
from tools.transfer.executor import Executor, ShardPair


@pytest.fixture
async def admins(direct: dict[str, Any]) -> AsyncIterator[dict[str, Any]]:
    """Yields connections to db0 and db1, and afterwards resets both servers to commit without a standby."""
    found = {name: direct[name] for name in ("db0", "db1")}
    yield found
    for connection in found.values():
        await wait_for_standby(connection, "")


async def wait_for_standby(connection: Any, name: str) -> None:
    """Makes commits on this server wait for the standby `name`, or for none if it is empty."""
    await connection.execute(f"ALTER SYSTEM SET synchronous_standby_names = '{name}'")
    await connection.execute("SELECT pg_reload_conf()")
    async with asyncio.timeout(HANG_S):
        while await connection.fetchval("SHOW synchronous_standby_names") != name:
            await asyncio.sleep(0.01)


async def until_waiting(connection: Any, executor: Executor, step: Step) -> None:
    """Waits until the executor's session waits for a missing standby. Asserts that `step` caused it."""
    waiting = "SELECT EXISTS (SELECT 1 FROM pg_stat_activity WHERE wait_event = 'SyncRep')"
    async with asyncio.timeout(HANG_S):
        while not await connection.fetchval(waiting):
            await asyncio.sleep(0.01)
    assert executor.step is step


async def test_few_steps_wait_for_the_standby(
    ready: Settings, store: Store, direct: dict[str, Any], admins: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """With synchronous standbys a move waits for them at the three steps that a promotion must not lose, and for
    the copy before its pause begins."""
    owners = place(store.shards.topology)
    code = next(code for n in itertools.count() if owners[slot_of(code := f"waits{n}")] == "db0")
    await store.links.create(new_link(code))
    dsns = {item.name: item.dsn for item in ready.shard_dsns}
    ends = ShardPair(await asyncpg.connect(dsns["db0"]), await asyncpg.connect(dsns["db1"]), ())
    ends.tables = await sharded_tables(ends.source)
    executor = Executor(Batch("db0", "db1", (slot_of(code),), (1,)), ends)
    for admin in admins.values():
        await wait_for_standby(admin, "nobody")
    async with asyncio.timeout(HANG_S), asyncio.TaskGroup() as group:
        moving = group.create_task(
            executor.run(next_steps(Desired.MOVE, SourceState.OWNED, TargetState.ABSENT))
        )
        await until_waiting(admins["db1"], executor, Step.CHECK)
        await wait_for_standby(admins["db1"], "")
        await until_waiting(admins["db0"], executor, Step.CLOSE)
        await wait_for_standby(admins["db1"], "nobody")
        await wait_for_standby(admins["db0"], "")
        await until_waiting(admins["db1"], executor, Step.COMMIT)
        await wait_for_standby(admins["db0"], "nobody")
        await wait_for_standby(admins["db1"], "")
        await until_waiting(admins["db0"], executor, Step.RELEASE)
        await wait_for_standby(admins["db0"], "")
        await moving
    assert executor.rows == 1
    found = await direct["db1"].fetchval("SELECT count(*) FROM links WHERE code = $1", code)
    assert found == 1
    await ends.source.close()
    await ends.target.close()
