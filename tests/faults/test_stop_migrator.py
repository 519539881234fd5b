"""The migrator is stopped (SIGSTOP) at every step, a second one finishes, and the first continues (SIGCONT)."""

from __future__ import annotations

import signal

from tests.faults.matrix import Spot, cases, run_case
from tests.faults.pair import Pair, Process
from tests.faults.wire import Trip, When


async def stop_and_wake(pair: Pair, trip: Trip, process: Process, _source: str, _target: str) -> None:
    process.signal(signal.SIGSTOP)
    await pair.settle()
    await pair.forget_lease()
    trip.deliver()
    process.signal(signal.SIGCONT)
    await process.finishes()


@cases("copying-after", "catch-up-before", "freeze-before", "commit-before", "commit-after", "cleaning-after")
async def test_a_migrator_that_wakes_after_its_successor_does_no_harm(
    pair: Pair, spot: Spot, when: When
) -> None:
    """A migrator stopped at any step does not block the next one, and its late request changes nothing."""
    await run_case(pair, spot, when, stop_and_wake)
