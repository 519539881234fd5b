"""`kill -9` of the migrator, at every step."""

from __future__ import annotations

from tests.faults.matrix import Spot, cases, run_case
from tests.faults.pair import Pair, Process
from tests.faults.wire import Trip, When


async def kill(pair: Pair, trip: Trip, process: Process, _source: str, _target: str) -> None:
    await process.kill()
    trip.lose()


@cases("leave-after", "copy-before", "freeze-after", "commit-after")
async def test_a_killed_migrator_is_finished_by_the_next(pair: Pair, spot: Spot, when: When) -> None:
    """After a migrator is killed at any step, the next one completes the move and nothing is lost."""
    await run_case(pair, spot, when, kill)
