"""Failover of one side of a hand-off after each step, with a synchronous standby and writes to its slots."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncIterator

import pytest

from ring.handoff import Step
from ring.slots import slot_of
from tests.failover.conftest import Maker, World
from tests.failover.moving import AWAY, HERE, moving
from tests.failover.servers import promote
from tests.faults.matrix import FULL
from tests.integration.tools.conftest import settle
from tools.cluster.fleet import Fleet
from tools.repair.consistency import verify_cluster

STEPS = (
    Step.LEAVE,
    Step.IMPORT,
    Step.PURGE,
    Step.COPY,
    Step.CHECK,
    Step.FREEZE,
    Step.CATCH_UP,
    Step.VERIFY,
    Step.CLOSE,
    Step.COMMIT,
    Step.RELEASE,
)
BY_DEFAULT = {("source", Step.CLOSE), ("target", Step.COPY), ("target", Step.COMMIT)}
CASES = [
    pytest.param(side, step, id=f"{side}-{step}")
    for side in ("source", "target")
    for step in STEPS
    if FULL or (side, step) in BY_DEFAULT
]


@contextlib.asynccontextmanager
async def writing(world: World, slots: tuple[int, ...]) -> AsyncIterator[None]:
    """Creates links in the slots during the block, and records each acknowledged one."""

    async def write() -> None:
        for code in (f"w{number}" for number in itertools.count()):
            if slot_of(code) in slots:
                await world.try_to_create(code)
                await asyncio.sleep(0.005)

    writer = asyncio.create_task(write())
    try:
        yield
    finally:
        writer.cancel()
        outcome = (await asyncio.gather(writer, return_exceptions=True))[0]
    assert isinstance(outcome, asyncio.CancelledError), outcome


@pytest.mark.parametrize(("side", "step"), CASES)
async def test_a_failover_at_any_step_loses_nothing(make_world: Maker, side: str, step: Step) -> None:
    """After the primary of one side is killed and its standby promoted, a migrator completes the move."""
    world = await make_world(standby=True, synchronous=True)
    primary, standby = world.hosts["db0"]
    async with moving(world, AWAY if side == "source" else HERE) as move, writing(world, move.slots):
        await asyncio.sleep(0.3)
        await move.through(step)
        await primary.kill()
        await promote(standby)
        migrator = asyncio.create_task(settle(world.settings))
        print(f"{side}-{step}: well {await world.heals('db0'):.2f} s after the promotion")
        await migrator
    fleet = await Fleet.connect(world.settings)
    assert await verify_cluster(fleet, await fleet.observe()) == []
    await fleet.close()
    assert len(world.acked) > 5
    assert await world.missing() == set()
