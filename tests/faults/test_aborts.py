"""Aborted moves: a wrong copy, an abort that fails half-way, a target that refuses rows."""

from __future__ import annotations

import asyncio

import pytest

from tests.faults.pair import Pair
from tests.faults.wire import When
from tests.support.waits import HANG_S

SPOIL = """
CREATE FUNCTION spoil() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {} RETURN NEW; END $$;
CREATE TRIGGER spoil BEFORE INSERT ON links FOR EACH ROW EXECUTE FUNCTION spoil();
"""
HEAL = "DROP TRIGGER IF EXISTS spoil ON links; DROP FUNCTION IF EXISTS spoil()"


async def spoil(pair: Pair, target: str, what: str) -> None:
    connection = await pair.connect(target)
    await connection.execute(SPOIL.format(what))
    await connection.close()


async def heal(pair: Pair, target: str) -> None:
    connection = await pair.connect(target)
    await connection.execute(HEAL)
    await connection.close()


@pytest.mark.parametrize("text", ["handoff_retract_v1", "handoff_restore_v1"])
@pytest.mark.parametrize("when", When)
async def test_an_abort_that_itself_fails_is_finished_by_the_next(pair: Pair, text: str, when: When) -> None:
    """A move whose copy differs is aborted, even if the migrator dies during the abort."""
    pair.whole = False
    source, target = await pair.reverse()
    await spoil(pair, target, "NEW.title := 'spoilt';")
    trip = pair.wires[target if "retract" in text else source].set_trip(when, text)
    async with pair.traffic.flowing():
        process = await pair.process()
        await asyncio.wait_for(trip.reached.wait(), HANG_S)
        await process.kill()
        trip.lose()
        await heal(pair, target)
        await pair.settle()
    await pair.check()
    pair.whole = True


async def test_a_copy_that_differs_is_never_served(pair: Pair) -> None:
    """While the target corrupts its rows, the source keeps the slots and all their writes."""
    pair.whole = False
    source, target = await pair.reverse()
    await spoil(pair, target, "NEW.title := 'spoilt';")
    trip = pair.wires[source].set_trip(When.AFTER, "handoff_restore_v1")
    async with pair.traffic.flowing():
        process = await pair.process()
        await asyncio.wait_for(trip.reached.wait(), HANG_S)
        for code, (version, title) in list(pair.traffic.acked.items())[:10]:
            link = await pair.traffic.store.links.get(code)
            assert link is not None
            assert link.title != "spoilt"
            assert link.version > version or link.title == title
        await process.kill()
        trip.lose()
        await heal(pair, target)
        await pair.settle()
    await pair.check()
    pair.whole = True


async def test_a_target_that_refuses_the_rows_stops_only_the_move(pair: Pair) -> None:
    """A migrator whose copy fails on the target reports why, retries, and succeeds once the target accepts rows."""
    pair.whole = False
    _, target = await pair.reverse()
    await spoil(pair, target, "RAISE EXCEPTION 'no room left' USING ERRCODE = 'disk_full';")
    wire = pair.wires[target]
    first = wire.set_trip(When.BEFORE, "FROM STDIN", "ROLLBACK")
    async with pair.traffic.flowing():
        process = await pair.process()
        await asyncio.wait_for(first.reached.wait(), HANG_S)
        again = wire.set_trip(When.BEFORE, "FROM STDIN", "ROLLBACK")
        first.deliver()
        await asyncio.wait_for(again.reached.wait(), HANG_S)
        await heal(pair, target)
        again.deliver()
        await process.finishes()
    assert "no room left" in process.ended.result()
    await pair.check()
    pair.whole = True
