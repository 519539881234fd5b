"""Left-over rows: they never reappear, and deleting them never deletes others."""

from __future__ import annotations

import asyncio

import asyncpg
import pytest

from tests.faults.matrix import SPOTS, run_case
from tests.faults.pair import Pair
from tests.faults.run_migrator import SLOTS_FIRST
from tests.faults.test_kill_migrator import kill
from tests.faults.wire import When
from tests.support.waits import HANG_S
from tools.cluster.calls import call
from tools.migrator.loop import Migrator, Options


async def move_without_cleaning(pair: Pair) -> tuple[str, str]:
    """Moves the slots once and leaves the old rows at the source. Returns source and target."""
    ends = await pair.reverse()
    await pair.forget_lease()
    stop = asyncio.Event()
    running = asyncio.create_task(Migrator(pair.settings, Options(grace_s=3600.0)).run(stop))
    connection = await pair.connect(ends[0])
    async with asyncio.timeout(HANG_S):
        while await connection.fetchval(
            "SELECT count(*) FROM slots WHERE slot = ANY ($1::smallint[]) AND state <> 'released'",
            sorted(pair.slots),
        ):
            await asyncio.sleep(0.02)
    stop.set()
    await running
    await connection.close()
    return ends


async def test_a_slot_that_goes_there_and_back_does_not_bring_old_rows_back(pair: Pair) -> None:
    """After A -> B -> A with the old rows still in A, changes and deletions made in B persist."""
    pair.whole = False
    source, _ = await move_without_cleaning(pair)
    connection = await pair.connect(source)
    assert await connection.fetchval(
        "SELECT count(*) FROM links WHERE slot = ANY ($1::smallint[])", sorted(pair.slots)
    )
    codes = list(pair.traffic.acked)[:6]
    for code in codes[:3]:
        await pair.traffic.change(code, "changed over there")
    await pair.reverse()
    async with pair.traffic.flowing():
        await pair.settle()
    await pair.check()
    await connection.close()
    pair.whole = True


async def test_a_cleaner_from_before_never_deletes_live_rows(pair: Pair) -> None:
    """A -> B -> A with a cleaner stopped in A: the return ends its transaction, and its next step is refused."""
    pair.whole = False
    source, _ = await move_without_cleaning(pair)
    cleaner = await pair.connect(source)
    slots = tuple(sorted(pair.slots))
    rows = await cleaner.fetch(
        "SELECT slot, epoch FROM slots WHERE slot = ANY ($1::smallint[]) ORDER BY slot", slots
    )
    epochs = tuple(row["epoch"] for row in rows)
    await cleaner.execute("BEGIN")
    await call(cleaner, "handoff_clean_v1", slots, epochs)
    await cleaner.execute("DELETE FROM links WHERE slot = ANY ($1::smallint[])", slots)
    await pair.reverse()
    await pair.settle()
    with pytest.raises((asyncpg.PostgresConnectionError, asyncpg.AdminShutdownError, asyncpg.InterfaceError)):
        await cleaner.execute("COMMIT")
    late = await pair.connect(source)
    with pytest.raises(asyncpg.PostgresError, match="clean: 0 of"):
        await call(late, "handoff_clean_v1", slots, epochs)
    await late.close()
    await pair.check()
    pair.whole = True


async def test_debris_of_a_killed_migrator_does_not_block_the_next(pair: Pair) -> None:
    """Three migrators killed during the same move leave nothing that stops the fourth."""
    for name in ("copying", "catch-up", "close"):
        spot = next(spot for spot in SPOTS if spot.step == name)
        await run_case(pair, spot, spot.moments[-1], kill)


async def test_old_rows_in_hand_off_are_left_alone(pair: Pair) -> None:
    """Expired intents are deleted, and old days folded, in owned slots alone, so no hand-off misses a row."""
    pair.whole = False
    source, _ = await pair.reverse()
    connection = await pair.connect(source)
    resting = await connection.fetchval(
        "SELECT min(slot) FROM slots WHERE state = 'owned' AND slot <> ALL ($1::smallint[])",
        sorted(pair.slots),
    )
    trip = pair.wires[source].set_trip(When.AFTER, "handoff_leave_v1")
    process = await pair.process()
    await asyncio.wait_for(trip.reached.wait(), HANG_S)
    moving = await asyncio.wait_for(_held(pair, connection), HANG_S)
    for slot in (moving, resting):
        await connection.execute(
            "INSERT INTO intents (slot, key_hash, nonce, fingerprint, created_at)"
            " VALUES ($1, 'old', gen_random_uuid(), '', now() - interval '25 hours')",
            slot,
        )
        for table, key, value in (
            ("click_days", "code, day", "'old' || $1, '1980-01-01'"),
            ("click_totals", "code", "'old' || $1"),
            ("click_groups", "scope, key, day", "'domain', '', '1980-01-01'"),
        ):
            await connection.execute(
                f"INSERT INTO {table} (slot, {key}, clicks) VALUES ($1::smallint, {value}, 1)", slot
            )
    for slot, folded in ((moving, 0), (resting, 1)):
        for of, start in (("links", "''"), ("groups", "'', ''")):
            fold = f"SELECT folded FROM clicks_fold_{of}_v1($1, {start}, '1980-02-01', 1, 1)"
            assert await connection.fetchval(fold, slot) == folded
    assert await connection.fetchval("SELECT intents_purge_v1(100)") == 1
    assert await connection.fetchval("SELECT slot FROM intents WHERE key_hash = 'old'") == moving
    trip.lose()
    await process.finishes()
    await connection.close()
    await pair.settle()
    await pair.check()
    pair.whole = True


async def _held(pair: Pair, source: asyncpg.Connection[asyncpg.Record]) -> int:
    """Waits until only delayed slots are left to move. Returns one of them."""
    query = "SELECT slot, state FROM slots WHERE slot = ANY ($1::smallint[]) AND state <> 'released'"
    while True:
        rows = await source.fetch(query, sorted(pair.slots))
        if len(rows) <= SLOTS_FIRST and {row["state"] for row in rows} == {"leaving"}:
            return int(rows[0]["slot"])
        await asyncio.sleep(0.02)
