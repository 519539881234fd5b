"""The steps of a hand-off at which a fault is placed, and one case of the matrix.

A fault strikes each step before its request reaches the shard, or after its commit and before its reply arrives.
By default a part of the product of steps, moments and faults runs; FULL_FAULTS=1 runs all of it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import pytest

from tests.faults.pair import Pair, Process
from tests.faults.wire import Trip, When
from tests.support.waits import HANG_S

FULL = bool(os.environ.get("FULL_FAULTS"))


@dataclass(frozen=True)
class Spot:
    """A step, as it is seen on the wire to one side. `ends`: what its transaction ends with, if not with itself.

    `moments` are those at which a fault makes a difference.
    """

    step: str
    side: str
    text: str
    ends: str = ""
    moments: tuple[When, ...] = tuple(When)

    def texts(self, when: When) -> tuple[str, ...]:
        return (self.text, self.ends) if self.ends and when is When.AFTER else (self.text,)


SPOTS = (
    Spot("leave", "source", "handoff_leave_v1"),
    Spot("import", "target", "handoff_import_v1"),
    Spot("hold", "target", "handoff_hold_v1"),
    Spot("purge", "target", "DELETE FROM links", "COMMIT"),
    Spot("copy", "target", "FROM STDIN", "COMMIT"),
    Spot("copying", "target", "FROM STDIN", moments=(When.AFTER,)),
    Spot("catch-up-look", "source", "xid >= $2"),
    Spot("catch-up", "target", "json_populate_recordset", "COMMIT"),
    Spot("check", "source", "hash_record_extended"),
    Spot("freeze", "source", "handoff_freeze_v1"),
    Spot("verify", "source", "age(xmin)"),
    Spot("close", "source", "handoff_close_v1"),
    Spot("commit", "target", "handoff_commit_v1"),
    Spot("release", "source", "handoff_release_v1"),
    Spot("clean", "source", "handoff_clean_v1", "COMMIT"),
    Spot("cleaning", "source", "DELETE FROM links", moments=(When.AFTER,)),
)

Fault = Callable[[Pair, Trip, Process, str, str], Awaitable[None]]


def cases(*by_default: str) -> pytest.MarkDecorator:
    """Every spot before and after; those not named (`commit-after`) only if the full matrix is asked for."""
    chosen = [
        pytest.param(spot, when, id=f"{spot.step}-{when}")
        for spot in SPOTS
        for when in spot.moments
        if FULL or f"{spot.step}-{when}" in by_default
    ]
    return pytest.mark.parametrize(("spot", "when"), chosen)


async def run_case(pair: Pair, spot: Spot, when: When, fault: Fault) -> None:
    """Moves slots under traffic, has `fault` happen at the spot, runs a fresh migrator, and checks everything."""
    pair.whole = False
    source, target = await pair.reverse()
    await pair.leave_debris(target)
    wire = pair.wires[source if spot.side == "source" else target]
    trip = wire.set_trip(when, *spot.texts(when))
    async with pair.traffic.flowing():
        process = await pair.process()
        try:
            await _reach(trip, process)
            await fault(pair, trip, process, source, target)
        finally:
            trip.lose()
            wire.clear_trip()
            await process.kill()
        await pair.settle()
    await pair.check()
    pair.whole = True


async def _reach(trip: Trip, process: Process) -> None:
    reached = asyncio.create_task(trip.reached.wait())
    await asyncio.wait({reached, process.ended}, timeout=HANG_S, return_when=asyncio.FIRST_COMPLETED)
    if not reached.done():
        reached.cancel()
        await process.kill()
        raise AssertionError(f"{trip.texts} was never said; the migrator said:\n{process.ended.result()}")
