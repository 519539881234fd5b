"""The migration that begins to keep what is told of clicks in one row per link and day."""

from __future__ import annotations

import asyncio
from datetime import date
from functools import partial

import asyncpg
import pytest

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.model import ClickRow, SourceClicks, SourceKind
from snapurl.store.cluster import migrate
from snapurl.store.cluster.bootstrap import ensure_cluster
from tests.integration.store.conftest import NewLinkMaker, Store, new_link
from tests.support.click_rows import by_kind
from tests.support.click_totals import assert_groups_are_sums, assert_totals_are_sums
from tests.support.roles import connected
from tests.support.waits import until

__all__ = ["new_link"]

DAYS = (date(2026, 5, 1), date(2026, 5, 2))
APPLY = "SELECT * FROM clicks_apply_v2('s', $1, $2, $3, $4, $5, $6, $7, $4, $5, $6, $8, $9, $7)"


async def test_what_was_counted_before_and_meanwhile_is_told(
    settings: Settings, fresh_shards: dict[str, str], monkeypatch: pytest.MonkeyPatch, new_link: NewLinkMaker
) -> None:
    """The migration keeps days, totals and sources, and sums them up by domain, account and tag. A call that waits
    for it counts nothing."""
    known = migrate.load_migrations()
    (made,) = [item for item in known if item.name == "click_sources"]
    monkeypatch.setattr(migrate, "load_migrations", lambda: known[: made.version - 1])
    await migrate.migrate_all(settings)
    await ensure_cluster(settings)
    store = await Store.open(settings)
    code, slot = "go.example/a", slot_of("go.example/a")
    await store.links.create(new_link(code, owner="team", tags=("x", "y")))
    (owner,) = store.router.group([slot], int)

    async def count_as_before(shard: asyncpg.Connection, day: date, last: int) -> None:
        args = ([slot], [last], [last], [slot], [code], [day], [2], ["referrer"], ["a.example"])
        assert await shard.fetch(APPLY, *args) == []

    async with connected(fresh_shards[owner]) as shard, connected(fresh_shards[owner]) as other:
        for last, day in enumerate(DAYS):
            await count_as_before(other, day, last)
        async with shard.transaction():
            await shard.execute(made.sql)
            call = asyncio.create_task(count_as_before(other, DAYS[1], 5))
            await until(partial(shard.fetchval, "SELECT true FROM pg_locks WHERE NOT granted LIMIT 1"))
        with pytest.raises(asyncpg.PostgresError):
            await call
        for following in known[made.version :]:
            await shard.execute(following.sql)
        told = (SourceClicks(SourceKind.REFERRER, "b.example", 3),)
        later = {slot: [ClickRow(slot, 5, code, DAYS[1], 3, by_kind(told))]}
        assert (await store.clicks.apply(owner, "s", later)).counted == {slot}
        await assert_totals_are_sums(shard)
        await assert_groups_are_sums([shard])
        groups = await shard.fetch("SELECT scope, key, sum(clicks) AS clicks FROM click_groups GROUP BY 1, 2")
    assert await store.clicks_by_day(code) == {DAYS[0]: 2, DAYS[1]: 5}
    assert await store.told(code) == {"a.example": 4, "b.example": 3}
    assert {(row["scope"], row["key"]): row["clicks"] for row in groups} == dict.fromkeys(
        [
            ("domain", "go.example"),
            ("account", "team"),
            *(("tag", tag) for tag in "xy"),
            *(("account_tag", f"team/{tag}") for tag in "xy"),
        ],
        7,
    )
    await store.shards.close()
