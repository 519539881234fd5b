"""The server of the source is stopped in immediate mode and started again, at every step."""

from __future__ import annotations

from tests.faults.matrix import Spot, cases, run_case
from tests.faults.pair import Pair, Process
from tests.faults.wire import Trip, When


async def crash_source(pair: Pair, trip: Trip, process: Process, source: str, _target: str) -> None:
    await pair.crash(source)
    trip.lose()
    await process.finishes()


@cases("freeze-after", "close-after")
async def test_a_crash_of_the_source_loses_nothing(pair: Pair, spot: Spot, when: When) -> None:
    """After a crash of the source's server at any step, the migrator waits for it and completes the move."""
    await run_case(pair, spot, when, crash_source)
