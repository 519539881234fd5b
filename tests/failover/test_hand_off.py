"""Failover of one side of a hand-off after each step, with a synchronous standby, writes to its slots, and visitors
of a link that redirects a limited number of times.

`USES=1000 VISITORS=64 WORKERS=4` are the sizes of a drill.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
from collections.abc import AsyncIterator

import pytest

from ring.handoff import Step
from ring.slots import slot_of
from snapurl.errors import Unavailable
from snapurl.model import LinkFields
from snapurl.store.batching.uses import Use
from tests.failover.conftest import Maker, World
from tests.failover.moving import AWAY, HERE, moving
from tests.failover.servers import promote
from tests.faults.matrix import FULL
from tests.faults.pair import new_link
from tests.integration.store.conftest import Store
from tests.integration.tools.conftest import settle
from tests.support.waits import until
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


USES, VISITORS, WORKERS = (
    int(os.environ.get(*size)) for size in (("USES", "200"), ("VISITORS", "8"), ("WORKERS", "2"))
)


@contextlib.asynccontextmanager
async def visiting(world: World, slots: tuple[int, ...]) -> AsyncIterator[list[int]]:
    """Visits a link of USES uses through several workers during the block, and after it until no use is left.

    Yields the numbers of uses that are given to each visitor.
    """
    code = next(code for code in (f"u{number}" for number in itertools.count()) if slot_of(code) in slots)
    made = new_link(code)
    made.fields = LinkFields("https://example.org/", max_clicks=USES)
    await world.store.links.create(made)
    workers = [await Store.open(world.settings) for _ in range(WORKERS)]
    given = [0] * VISITORS

    async def visit(visitor: int) -> None:
        worker = workers[visitor % WORKERS]
        while True:
            await asyncio.sleep(0.005)
            with contextlib.suppress(Unavailable):
                if await worker.links.use(code, 1, takes=True) is Use.SPENT:
                    return
                given[visitor] += 1

    visitors = [asyncio.create_task(visit(visitor)) for visitor in range(VISITORS)]
    try:
        yield given
        await asyncio.gather(*visitors)
    finally:
        for visitor in visitors:
            visitor.cancel()
        await asyncio.gather(*visitors, return_exceptions=True)
        for worker in workers:
            await worker.shards.close()


@pytest.mark.parametrize(("side", "step"), CASES)
async def test_a_failover_at_any_step_loses_nothing(make_world: Maker, side: str, step: Step) -> None:
    """After the primary of one side is killed and its standby promoted, a migrator completes the move; nobody gets
    a use of a link too many."""
    world = await make_world(standby=True, synchronous=True)
    primary, standby = world.hosts["db0"]
    async with (
        moving(world, AWAY if side == "source" else HERE) as move,
        writing(world, move.slots),
        visiting(world, move.slots) as given,
    ):
        await until(lambda: sum(given) and len(world.acked) > 5)
        await move.through(step)
        await primary.kill()
        await promote(standby)
        migrator = asyncio.create_task(settle(world.settings))
        print(f"{side}-{step}: well {await world.heals('db0'):.2f} s after the promotion")
        await migrator
    fleet = await Fleet.connect(world.settings)
    assert await verify_cluster(fleet, await fleet.observe()) == []
    await fleet.close()
    assert sum(given) <= USES
    assert await world.missing() == set()
