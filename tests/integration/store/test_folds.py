"""Days of clicks that are no longer kept become months: what is counted stays, whatever happens meanwhile."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from datetime import date, timedelta
from typing import Any

import asyncpg
import pytest

from ring.slots import SLOT_COUNT, slot_of
from snapurl.clicks import folder as folder_module
from snapurl.clicks.folder import Folder
from snapurl.groups import ALL, Group
from snapurl.model import VALUES_MAX, ClickRow, Scope, SourceClicks, SourceKind
from snapurl.periods import DateRange, Interval
from snapurl.store.folds import FoldStore, Kept
from snapurl.store.statistics import StatisticsStore
from snapurl.telemetry.metrics import CLICK_DAYS_FOLDED, CLICK_DAYS_OVERDUE
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.integration.store.test_statistics import apply, told
from tests.support.click_rows import by_kind

TODAY = date(2025, 4, 20)
KEPT = 40  # so that days from March 1 on stay: March 11 is in a month that is not over
JANUARY, FEBRUARY, MARCH = (date(2025, month, 1) for month in (1, 2, 3))
EVER = DateRange()


pytestmark = pytest.mark.usefixtures("sums_hold")


@pytest.fixture(autouse=True)
def _whole_reads(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pass reads all slots at once, and rests no time."""
    monkeypatch.setattr(folder_module, "REST", 0)
    monkeypatch.setattr(folder_module, "SLOTS_PER_READ", SLOT_COUNT)
    monkeypatch.setattr(folder_module, "SLOTS_PER_READ_MAX", SLOT_COUNT)


def folder_of(store: Store) -> Folder:
    folds = FoldStore(store.shards, store.router)
    return Folder(folds, KEPT, lambda: True, lambda: TODAY, time.monotonic)


def row(code: str, entry: int, day: date, clicks: int, *sources: SourceClicks, **more: Any) -> ClickRow:
    return ClickRow(slot_of(code), entry, code, day, clicks, by_kind(sources), **more)


async def shown(statistics: StatisticsStore, code: str, group: Group, period: DateRange) -> list[Any]:
    """Returns what is told of a link and of a group in a period, by month, and by kind."""
    days = period.first, period.last
    of_link = period.series(await statistics.days_of_link(code, period))
    of_group = period.series((await statistics.days_of_group(group, period))[0])
    kinds = list(SourceKind)
    return [
        *((series.points, series.clicks, series.bots, series.visitors) for series in (of_link, of_group)),
        await statistics.values_of_link(code, days, kinds, 500),
        await statistics.values_of_group(group, days, kinds, 500),
        await statistics.totals_of_groups(group.scope, None),
        await statistics.totals_of_links([code]),
    ]


async def test_old_days_become_months_that_tell_the_same(
    store: Store, statistics: StatisticsStore, direct: dict[str, Any], new_link: NewLinkMaker
) -> None:
    """Whole months become a row each, of links and of groups; statistics by month and by kind stay as they were,
    and so do the days that are kept. A late click for a folded day counts, and joins its month at the next pass."""
    await store.links.create(new_link("a", owner="team", tags=("t",)))
    rows = [
        row(
            "a",
            2 * number,
            JANUARY + timedelta(number),
            9,
            *told(os={"ios": 2}, bot={"x": 1}),
            hour=19,
            bots=1,
        )
        for number in range(100)
    ] + [
        row("a", 2 * number + 1, JANUARY + timedelta(number), 1, *told(referrer={f"{number}": 1}))
        for number in range(100)
    ]
    visitors = {("a", JANUARY + timedelta(number)): 5 for number in range(100)}
    by_slot = {slot_of("a"): sorted(rows, key=lambda each: each.entry)}
    name = store.shards.map.owner(slot_of("a"))
    await store.clicks.apply(name, "s", by_slot, visitors)
    group = Group(Scope.ACCOUNT_TAG, "team/t")
    by_month = DateRange(None, None, Interval.MONTH)
    february = DateRange(FEBRUARY, MARCH - timedelta(1), Interval.MONTH)
    before = [await shown(statistics, "a", group, each) for each in (by_month, february)]
    folded = {what: CLICK_DAYS_FOLDED.labels(what)._value.get() for what in Kept}

    assert await folder_of(store).fold_all()
    assert [await shown(statistics, "a", group, each) for each in (by_month, february)] == before
    found = await statistics.days_of_link("a", EVER)
    assert [(each.day, each.is_month, each.clicks, each.bots, each.visitors) for each in found[:3]] == [
        (JANUARY, True, 310, 31, 155),
        (FEBRUARY, True, 280, 28, 140),
        (MARCH, False, 10, 1, 5),
    ]
    assert len(found) == 2 + 41
    assert {what: CLICK_DAYS_FOLDED.labels(what)._value.get() - folded[what] for what in Kept} == {
        Kept.LINKS: 59,
        Kept.GROUPS: 4 * 59,
    }
    hours = await direct[name].fetchval(
        "SELECT sources ->> 'hour' FROM click_months WHERE month = $1", JANUARY
    )
    assert hours == '{"0": 31, "19": 279}'

    await apply(store, [row("a", 500, JANUARY, 3, *told(os={"ios": 3}))])
    (late, _), _ = (await shown(statistics, "a", group, by_month))[0][0][:2], None
    assert late.clicks == 313
    assert await folder_of(store).fold_all()
    (january, *_), _ = await statistics.days_of_group(ALL, EVER)
    assert (january.is_month, january.clicks) == (True, 313)
    assert await direct[name].fetchval("SELECT min(day) FROM click_days") == MARCH
    os = await statistics.values_of_link("a", (JANUARY, FEBRUARY - timedelta(1)), [SourceKind.OS], 9)
    assert os.values == list(told(os={"ios": 65}))
    cut = await statistics.values_of_link("a", (JANUARY + timedelta(1), None), [SourceKind.OS], 9)
    assert cut.totals == {SourceKind.OS: 2 * 28 + 2 * 41}


async def test_a_month_keeps_few_values(store: Store, direct: dict[str, Any]) -> None:
    """However many values its days have, a month keeps as many of a kind as a day does; the rest is under `*`."""
    values = VALUES_MAX[SourceKind.COUNTRY]
    rows = [
        row(
            "m",
            day,
            JANUARY + timedelta(day),
            values,
            *told(country={f"{day}-{n}": 1 for n in range(values)}),
        )
        for day in range(31)
    ]
    await apply(store, rows)
    assert await folder_of(store).fold_all()
    shard = direct[store.shards.map.owner(slot_of("m"))]
    kept = await shard.fetchrow(
        "SELECT count(*) AS values, sum(v.value::bigint) AS clicks,"
        " sum(v.value::bigint) FILTER (WHERE v.key = '*') AS rest"
        " FROM click_months, jsonb_each(sources -> 'country') v"
    )
    assert tuple(kept) == (values + 1, 31 * values, 30 * values)


async def test_slots_in_hand_off_are_left_for_the_next_pass(store: Store, direct: dict[str, Any]) -> None:
    """Nothing is folded in a slot in hand-off, and a hand-off waits for a folding under way; the gauge says for how
    long days have been left."""
    await apply(store, [row("h", 1, JANUARY, 5)])
    slot, name = slot_of("h"), store.shards.map.owner(slot_of("h"))
    shard = direct[name]
    for state in ("leaving", "frozen"):
        await shard.execute("UPDATE slots SET state = $2, peer = 'db9' WHERE slot = $1", slot, state)
        assert not await folder_of(store).fold_all()
        assert CLICK_DAYS_OVERDUE._value.get() == (TODAY - timedelta(KEPT) - date(2025, 1, 31)).days
        assert await shard.fetchval("SELECT count(*) FROM click_days") == 1
    await shard.execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", slot)
    epoch = await shard.fetchval("SELECT epoch FROM slots WHERE slot = $1", slot)
    leave = "SELECT handoff_leave_v1(ARRAY[$1::smallint], ARRAY[$2::bigint], 'db9', gen_random_uuid(), $3)"
    other = await asyncpg.connect(next(dsn.dsn for dsn in store.settings.shard_dsns if dsn.name == name))
    try:
        async with other.transaction():
            await other.fetchrow("SELECT * FROM clicks_fold_links_v1($1, '', $2, 10, 10)", slot, MARCH)
            with pytest.raises(asyncpg.LockNotAvailableError):
                await shard.execute(leave, slot, epoch, 1)
        await shard.execute(leave, slot, epoch, 10_000)
        await shard.execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", slot)
    finally:
        await other.close()
    assert await shard.fetchval("SELECT clicks FROM click_months WHERE code = 'h'") == 5
    assert await folder_of(store).fold_all()
    assert CLICK_DAYS_OVERDUE._value.get() == 0


async def test_days_that_are_not_old_stay_whatever_the_clock_says(
    store: Store, direct: dict[str, Any]
) -> None:
    """A caller whose clock is years ahead folds nothing of this month."""
    today = await next(iter(direct.values())).fetchval("SELECT (now() AT TIME ZONE 'UTC')::date")
    await apply(store, [row("n", 1, today, 5)])
    folds = FoldStore(store.shards, store.router)
    assert await Folder(folds, KEPT, lambda: True, lambda: date(2099, 1, 1), time.monotonic).fold_all()
    assert await direct[store.shards.map.owner(slot_of("n"))].fetchval("SELECT count(*) FROM click_days") == 1


async def test_clicks_that_are_counted_meanwhile_count_once(
    store: Store, statistics: StatisticsStore, direct: dict[str, Any]
) -> None:
    """While two folders work, one of which is cut off again and again, late clicks go on to arrive: all of them are
    counted, in a day or in a month."""
    codes = [f"k{number}" for number in range(6)]
    counted: Counter[str] = Counter()
    done = asyncio.Event()

    async def click() -> None:
        try:
            for entry in range(30):
                days = [JANUARY + timedelta(7 * entry % 59), JANUARY + timedelta(3)]
                await apply(
                    store, [row(code, entry, day, 2, *told(os={"ios": 1})) for code in codes for day in days]
                )
                counted.update(dict.fromkeys(codes, 4))
        finally:
            done.set()

    async def fold() -> None:
        while not done.is_set():
            await folder_of(store).fold_all()

    async def fold_and_die() -> None:
        name = store.shards.map.owner(slot_of(codes[0]))
        while not done.is_set():
            victim = await asyncpg.connect(
                next(dsn.dsn for dsn in store.settings.shard_dsns if dsn.name == name)
            )
            await victim.execute("BEGIN")
            await victim.fetchrow(
                "SELECT * FROM clicks_fold_links_v1($1, '', $2, 10, 1000)", slot_of(codes[0]), MARCH
            )
            victim.terminate()

    await asyncio.gather(click(), fold(), fold_and_die())
    assert await folder_of(store).fold_all()
    for code in codes:
        found = await statistics.days_of_link(code, EVER)
        assert all(each.is_month for each in found)
        assert sum(each.clicks for each in found) == counted[code]
        values = await statistics.values_of_link(code, (None, None), [SourceKind.OS], 5)
        assert values.totals == {SourceKind.OS: counted[code] // 2}


@pytest.mark.parametrize(("took_s", "reads"), [(0.0, 20), (1.0, 256)], ids=["quick", "slow"])
async def test_a_pass_reads_more_slots_at_once_while_that_is_quick(
    store: Store, monkeypatch: pytest.MonkeyPatch, took_s: float, reads: int
) -> None:
    """Where there is nothing to fold, a pass costs a shard a few reads; where it costs time, each stays small."""
    monkeypatch.setattr(folder_module, "SLOTS_PER_READ", 64)
    monkeypatch.setattr(folder_module, "SLOTS_PER_READ_MAX", 1024)
    folds, clock = FoldStore(store.shards, store.router), 0.0
    read: dict[str, list[int]] = {name: [] for name in folds.shard_names}
    foldable = folds.foldable

    async def timed(name: str, first: int, last: int, before: date) -> dict[int, date]:
        nonlocal clock
        clock += took_s
        read[name] += range(first, last + 1)
        sizes.append(last + 1 - first)
        return await foldable(name, first, last, before)

    sizes: list[int] = []
    monkeypatch.setattr(folds, "foldable", timed)
    assert await Folder(folds, KEPT, lambda: True, lambda: TODAY, lambda: clock).fold_all()
    assert all(slots == list(range(SLOT_COUNT)) for slots in read.values())
    assert len(sizes) == reads * len(read)
