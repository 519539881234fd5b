"""A move of slots between db0 and another shard, step by step, in this process."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass

from ring.handoff import Step
from tests.failover.conftest import World
from tools.cluster.fleet import Fleet
from tools.migrator.loop import LaneConnections, executor_for
from tools.migrator.schedule import schedule
from tools.transfer.executor import Executor

AWAY, HERE = 0.98, 1.02  # weights of db0 with which it is source or target of some slots
SLOTS = 20


@dataclass
class Move:
    """The first batch of slots that must move, and its steps."""

    executor: Executor
    program: tuple[Step, ...]
    done: int = 0

    @property
    def slots(self) -> tuple[int, ...]:
        return self.executor.batch.slots

    @property
    def other(self) -> str:
        """The shard that is not db0."""
        batch = self.executor.batch
        return batch.target if batch.source == "db0" else batch.source

    async def through(self, step: Step) -> None:
        """Executes the remaining steps up to and including the last `step`."""
        last = len(self.program) - 1 - self.program[::-1].index(step)
        await self.executor.run(self.program[self.done : last + 1])
        self.done = last + 1

    async def before(self, step: Step) -> None:
        """Executes the steps before the last `step`."""
        last = len(self.program) - 1 - self.program[::-1].index(step)
        await self.executor.run(self.program[self.done : last])
        self.done = last

    async def on(self) -> None:
        """Executes the remaining steps."""
        await self.executor.run(self.program[self.done :])


@contextlib.asynccontextmanager
async def moving(world: World, weight: float) -> AsyncIterator[Move]:
    """Yields a move that has not begun; its slots hold some of the acknowledged links."""
    await world.weigh(weight)
    fleet = await Fleet.connect(world.settings)
    lane = LaneConnections(fleet)
    try:
        snapshot = await fleet.observe()
        tasks = schedule(snapshot).moves
        task, _ = next(each for each in tasks if "db0" in (each.batch.source, each.batch.target)).cut(SLOTS)
        yield Move(await executor_for(task, snapshot, lane), task.program)
    finally:
        lane.drop()
        await fleet.close()
