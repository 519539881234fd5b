"""Many links at once: ticking them, what is done to them, and what is said of each."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from tests.integration.http.service import Service
from tests.ui.conftest import PageMaker


@pytest.mark.parametrize("javascript", [True, False])
async def test_ticked_links_are_changed_together(
    service: Service, make_page: PageMaker, javascript: bool
) -> None:
    """Ticked links get tags, are switched off, deleted, and brought back by Undo; others stay as they are."""
    mark = "js" if javascript else "plain"
    codes = [f"batch-{mark}-{number}" for number in range(3)]
    for code in codes:
        await service.shorten(alias=code, title=f"batch of {mark}")
    page = await make_page(javascript=javascript)
    await page.goto(f"/ui/links?q=batch-{mark}")

    async def tick() -> None:
        for code in codes[:2]:
            await page.get_by_role("checkbox", name=f"Select {code}").check()

    async def links() -> list[dict[str, object]]:
        return [(await service.api.get(f"/api/v1/links/{code}")).json() for code in codes]

    await tick()
    await page.get_by_label("Tags, separated by commas").fill("one, two words")
    await page.get_by_role("button", name="Add").click()
    await expect(page.get_by_text("2 links have the tags.")).to_be_visible()
    assert [link["tags"] for link in await links()] == [["one", "two words"], ["one", "two words"], []]
    await tick()
    await page.get_by_role("button", name="Switch off").click()
    await expect(page.get_by_text("2 links are switched off")).to_be_visible()
    await expect(page.locator(".row", has_text="Switched off")).to_have_count(2)
    assert [link["enabled"] for link in await links()] == [False, False, True]
    await tick()
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_text("2 links are deleted")).to_be_visible()
    await expect(page.locator(".row")).to_have_count(1)
    await page.get_by_role("button", name="Undo").click()
    await expect(page.get_by_text("2 links are back.")).to_be_visible()
    await expect(page.locator(".row")).to_have_count(3)
    assert [link["enabled"] for link in await links()] == [False, False, True]


async def test_each_link_has_its_result(service: Service, page: Page) -> None:
    """What cannot be changed is named with the reason, and the others are changed all the same."""
    full = [f"tag-{number}" for number in range(20)]
    await service.shorten(alias="result-full", tags=full)
    await service.shorten(alias="result-free")
    await page.goto("/ui/links?q=result-")
    await page.get_by_role("checkbox", name="Select result-full").check()
    await page.get_by_role("checkbox", name="Select result-free").check()
    await page.get_by_role("button", name="Add").click()
    await expect(page.locator("#batch")).to_contain_text("tags")
    await expect(page.get_by_role("checkbox", name="Select result-free")).to_be_checked()
    await page.get_by_label("Tags, separated by commas").fill("extra")
    await page.get_by_role("button", name="Add").click()
    await expect(page.get_by_text("1 link has the tags.")).to_be_visible()
    await expect(page.get_by_role("row", name="result-full")).to_contain_text("more than 20 tags")
    await page.reload()
    await expect(page).to_have_url(re.compile(r"/ui/links\?q=result-"))


async def test_links_are_changed_by_the_keyboard_alone(service: Service, page: Page) -> None:
    """`x` ticks the link that `j` has reached, `b` leads to what can be done, and Enter does it."""
    for number in range(2):
        await service.shorten(alias=f"typed-{number}")
    await page.goto("/ui/links?q=typed-")
    for key in ("j", "x", "j", "x"):
        await page.keyboard.press(key)
    await expect(page.locator("[data-count]")).to_have_text("2 selected")
    await page.keyboard.press("b")
    await page.keyboard.type("by hand")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("2 links have the tags.")).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False])
async def test_all_that_a_list_finds_is_counted_first(
    service: Service, make_page: PageMaker, javascript: bool
) -> None:
    """A change of all that the list finds says how many links that are, and waits for a yes to this number."""
    mark = f"whole-{'js' if javascript else 'plain'}"
    for number in range(26):
        await service.shorten(f"https://example.org/{mark}/{number}")
    page = await make_page(javascript=javascript)
    await page.goto(f"/ui/links?q={mark}")
    await page.locator(".pick input").first.check()
    await page.get_by_label("All that the list finds").check()
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("heading")).to_have_text("Delete 26 links?")
    await service.shorten(f"https://example.org/{mark}/late")
    await page.get_by_role("button", name="Delete 26 links").click()
    await expect(page.get_by_text("another number of links")).to_be_visible()
    await page.get_by_role("button", name="Delete 27 links").click()
    await expect(page.get_by_text("27 links are deleted")).to_be_visible()
    await expect(page.get_by_text("Nothing found")).to_be_visible()
    await page.get_by_role("button", name="Undo").click()
    await expect(page.get_by_text("27 links are back.")).to_be_visible()


async def test_links_beyond_the_first_page_stay_ticked(service: Service, page: Page) -> None:
    """Ticks count from page to page, and a refusal loses none of them."""
    for number in range(30):
        await service.shorten(f"https://example.org/beyond/{number}")
    await page.goto("/ui/links?q=example.org/beyond/")
    await page.get_by_role("link", name="Show more").click()
    await expect(page.locator(".row")).to_have_count(30)
    await page.locator(".pick input").first.check()
    await page.locator(".pick input").last.check()
    await expect(page.locator("[data-count]")).to_have_text("2 selected")
    await page.get_by_role("button", name="Add").click()
    await expect(page.locator("[data-count]")).to_have_text("2 selected")
    await page.get_by_role("button", name="Delete").click()
    await expect(page.get_by_text("2 links are deleted")).to_be_visible()


async def test_who_may_not_change_links_cannot_tick_them(service: Service, make_page: PageMaker) -> None:
    """Without the right to change there are no checkboxes, and a forged form is refused."""
    key = await service.key("create", "read")
    await service.client(key).post("/api/v1/links", json={"url": "https://example.org/", "alias": "not-mine"})
    page = await make_page(key=key)
    await page.goto("/ui/links")
    await expect(page.locator(".row")).to_have_count(1)
    await expect(page.locator(".pick")).to_have_count(0)
    refused = await page.evaluate(
        "fetch('/ui/batch', {method: 'POST', body: new URLSearchParams({action: 'delete', codes: 'not-mine'})})"
        ".then((answer) => answer.status)"
    )
    assert refused == 403
    assert (await service.api.get("/api/v1/links/not-mine")).status_code == 200
