"""What the pages say when something is wrong: one line, and nothing that was typed is lost."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator

import pytest
from playwright.async_api import expect

from ring.slots import slot_of
from snapurl.local.cluster import LocalCluster
from tests.integration.http.service import Service
from tests.support.waits import until
from tests.ui.conftest import PageMaker

SHARD = "db1"


@pytest.fixture
async def code_on_silent_shard(service: Service, cluster: LocalCluster) -> AsyncIterator[str]:
    """Makes links on every shard, stops one shard, and returns the code of a link that it has."""
    codes = [f"silent-{number}" for number in range(40)]
    for code in codes:
        await service.shorten(alias=code)
    await cluster.shard(SHARD).stop()
    found = [code for code in codes if (await service.api.get(f"/api/v1/links/{code}")).status_code == 503]
    assert 0 < len(found) < len(codes)
    yield found[0]
    await cluster.shard(SHARD).start()

    async def is_back() -> bool:
        return (await service.api.get(f"/api/v1/links/{found[0]}")).status_code == 200

    await until(is_back)


async def test_what_a_silent_shard_cannot_answer_is_asked_again(
    cluster: LocalCluster, service: Service, make_page: PageMaker, code_on_silent_shard: str
) -> None:
    """While a shard is silent, list and overview say so in one line, and forms keep what was typed. Form, page of a
    link and deletion try again by themselves, and succeed once the shard is back. Who types stops that."""
    code, alias = code_on_silent_shard, _other_code(code_on_silent_shard)
    form, link, edited = await make_page(), await make_page(), await make_page(javascript=False)
    for path in ("/ui/links", "/ui"):
        page = await make_page()  # a page that asks again by itself may abort a navigation to the next one
        await page.goto(path)
        await expect(page.get_by_text("some links are missing here")).to_be_visible()

    await form.goto("/ui/new")
    await form.get_by_label("Target URL").fill("https://example.org/kept")
    await form.get_by_label("Alias").fill(alias)
    await form.get_by_role("button", name="Shorten").click()
    await expect(form.get_by_role("alert")).to_contain_text("Trying again in")
    await expect(form.get_by_label("Target URL")).to_have_value("https://example.org/kept")
    await form.get_by_label("Title").fill("Typed meanwhile")
    await expect(form.locator("[data-retry]")).to_be_empty()
    await form.get_by_role("button", name="Shorten").click()
    await expect(form.get_by_role("alert")).to_contain_text("Trying again in")
    await link.goto(f"/ui/links/{code}")
    await expect(link.get_by_text("Trying again in")).to_be_visible()
    await edited.goto(f"/ui/links/{code}")
    await expect(edited.get_by_role("link", name="Try again")).to_be_visible()
    await expect(edited.get_by_text("Trying again")).to_be_hidden()

    await cluster.shard(SHARD).start()
    await expect(form.get_by_text("The link is ready.")).to_be_visible()
    await expect(form.get_by_text("Typed meanwhile")).to_be_visible()
    await expect(link.get_by_role("heading", name=code)).to_be_visible()
    await edited.get_by_role("link", name="Try again").click()
    await expect(edited.get_by_role("heading", name=code)).to_be_visible()


def _other_code(code: str) -> str:
    """Returns a code of the same slot that no link has."""
    return next(other for number in range(10**6) if slot_of(other := f"same-{number}") == slot_of(code))


async def test_a_limit_is_one_line(service: Service, make_page: PageMaker) -> None:
    """Beyond the limit of a key the form says when to try again, and keeps what was typed."""
    page = await make_page(key=await service.key("create", "read", limit="1/hour"))
    await page.goto("/ui/new")
    await page.get_by_label("Target URL").fill("https://example.org/first")
    await page.keyboard.press("Enter")
    await expect(page.get_by_text("The link is ready.")).to_be_visible()
    await page.goto("/ui/new")
    await page.get_by_label("Target URL").fill("https://example.org/second")
    await page.get_by_label("Title").fill("Kept")
    await page.get_by_role("button", name="Shorten").click()
    await expect(page.get_by_role("alert")).to_have_text(
        re.compile(r"1 links in 3600 s are allowed.*Try again in \d+ (minutes|seconds)\.")
    )
    await expect(page.get_by_label("Title")).to_have_value("Kept")


async def test_colours_zone_and_shortcuts_are_chosen(service: Service, make_page: PageMaker) -> None:
    """What was chosen holds for every page of this browser, from its first byte. Times are shown and typed in the
    zone that was chosen, and keys do nothing where they are switched off."""
    page = await make_page(is_new=True, zone="Asia/Kolkata")
    await service.shorten(alias="in-tokyo", expires_at="2099-01-31T12:00:00Z")
    await page.goto("/ui/settings")
    await page.get_by_role("radio", name="Dark", exact=True).check()
    await page.get_by_label("Time zone").select_option("Asia/Tokyo")
    await page.get_by_role("checkbox", name="Keyboard shortcuts").uncheck()
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved for this browser.")).to_be_visible()
    await expect(page.get_by_label("Time zone")).to_have_value("Asia/Tokyo")
    await expect(page.get_by_role("checkbox", name="Keyboard shortcuts")).not_to_be_checked()
    await page.goto("/ui/links?q=in-tokyo")
    assert await page.evaluate("getComputedStyle(document.body).colorScheme") in ("dark", "light dark")
    assert await page.locator("html").get_attribute("data-theme") == "dark"
    await expect(page.get_by_title("31 Jan 2099, 21:00 JST")).to_be_visible()
    await page.keyboard.press("/")
    await expect(page.get_by_label("Search")).not_to_be_focused()
    await page.goto("/ui/links/in-tokyo/edit")
    await expect(page.get_by_label("Date and time — Asia/Tokyo")).to_have_value("2099-01-31T21:00")
    await page.get_by_label("Date and time").fill("2099-02-01T09:00")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Saved.")).to_be_visible()
    link = (await service.api.get("/api/v1/links/in-tokyo")).json()
    assert link["expires_at"] == "2099-02-01T00:00:00.000000Z"
