"""The migration that begins to keep totals."""

from __future__ import annotations

import asyncio
from datetime import date
from functools import partial

import pytest

from ring.slots import slot_of
from snapurl.config import Settings
from snapurl.model import ClickRow
from snapurl.store.cluster import migrate
from snapurl.store.cluster.bootstrap import ensure_cluster
from tests.integration.store.conftest import Store
from tests.support.click_totals import assert_totals_are_sums
from tests.support.roles import connected
from tests.support.waits import until

DAYS = (date(2026, 5, 1), date(2026, 5, 2))


async def test_totals_have_the_clicks_from_before_them_and_from_meanwhile(
    settings: Settings, fresh_shards: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The migration sums up what was counted before. A call that waits for it counts nothing."""
    known = migrate.load_migrations()
    (totals,) = [item for item in known if item.name == "click_totals"]
    monkeypatch.setattr(migrate, "load_migrations", lambda: known[: totals.version - 1])
    await migrate.migrate_all(settings)
    await ensure_cluster(settings)
    store = await Store.open(settings)
    slot = slot_of("a")
    (owner,) = store.router.group([slot], int)
    apply = partial(store.clicks.apply, owner, "s")
    before = [ClickRow(slot, entry, "a", day, 2) for entry, day in enumerate(DAYS)]
    later = {slot: [ClickRow(slot, 5, "a", DAYS[1], 3)]}
    assert (await apply({slot: before})).counted == {slot}
    async with connected(fresh_shards[owner]) as shard:
        async with shard.transaction():
            await shard.execute(totals.sql)
            call = asyncio.create_task(apply(later))
            await until(partial(shard.fetchval, "SELECT true FROM pg_locks WHERE NOT granted LIMIT 1"))
        assert (await call).counted == set()
        await assert_totals_are_sums(shard)
        assert (await apply(later)).counted == {slot}
        await assert_totals_are_sums(shard)
        assert await shard.fetchval("SELECT clicks FROM click_totals WHERE code = 'a'") == 7
    await store.shards.close()
