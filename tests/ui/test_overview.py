"""The overview: what is new."""

from __future__ import annotations

import re
from datetime import UTC, datetime

import pytest
from playwright.async_api import expect

from ring.slots import slot_of
from snapurl.model import ClickRow
from tests.integration.http.service import Service
from tests.support.click_rows import count_clicks
from tests.ui.conftest import PageMaker


@pytest.mark.parametrize("javascript", [True, False])
async def test_the_overview_counts_and_shows_new_links(
    service: Service, make_page: PageMaker, javascript: bool
) -> None:
    """The first page shortens a URL, shows the newest links and those with clicks, and counts the new ones."""
    key = await service.key("create", "read")
    page = await make_page(key=key, javascript=javascript)
    await page.goto("/ui")
    await expect(page.get_by_text("No links yet")).to_be_visible()
    for _ in range(2):
        await page.get_by_label("URL to shorten").fill("example.org/overview")
        await page.keyboard.press("Enter")
        await expect(page.get_by_text("The link is ready.")).to_be_visible()
        await page.get_by_role("link", name="Overview", exact=True).click()
    await expect(page.locator(".tile").first).to_contain_text("2")
    await expect(page.locator(".row")).to_have_count(2)
    await expect(page.get_by_text("Most clicks")).to_have_count(0)
    code = str(await page.locator(".row-link").last.get_attribute("href")).rpartition("/")[2]
    today = datetime.now(UTC).date()
    await count_clicks(service.settings, code, [ClickRow(slot_of(code), 1_000, code, today, 7)])
    await page.reload()
    await expect(page.locator("#rows-top .row")).to_have_count(1)
    await expect(page.locator("#rows-top .row")).to_contain_text("7 clicks")
    tiles = page.get_by_role("region", name="People who clicked").locator(".tile")
    await expect(tiles.first).to_contain_text(re.compile(r"Today\s*7 .*0 yesterday", re.DOTALL))
    await page.get_by_role("link", name="All links").click()
    await expect(page.get_by_role("searchbox")).to_be_visible()
