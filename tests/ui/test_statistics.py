"""Statistics of many links: the overview, and the pages of a tag, an account and a domain."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

from playwright.async_api import expect

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceClicks, SourceKind
from tests.integration.http.service import Service
from tests.support.click_rows import by_kind, count_clicks
from tests.ui.conftest import PageMaker


async def test_an_account_sees_the_clicks_of_its_links_and_tags(
    service: Service, make_page: PageMaker
) -> None:
    """The overview compares the clicks of an account with those before, and leads to the statistics of its tags;
    those of others are not to be seen, and an admin sees each account's."""
    key = await service.key("create", "read")
    own = service.client(key)
    account = (await own.get("/api/v1/me")).json()["account"]
    answer = await own.post("/api/v1/links", json={"url": "https://example.org/", "tags": ["two words"]})
    code, today = answer.json()["code"], datetime.now(UTC).date()
    told = (SourceClicks(SourceKind.COUNTRY, "DE", 4), SourceClicks(SourceKind.BOT, "crawler", 2))
    rows = [
        ClickRow(slot_of(code), 1_000, code, today - timedelta(1), 10),
        ClickRow(slot_of(code), 1_001, code, today, 7, by_kind(told), bots=2),
    ]
    await count_clicks(service.settings, code, rows)
    page = await make_page(key=key, javascript=False)
    await page.goto("/ui")
    clicked = page.get_by_role("region", name="People who clicked")
    texts = [" ".join(text.split()) for text in await clicked.locator(".tile").all_inner_texts()]
    assert [re.sub(r"\D+", " ", text).split() for text in texts] == [
        ["5", "50", "50", "10"], ["7", "15", "0"], ["30", "15", "0"],
    ], texts  # fmt: skip
    await expect(clicked.get_by_role("row", name="DE")).to_contain_text("4")
    await expect(clicked).to_contain_text("Bots made 12 % of all clicks")
    await clicked.get_by_role("link", name="two words").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Tag two words")
    await expect(page.locator(".figure-main")).to_contain_text(re.compile(r"People\s*15"))
    await page.get_by_role("link", name="With bots").click()
    await page.get_by_role("link", name="7 days").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Tag two words")
    await expect(page.locator(".figure-main")).to_contain_text(re.compile(r"Clicks\s*17"))
    async with page.expect_download() as download:
        await page.get_by_role("link", name="CSV", exact=True).last.click()
    assert "crawler,2" in (await (await download.value).path()).read_text().split()
    await page.get_by_role("link", name="Its links").click()
    await page.get_by_role("link", name="Statistics").click()
    await page.goto("/ui/statistics?account=0123456789")
    await expect(page.get_by_text("need an admin key")).to_be_visible()
    admin = await make_page()
    await admin.goto(f"/ui/statistics?account={account}")
    await expect(admin.locator(".figure-main")).to_contain_text(re.compile(r"People\s*15"))
