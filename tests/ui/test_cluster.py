"""The cluster page: what it says when all is well, when a shard is gone, and to whom."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import Page, expect

from snapurl.local.cluster import LocalCluster
from tests.integration.http.service import Service
from tests.integration.http.test_clicks import consuming
from tests.support.waits import until
from tests.ui.conftest import PageMaker


@pytest.fixture
async def all_counted(service: Service) -> AsyncIterator[None]:
    """Counts the clicks that other tests made of the service: clicks that are late are a headline of their own."""
    async with consuming(service):
        yield


@pytest.mark.usefixtures("all_counted")
async def test_a_silent_shard_is_the_headline_until_it_is_back(page: Page, cluster: LocalCluster) -> None:
    """When a shard's server ends, the open page says which one and what it costs, with the command to run; when it
    is back, all is well again."""
    await page.goto("/ui/cluster")
    headline = page.locator("#headline")
    await expect(headline).to_have_text("All well.")
    await cluster.shard("db2").kill()
    try:
        said = re.compile(r"db2 silent for \d+\s(s|min): \d+\s% of links from caches only\.")
        await expect(headline).to_have_text(said)
        row = page.locator("tr[data-shard=db2]")
        await expect(row).to_contain_text("silent")
        await expect(page.locator(".band-dark")).to_have_count(1)
        await expect(page).to_have_title(said)
        await expect(page.locator("#spoken")).to_have_text(re.compile("db2"))
        await page.locator("#findings").get_by_role("button", name="Copy the command").click()
        assert await page.evaluate("navigator.clipboard.readText()") == "snapurl-reshard doctor"
    finally:
        await cluster.shard("db2").start()
    await expect(headline).to_have_text("All well.")
    await expect(page.locator(".band-dark")).to_have_count(0)


async def test_without_scripts_the_page_stands_still_and_has_a_link_to_reload(make_page: PageMaker) -> None:
    """Without JavaScript the page has everything, drawn by the server, and a link that loads it anew."""
    page = await make_page(javascript=False)
    await page.goto("/ui/cluster")
    await expect(page.locator("svg .band")).to_have_count(4)
    slots = await page.locator("[data-slots]").evaluate_all("cells => cells.map(cell => +cell.dataset.slots)")
    assert sum(slots) == 16_384
    await page.locator("#headline").evaluate("element => element.remove()")
    await page.get_by_role("link", name="Reload").click()
    await expect(page.locator("#headline")).not_to_be_empty()


async def test_a_page_that_gets_no_events_asks_instead(page: Page) -> None:
    """Where the stream is refused, the page goes on with questions and says so."""

    async def refuse(route: object) -> None:
        await route.fulfill(status=503)  # type: ignore[attr-defined]

    await page.route("**/ui/cluster/events", refuse)
    await page.goto("/ui/cluster")
    await expect(page.locator("#live-state")).to_have_text("Updated every 5 s")
    await expect(page.locator("[data-live]")).to_have_attribute("data-live", "slow")


async def test_a_hidden_tab_holds_no_connection(service: Service, page: Page) -> None:
    """A tab that nobody sees ends its stream, since a browser has few connections; seen again, it is live again."""

    async def watchers(count: int) -> None:
        line = f"snapurl_watchers {count}.0\n"

        async def are_there() -> bool:
            return line in (await service.inside().get("/metrics")).text

        await until(are_there)

    async def turn(hidden: str) -> None:
        await page.evaluate(
            f"Object.defineProperty(document, 'hidden', {{value: {hidden}, configurable: true}});"
            "document.dispatchEvent(new Event('visibilitychange'))"
        )

    await page.goto("/ui/cluster")
    await watchers(1)
    await turn("true")
    await watchers(0)
    await turn("false")
    await watchers(1)
    await expect(page.locator("#live-state")).to_have_text("Live")


async def test_only_admins_see_the_cluster(service: Service, make_page: PageMaker) -> None:
    """Without a session or the right of an admin, page, state and events say nothing of the inside."""
    page = await make_page(key=await service.key("read", "create"))
    for path in ("/ui/cluster", "/ui/cluster/state", "/ui/cluster/events"):
        answer = await page.goto(path)
        assert answer is not None and answer.status == 403
        assert "db0" not in await page.content()
        refused = await service.client().get(path)
        assert (refused.status_code, "db0" in refused.text) == (303, False)
    await page.goto("/ui/links")
    await expect(page.get_by_role("link", name="Cluster")).to_have_count(0)
