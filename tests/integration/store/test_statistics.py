"""What shards tell of clicks: by day and hour, by kind, for a link and for many links."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, date
from typing import Any

import pytest

from ring.slots import slot_of
from snapurl.errors import NotFound
from snapurl.groups import ALL, Group
from snapurl.model import VALUES_MAX, ClickRow, LinkPatch, Scope, SourceClicks, SourceKind
from snapurl.periods import DateRange, Interval
from snapurl.store.click_sums import BOT_HOUR, HOUR
from snapurl.store.statistics import StatisticsStore
from tests.integration.store.conftest import NewLinkMaker, Store
from tests.support.click_rows import by_kind

DAYS = (date(2026, 5, 1), date(2026, 5, 2))
EVER = DateRange()
BY_HOUR = DateRange(None, None, Interval.HOUR)


pytestmark = pytest.mark.usefixtures("sums_hold")


def told(**values: dict[str, int]) -> tuple[SourceClicks, ...]:
    return tuple(
        SourceClicks(SourceKind(kind), value, clicks)
        for kind, of_kind in values.items()
        for value, clicks in of_kind.items()
    )


def row(code: str, entry: int, clicks: int, sources: tuple[SourceClicks, ...] = (), **more: Any) -> ClickRow:
    return ClickRow(slot_of(code), entry, code, more.pop("day", DAYS[0]), clicks, by_kind(sources), **more)


async def apply(store: Store, rows: Sequence[ClickRow], stream: str = "s") -> None:
    by_slot: dict[int, list[ClickRow]] = {}
    for item in rows:
        by_slot.setdefault(item.slot, []).append(item)
    assert await store.apply_clicks(stream, by_slot) == by_slot.keys()


async def test_a_link_tells_hours_bots_and_every_kind(store: Store, statistics: StatisticsStore) -> None:
    """Clicks and bots of a link are there by day and hour, and by each kind within the days that are asked for."""
    await apply(
        store,
        [
            row("a", 1, 5, told(country={"DE": 3, "FR": 1}, bot={"x": 2}), hour=19, bots=2),
            row("a", 2, 2, told(country={"DE": 1}), hour=20),
            row("a", 3, 4, told(country={"IT": 4}, utm_source={"été \"'\\": 4}), hour=0, day=DAYS[1]),
        ],
    )
    first, second = await statistics.days_of_link("a", BY_HOUR)
    assert (first.day, first.clicks, first.bots, first.hours, first.bot_hours) == (
        DAYS[0],
        7,
        2,
        {19: 5, 20: 2},
        {19: 2},
    )
    assert (second.clicks, second.hours) == (4, {0: 4})
    one_day = DateRange(DAYS[1], DAYS[1])
    assert [(each.day, each.hours) for each in await statistics.days_of_link("a", one_day)] == [(DAYS[1], {})]
    found = await statistics.values_of_link("a", (None, None), list(SourceKind), 2)
    assert found.values == list(told(bot={"x": 2}, country={"DE": 4, "IT": 4}, utm_source={"été \"'\\": 4}))
    assert found.totals[SourceKind.COUNTRY] == 9
    found = await statistics.values_of_link("a", (DAYS[0], DAYS[0]), [SourceKind.COUNTRY], 9)
    assert found.values == list(told(country={"DE": 4, "FR": 1}))
    assert await statistics.days_of_link("never", BY_HOUR) == []


async def test_groups_have_the_clicks_of_their_links_over_all_shards(
    store: Store, statistics: StatisticsStore, new_link: NewLinkMaker
) -> None:
    """Clicks count for the domain, the account and the tags that a link has when they are counted, on whatever
    shard it is, and stay there; tags of links that belong to nobody do not count."""
    codes = [f"g{number}" for number in range(20)] + ["go.example/g"]
    for code in codes:
        await store.links.create(new_link(code, owner="team", tags=("x", "y")))
    await store.links.create(new_link("nobody", tags=("x",)))
    await apply(store, [row(code, 1, 2, told(os={"ios": 1}), bots=1) for code in (*codes, "nobody", "gone")])
    patch = LinkPatch(tags=("z",))
    await store.links.change("g0", patch, if_match=None, owner=None, token=new_link("t").token)
    await apply(store, [row("g0", 2, 5)])
    counted = {}
    for name, group in {
        "all": ALL,
        "default": Group(Scope.DOMAIN, ""),
        "go": Group(Scope.DOMAIN, "go.example"),
        "team": Group(Scope.ACCOUNT, "team"),
        "x": Group(Scope.TAG, "x"),
        "team's x": Group(Scope.ACCOUNT_TAG, "team/x"),
        "z": Group(Scope.TAG, "z"),
        "none": Group(Scope.TAG, "none"),
    }.items():
        days, silent = await statistics.days_of_group(group, BY_HOUR)
        assert silent == ()
        counted[name] = sum(each.clicks for each in days), sum(each.bots for each in days)
    assert counted == {
        "all": (51, 23),
        "default": (49, 22),
        "go": (2, 1),
        "team": (47, 21),
        "x": (42, 21),
        "team's x": (42, 21),
        "z": (5, 0),
        "none": (0, 0),
    }
    (day,), _ = await statistics.days_of_group(ALL, BY_HOUR)
    assert (day.hours, day.bot_hours) == ({0: 51}, {0: 23})
    found = await statistics.values_of_group(Group(Scope.TAG, "x"), (None, None), [SourceKind.OS], 5)
    assert (found.values, found.totals) == (list(told(os={"ios": 21})), {SourceKind.OS: 21})


async def test_many_calls_add_up_and_keep_few_values(store: Store, direct: dict[str, Any]) -> None:
    """However many calls tell of a link, each click is told once; a kind keeps as many values as it may, and the
    rest is under `*`."""
    made_up = 400
    for entry in range(made_up // 4):
        values = {f"value {entry}-{number} {'x' * 30}": 1 for number in range(4)}
        kinds = told(**dict.fromkeys(SourceKind, values)) if entry % 2 else told(referrer=values)
        await apply(store, [row("h", entry, 4, kinds, hour=entry % 24, bots=1)])
    shard = direct[store.shards.map.owner(slot_of("h"))]
    for table in ("click_days", "click_groups"):
        found = await shard.fetch(
            f"SELECT t.kind, count(DISTINCT t.value) AS values, sum(t.clicks) AS clicks FROM {table} d,"
            " clicks_values_v1(clicks_merge_v1(d.sources, coalesce(d.unmerged, '')), NULL, $1) t GROUP BY 1",
            [*SourceKind, HOUR, BOT_HOUR],
        )
        shown = {item["kind"]: (item["values"], int(item["clicks"])) for item in found}
        assert shown.pop("referrer") == (101, made_up)
        assert (shown.pop(HOUR), shown.pop(BOT_HOUR)) == ((24, made_up), (24, made_up // 4))
        assert shown == {
            kind: (min(VALUES_MAX[kind], made_up // 2) + (VALUES_MAX[kind] < made_up // 2), made_up // 2)
            for kind in SourceKind
            if kind is not SourceKind.REFERRER
        }
        assert await shard.fetchval(f"SELECT coalesce(octet_length(unmerged), 0) < 10000 FROM {table}")


async def test_bounds_of_shards_are_those_of_the_program(direct: dict[str, Any]) -> None:
    """A shard keeps as many values of each kind as the program says."""
    shard = next(iter(direct.values()))
    kept = {kind: await shard.fetchval("SELECT clicks_values_max_v1($1)", kind) for kind in SourceKind}
    assert kept == VALUES_MAX


async def test_a_call_while_the_lowest_slot_moves_counts_elsewhere(
    store: Store, statistics: StatisticsStore, direct: dict[str, Any]
) -> None:
    """While the slot in which a shard counts its groups is in hand-off, clicks of other slots are counted, and the
    groups have them once."""
    code = next(
        code for number in range(99) if store.shards.map.owner(slot_of(code := f"m{number}")) == "db1"
    )
    shard = direct["db1"]
    await apply(store, [row(code, 1, 1)])
    home = await shard.fetchval("SELECT slot FROM click_groups")
    assert home != slot_of(code)
    await shard.execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", home)
    await apply(store, [row(code, 2, 2)])
    await shard.execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", home)
    await apply(store, [row(code, 3, 4)])
    (day,), _ = await statistics.days_of_group(ALL, EVER)
    assert day.clicks == 7
    assert await shard.fetchval("SELECT count(DISTINCT slot) FROM click_groups") == 2


async def test_several_consumers_count_groups_once(store: Store, statistics: StatisticsStore) -> None:
    """Deliveries of the same entries by several consumers count once for a group, too."""
    rows = [row(f"c{number % 7}", entry, 1, told(os={"ios": 1})) for entry in range(5) for number in range(7)]
    by_slot: dict[int, list[ClickRow]] = {}
    for item in rows:
        by_slot.setdefault(item.slot, []).append(item)
    await asyncio.gather(*(store.apply_clicks("s", by_slot) for _ in range(4)))
    await apply(store, rows)
    (day,), _ = await statistics.days_of_group(ALL, DateRange(None, None, Interval.DAY, UTC))
    assert day.clicks == len(rows)
    found = await statistics.values_of_group(ALL, (None, None), [SourceKind.OS], 1)
    assert found.totals == {SourceKind.OS: len(rows)}


async def test_a_public_link_is_written_by_the_owner_of_the_slot(
    store: Store, statistics: StatisticsStore, new_link: NewLinkMaker, direct: dict[str, Any]
) -> None:
    """A link has one public link, which whoever may change the link makes and revokes, and no shard during a
    hand-off."""
    await store.links.create(new_link("p", owner="team"))
    assert await statistics.share_of_link("p") is None
    made = await statistics.set_share("p", "team", "first", "key")
    assert made is not None and (made.secret, made.made_by) == ("first", "key")
    for again in (
        await statistics.set_share("p", None, "second", "other"),
        await statistics.share_of_link("p"),
    ):
        assert again == made
    for secret in ("third", None):
        with pytest.raises(NotFound):
            await statistics.set_share("p", "others", secret, "key")
    slot = slot_of("p")
    shard = direct[store.shards.map.owner(slot)]
    await shard.execute("UPDATE slots SET state = 'closed', peer = 'db9' WHERE slot = $1", slot)
    row = await shard.fetchrow("SELECT * FROM link_share_v1($1, 'p', NULL, NULL, 'key')", slot)
    assert row["outcome"] == "busy"
    await shard.execute("UPDATE slots SET state = 'owned', peer = NULL WHERE slot = $1", slot)
    assert await statistics.share_of_link("p") == made
    assert await statistics.set_share("p", "team", None, "key") is None
    later = await statistics.set_share("p", "team", "later", "key")
    assert later is not None and later.secret == "later"
