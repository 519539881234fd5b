"""Blocked hosts: what an admin sees of the list, a URL to try, and the links to blocked hosts."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from playwright.async_api import Page, expect

from snapurl.config import Settings
from tests.integration.http.service import Service, running
from tests.support.waits import until
from tests.ui.conftest import PUBLIC_URL, SECRET, PageMaker
from tests.ui.test_pages import AXE, SMALL_TARGETS


@pytest.fixture(scope="module")
async def guarded(ui_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """Yields a service with a list of blocked hosts, beside the one that the tests share."""
    directory = tmp_path_factory.mktemp("blocked")
    (directory / "blocked").write_text("0.0.0.0 blocked.example\n<p>\n")
    variables = {
        "SNAPURL_BASE_URL": PUBLIC_URL,
        "SNAPURL_SESSION_SECRET": SECRET,
        "SNAPURL_BLOCKED_HOSTS_FILE": str(directory / "blocked"),
    }
    async with running(ui_settings, directory, 1, **variables) as started:

        async def loaded() -> bool:
            return bool((await started.api.get("/api/v1/blocklist")).json()["hosts"] == 1)

        await until(loaded)
        yield started


@pytest.mark.parametrize("javascript", [True, False])
async def test_a_url_is_tried_and_links_to_blocked_hosts_are_switched_off(
    service: Service, guarded: Service, make_page: PageMaker, javascript: bool
) -> None:
    """The page says what is in the list and tries URLs; links to blocked hosts are found and switched off."""
    link = await service.shorten("https://www.blocked.example/page", alias=f"was-allowed-{javascript}")
    page = await make_page(javascript=javascript, base_url=guarded.workers[0].url, is_new=True)
    await page.goto("/ui/settings")
    await page.get_by_role("link", name="Blocked hosts").click()
    await expect(page.locator(".pairs")).to_contain_text("1 line names no host")
    for url, said in (
        ("https://x.blocked.example/", "Refused: it leads to a host that is blocked here."),
        ("https://example.org/", "A link may lead there."),
        ("nonsense", "Must be a whole URL"),
    ):
        await page.get_by_label("Try a URL").fill(url)
        await page.get_by_role("button", name="Try it").click()
        await expect(page.get_by_text(said)).to_be_visible()
        await expect(page.get_by_label("Try a URL")).to_have_value(url)
    await page.get_by_role("link", name="Find links").click()
    await expect(page.locator(".row")).to_contain_text([link["code"]])
    await page.get_by_role("button", name="Switch off 1 link").click()
    await expect(page.get_by_text("1 link is switched off: visitors get “not found”.")).to_be_visible()
    await expect(page.locator(".row", has_text=link["code"])).to_contain_text("Switched off")
    assert (await service.client().get(f"/{link['code']}")).status_code == 404
    await service.api.delete(f"/api/v1/links/{link['code']}")


async def test_a_form_says_beside_the_field_that_the_host_is_blocked(
    guarded: Service, make_page: PageMaker
) -> None:
    """What was typed stays, and the target is named as what is wrong."""
    page = await make_page(base_url=guarded.workers[0].url, is_new=True)
    await page.goto("/ui/new")
    await page.get_by_label("Target").first.fill("https://blocked.example/")
    await page.get_by_role("button", name="Shorten").first.click()
    await expect(page.locator(".error").first).to_have_text("Leads to a host that is blocked here.")


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_the_pages_fit_and_can_be_read(
    service: Service, guarded: Service, make_page: PageMaker, theme: str
) -> None:
    """At 360 pixels nothing scrolls sideways or is too small to press, and axe finds nothing."""
    link = await service.shorten("https://www.blocked.example/page", alias=f"axe-{theme}")
    page: Page = await make_page(width=360, theme=theme, base_url=guarded.workers[0].url, is_new=True)
    script = Path(AXE).read_text()
    for path in ("/ui/blocklist", "/ui/blocklist/links"):
        await page.goto(path)
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert not await page.evaluate(SMALL_TARGETS), path
        await page.evaluate(script)
        found = await page.evaluate("axe.run()")
        assert not found["violations"], path
    await service.api.delete(f"/api/v1/links/{link['code']}")
