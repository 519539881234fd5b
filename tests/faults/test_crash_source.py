"""An immediate stop of the source's server, which is then started again, at every step."""

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
    """The source's server may crash at any step: the migrator waits for it and gets everything done."""
    await run_case(pair, spot, when, crash_source)
