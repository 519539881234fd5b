"""The cluster page while a shard is added."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from ring.placement import place
from ring.topology import Shard
from snapurl.config import Settings
from snapurl.store.cluster.dsn import address_of
from tests.integration.http.service import Service, running
from tests.integration.tools.conftest import fifth, five, ready, settle
from tests.ui.conftest import PUBLIC_URL, SECRET
from tools.change.provision import register_shard
from tools.cluster.audit import audited
from tools.cluster.fleet import Fleet
from tools.cluster.publish import publish
from tools.cluster.status import read_status

__all__ = ["fifth", "five", "ready"]


@pytest.fixture
async def service(ready: Settings, tmp_path: Path) -> AsyncIterator[Service]:
    """Yields a service on shards of its own, which `make_page` uses here."""
    variables = {"SNAPURL_BASE_URL": PUBLIC_URL, "SNAPURL_SESSION_SECRET": SECRET}
    async with running(ready, tmp_path, workers=1, **variables) as started:
        yield started


async def test_the_ring_changes_until_every_arc_has_its_new_owner(
    page: Page, ready: Settings, five: Settings, fifth: str
) -> None:
    """Who watches sees the goal, who has to begin the work, and in the end each shard with the slots that `status`
    gives it; nothing is left to mark."""
    await page.goto("/ui/cluster")
    headline, waiting = page.locator("#headline"), page.locator(".mark-waiting")
    await expect(headline).to_have_text("All well.")
    await page.evaluate("window.notReloaded = true")
    fleet = await Fleet.connect(ready)
    try:
        fleet.settings = five
        async with audited(fleet, "add db4") as record:
            topology = fleet.topology.with_shard(Shard("db4", 1.0, address_of(fifth)))
            await register_shard(fleet, "db4", topology)
            await publish(fleet, topology)
            record.publish(topology.version)
        await expect(headline).to_have_text("Adding db4: 0 %, and no migrator runs.")
        await expect(page.locator("#findings code")).to_have_text("snapurl-reshard run")
        assert ".7 .3" in str(await waiting.get_attribute("stroke-dasharray"))
        await expect(page.locator("svg .band")).to_have_count(5)

        await settle(five)
        await expect(headline).to_have_text("All well.")
        await expect(waiting).to_have_attribute("stroke-dasharray", "0 1")
        await expect(page.locator(".mark-moving")).to_have_attribute("stroke-dasharray", "0 1")
        shown = await page.locator("tr[data-shard]").evaluate_all(
            "rows => rows.map(row => [row.dataset.shard, +row.querySelector('[data-slots]').dataset.slots])"
        )
        status = await read_status(fleet)
        assert [tuple(row) for row in shown] == [(shard.name, shard.slots) for shard in status.shards]
        assert dict(map(tuple, shown))["db4"] == place(topology).count("db4")
        assert await page.evaluate("window.notReloaded")
    finally:
        await fleet.close()
