"""Click counts in the shards."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from datetime import date
from functools import partial
from typing import Any

import pytest

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceClicks, SourceKind
from tests.integration.store.conftest import VALUES, Store
from tests.support.click_rows import by_kind
from tests.support.click_totals import assert_groups_are_sums, assert_totals_are_sums
from tests.support.waits import until

DAY = date(2026, 5, 1)
XIDS = """
SELECT (SELECT xid::text::bigint FROM click_days WHERE code = 'm'),
       (SELECT xid::text::bigint FROM click_totals WHERE code = 'm'),
       (SELECT xid::text::bigint FROM click_groups)
"""
TOLD = """
SELECT t.value, sum(t.clicks)::bigint AS clicks
  FROM click_days d, clicks_values_v1(clicks_merge_v1(d.sources, coalesce(d.unmerged, '')), NULL, $3) t
 WHERE d.code = $1 AND d.day = $2 GROUP BY t.value
"""


@pytest.fixture(autouse=True)
async def totals_are_sums(direct: dict[str, Any]) -> AsyncIterator[None]:
    """After each test the total of each link is the sum of its days, and so are the clicks of a domain."""
    yield
    for shard in direct.values():
        await assert_totals_are_sums(shard)
    await assert_groups_are_sums(direct.values())


def row(code: str, entry: int, clicks: int = 1, day: date = DAY) -> ClickRow:
    return ClickRow(slot_of(code), entry, code, day, clicks)


async def apply(store: Store, stream: str, rows: Sequence[ClickRow]) -> set[int]:
    by_slot: dict[int, list[ClickRow]] = {}
    for item in rows:
        by_slot.setdefault(item.slot, []).append(item)
    return await store.apply_clicks(stream, by_slot)


async def test_entries_delivered_again_change_nothing(store: Store) -> None:
    """However often entries are delivered again, and in whatever batches, each counts once per slot."""
    rows = [row(f"c{n % 7}", entry) for entry in range(30) for n in range(entry % 5)]
    for end in (10, len(rows), 25, len(rows)):
        part = rows[:end]
        assert await apply(store, "s", part) == {item.slot for item in part}
    totals = {f"c{n}": await store.clicks_of(f"c{n}") for n in range(7)}
    assert totals == {code: sum(1 for item in rows if item.code == code) for code in totals}


async def test_two_consumers_at_once_count_once(store: Store) -> None:
    """Four consumers that deliver the same entries at the same time count each of them once."""
    rng = random.Random(7)
    for batch in range(20):
        rows = [sourced(f"c{rng.randrange(5)}", batch * 50 + n, {"x": 1}) for n in range(50)]
        await asyncio.gather(*(apply(store, "s", rows) for _ in range(4)))
    assert sum([await store.clicks_of(f"c{n}") for n in range(5)]) == 1000
    shown = [await store.told(f"c{n}") for n in range(5)]
    assert [list(told) for told in shown] == [["x"]] * 5
    assert sum(told["x"] for told in shown) == 1000


async def test_clicks_are_kept_by_day(store: Store) -> None:
    """Totals are listed by UTC day, oldest first."""
    later = date(2026, 5, 3)
    await apply(store, "s", [row("d", 1, 2), row("d", 2, 3, later), row("d", 3, 4, later)])
    assert list((await store.clicks_by_day("d")).items()) == [(DAY, 2), (later, 7)]
    assert await store.clicks_by_day("never") == {}


async def test_another_stream_has_its_own_cursor(store: Store) -> None:
    """After Redis is wiped a new stream begins, and the cursor of the old one does not skip its entries."""
    await apply(store, "old", [row("e", 1_000_000)])
    await apply(store, "new", [row("e", 1)])
    assert await store.clicks_of("e") == 2


async def test_a_slot_that_was_counted_in_part_delays_no_other(store: Store, direct: dict[str, Any]) -> None:
    """Rows that a consumer had not applied are counted once, in one call with slots new, done or in hand-off."""
    (owner,) = store.router.group([slot_of("part")], int)
    codes = [code for n in range(200) if (code := f"p{n}") and store.shards.map.owner(slot_of(code)) == owner]
    done, moving, *new = codes
    await apply(store, "s", [row("part", 1), row("part", 2), row(done, 1)])
    await direct[owner].execute(
        "UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot_of(moving)
    )
    rows = [
        row(code, entry) for code in ("part", *codes) for entry in (1, 2, 3) if code != done or entry == 1
    ]
    assert await apply(store, "s", rows) == {item.slot for item in rows} - {slot_of(moving)}
    totals = {code: await store.clicks_of(code) for code in ("part", done, *new)}
    assert totals == {"part": 3, done: 1, **dict.fromkeys(new, 3)}


async def test_a_consumer_without_the_lock_counts_nothing_twice(store: Store, direct: dict[str, Any]) -> None:
    """A call waits for a writer that moved the cursor without the lock of the stream, then counts nothing again."""
    (owner,) = store.router.group([slot_of("old")], int)
    await apply(store, "s", [row("old", 1)])
    async with direct[owner].transaction():
        await direct[owner].execute(
            "WITH moved AS (UPDATE click_cursor SET applied_to = 2 WHERE slot = $1 AND stream = 's'), "
            "total AS (UPDATE click_totals SET clicks = clicks + 1 WHERE slot = $1 AND code = 'old'), "
            "domain AS (UPDATE click_groups SET clicks = clicks + 1 WHERE day = $2) "
            "UPDATE click_days SET clicks = clicks + 1 WHERE slot = $1 AND code = 'old' AND day = $2",
            slot_of("old"),
            DAY,
        )
        ours = asyncio.create_task(apply(store, "s", [row("old", 2)]))
        await until(partial(direct[owner].fetchval, "SELECT true FROM pg_locks WHERE NOT granted LIMIT 1"))
    assert await ours == set()
    assert await apply(store, "s", [row("old", 2)]) == {slot_of("old")}
    assert await store.clicks_by_day("old") == {DAY: 2}


def sourced(code: str, entry: int, referrers: dict[str, int], day: date = DAY) -> ClickRow:
    sources = tuple(SourceClicks(SourceKind.REFERRER, value, clicks) for value, clicks in referrers.items())
    return ClickRow(slot_of(code), entry, code, day, sum(referrers.values()), by_kind(sources))


async def test_sources_are_counted_once_with_their_clicks(store: Store) -> None:
    """A repeated delivery, by any consumer, changes nothing; clicks without a source are in no value."""
    rows = [
        sourced("f", 1, {"x": 2, "": 1}),
        row("f", 2),
        sourced("f", 3, {"x": 1}),
        sourced("g", 3, {"y": 1}),
    ]
    for end in (2, 4):
        await asyncio.gather(*(apply(store, "s", rows[:end]) for _ in range(3)))
    assert (await store.clicks_of("f"), await store.told("f")) == (5, {"x": 3})
    assert await store.told("f", SourceKind.BROWSER) == {}
    assert await store.told("g") == {"y": 1}
    assert await store.told("never") == {}


async def test_sources_of_a_slot_in_hand_off_wait_with_their_clicks(
    store: Store, direct: dict[str, Any]
) -> None:
    """The fence refuses sources together with their clicks, also in a slot that was counted before."""
    slot = slot_of("k")
    (owner,) = store.router.group([slot], lambda slot: slot)
    later = [sourced("k", 2, {"x": 3})]
    assert await apply(store, "s", [sourced("k", 1, {"x": 1})]) == {slot}
    await direct[owner].execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot)
    assert await apply(store, "s", later) == set()
    await direct[owner].execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", slot)
    assert await apply(store, "s", later) == {slot}
    assert await store.told("k") == {"x": 4}


async def test_rows_of_clicks_carry_the_id_of_their_last_transaction(
    store: Store, direct: dict[str, Any]
) -> None:
    """Each row of clicks carries the id of the transaction that changed it last, so a catch-up finds it."""
    (owner,) = store.router.group([slot_of("m")], lambda slot: slot)
    seen = []
    for entry in (1, 2):
        await apply(store, "s", [sourced("m", entry, {"x": 1})])
        seen.append(await direct[owner].fetchrow(XIDS))
    assert all(before < after for before, after in zip(*seen, strict=True))


async def test_random_referrers_do_not_fill_the_table(store: Store) -> None:
    """A link keeps at most 100 referrers per day, those with most clicks; the other clicks go to `*`."""
    first = {f"a{n}": 1 for n in range(70)} | {"known": 5}
    second = {f"b{n}": 2 + n for n in range(60)} | {"known": 7}
    await apply(store, "s", [sourced("h", 1, first)])
    await apply(store, "s", [sourced("h", 2, second), sourced("h", 2, {"x": 1}, date(2026, 5, 2))])
    await apply(store, "s", [sourced("h", 3, {"c": 4, "known": 1, "*": 1})])
    (owner,) = store.router.group([slot_of("h")], lambda slot: slot)
    kept = await store.shards.pool(owner).fetch(TOLD, "h", DAY, [SourceKind.REFERRER])
    found = {item["value"]: item["clicks"] for item in kept}
    assert len(found) == 101
    assert found["known"] == 13
    assert {value for value in found if value.startswith("b")} == {f"b{n}" for n in range(60)}
    assert (found["c"], len([value for value in found if value.startswith("a")])) == (4, 38)
    assert found["*"] == 70 - 38 + 1
    shown = list((await store.told("h")).values())
    assert len(shown) == VALUES
    assert shown == sorted(shown, reverse=True)


async def test_statements_are_not_compiled(store: Store) -> None:
    """PostgreSQL compiles no statement of the service: JIT took 65 ms of each call that counts clicks."""
    for shard in store.shards.topology.shards:
        shown = await store.shards.pool(shard.name).fetchrow("SHOW jit")
        assert shown["jit"] == "off"
