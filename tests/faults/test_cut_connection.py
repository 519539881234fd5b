"""The connections of the migrator are cut, at every step."""

from __future__ import annotations

from tests.faults.matrix import Spot, cases, run_case
from tests.faults.pair import Pair, Process
from tests.faults.wire import Trip, When


async def cut(pair: Pair, trip: Trip, process: Process, _source: str, _target: str) -> None:
    trip.lose()
    for wire in pair.wires.values():
        wire.cut()
    await process.finishes()


@cases("copy-before", "verify-before", "commit-after", "clean-after")
async def test_a_migrator_goes_on_after_its_connections_are_cut(pair: Pair, spot: Spot, when: When) -> None:
    """A migrator that loses its connections at any step reads the shards again and completes the move."""
    await run_case(pair, spot, when, cut)
