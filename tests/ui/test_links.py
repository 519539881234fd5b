"""The list of links: what it shows, by keyboard and mouse, with and without scripts."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, Route, expect

from tests.integration.http.service import Service
from tests.ui.conftest import PUBLIC_URL, PageMaker

HOSTILE = "<script>alert(1)</script>"
BIDI = "safe \u202egnp.exe"


async def test_a_pasted_url_becomes_a_short_one(page: Page) -> None:
    """`c`, a URL and Enter make a link, whose page has the short URL to copy."""
    await page.goto("/ui/links")
    await page.keyboard.press("c")
    await page.keyboard.type("example.org/pasted?a=1&b=2")
    await page.keyboard.press("Enter")
    await expect(page.get_by_role("status").first).to_have_text("The link is ready.")
    await expect(page.get_by_text("https://example.org/pasted?a=1&b=2")).to_be_visible()
    await page.get_by_role("button", name="Copy the short URL").click()
    await expect(page.locator("#said")).to_have_text("Copied")
    copied = await page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(rf"{PUBLIC_URL}/[A-Za-z0-9]{{7}}", copied)


async def test_the_list_shows_texts_as_texts(service: Service, page: Page) -> None:
    """Whatever stands in a title, a tag or a URL, it is shown as text, and turns no text beside it around."""
    url = "https://example.org/%22onmouseover=alert(1)?q=<b>"
    await service.shorten(url, alias="hostile", title=HOSTILE + BIDI, tags=[BIDI, HOSTILE])
    await page.goto("/ui/links")
    row = page.locator(".row", has_text="hostile")
    await expect(row.get_by_text(HOSTILE).first).to_be_visible()
    for text in await row.get_by_text(BIDI).all():
        assert await text.evaluate("element => element.closest('bdi') !== null")
    await page.goto("/ui/links/hostile")
    await expect(page.get_by_text(HOSTILE).first).to_be_visible()


async def test_the_list_says_what_is_special_of_a_link(service: Service, page: Page) -> None:
    """The list and the page of a link say what its visitors get, and how many of its clicks were used."""
    await service.shorten(alias="special-plain")
    await service.shorten(alias="special-off", enabled=False)
    await service.shorten(alias="special-later", starts_at="2099-01-31T12:00:00Z")
    rules = [{"if": {"os": ["ios"]}, "url": "https://example.org/ios"}]
    await service.shorten(alias="special-few", max_clicks=3, rules=rules)
    assert (await service.client().get("/special-few", headers={"User-Agent": "curl/8"})).status_code == 302
    await page.goto("/ui/links?q=special-")
    for code, texts in {
        "special-plain": [],
        "special-off": ["Switched off"],
        "special-later": ["Starts in"],
        "special-few": ["1 rule", "1 of 3 clicks used"],
    }.items():
        badges = page.locator(".row", has_text=code).locator(".badge")
        await expect(badges).to_have_text([re.compile(text) for text in texts])
    await page.goto("/ui/links?q=special-&state=disabled")
    await expect(page.locator(".row")).to_have_count(1)
    await page.goto("/ui/links/special-few")
    await expect(page.get_by_text("1 of 3 clicks used")).to_be_visible()


@pytest.mark.parametrize("javascript", [True, False])
async def test_more_links_follow(service: Service, make_page: PageMaker, javascript: bool) -> None:
    """`Show more` adds the next links below, or leads to them where no script runs."""
    for number in range(26):
        await service.shorten(f"https://example.org/many/{number}")
    page = await make_page(javascript=javascript)
    await page.goto("/ui/links")
    await expect(page.locator(".row")).to_have_count(25)
    first = await page.locator(".row-link").first.get_attribute("href")
    await page.get_by_role("link", name="Show more").first.click()
    if javascript:
        await expect(page.locator(".row").nth(25)).to_be_visible()
        assert await page.locator(".row-link").first.get_attribute("href") == first
    else:
        await expect(page).to_have_url(re.compile("cursor="))
        assert await page.locator(".row-link").first.get_attribute("href") != first


async def test_the_keyboard_walks_the_list(service: Service, page: Page) -> None:
    """`j` and `k` go from link to link, `y` copies one, `q` shows its QR code, Enter opens its page, and
    `?` says so."""
    await service.shorten(alias="second-of-two")
    await service.shorten(alias="first-of-two")
    await page.goto("/ui/links")
    for key, code in (("j", "first-of-two"), ("j", "second-of-two"), ("k", "first-of-two")):
        await page.keyboard.press(key)
        await expect(page.locator(f".row-link[href$={code}]")).to_be_focused()
    await page.keyboard.press("y")
    await expect(page.locator("#said")).to_have_text("Copied")
    assert await page.evaluate("navigator.clipboard.readText()") == f"{PUBLIC_URL}/first-of-two"
    await page.keyboard.press("q")
    await expect(page.get_by_role("dialog", name="QR code")).to_contain_text(f"{PUBLIC_URL}/first-of-two")
    await page.keyboard.press("Escape")
    await page.keyboard.press("?")
    await expect(page.get_by_role("dialog", name="Keyboard shortcuts")).to_be_visible()
    await page.keyboard.press("Escape")
    await page.locator(".row-link[href$=first-of-two]").focus()
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile("/ui/links/first-of-two"))


async def test_a_key_sees_what_it_may(service: Service, make_page: PageMaker) -> None:
    """A key that may only read has no forms, sees only its own links, and is refused everything else."""
    await service.shorten(alias="of-the-admin")
    page = await make_page(key=await service.key("read"))
    await page.goto("/ui/links")
    await expect(page.get_by_text("No links yet")).to_be_visible()
    await expect(page.get_by_role("button", name="Shorten")).to_have_count(0)
    await page.goto("/ui/links/of-the-admin")
    await expect(page.get_by_role("heading")).to_have_text("There is no such link")
    await page.goto("/ui/new")
    await expect(page.get_by_role("heading")).to_have_text("This API key may not do that")


async def test_a_search_that_nobody_answers_is_repeated(service: Service, page: Page) -> None:
    """A search that gets 503 leaves the list as it is, says when it goes again, and finds what it is to find."""
    await service.shorten(alias="found-later")
    refused: list[str] = []

    async def refuse_once(route: Route) -> None:
        refused.append(route.request.url)
        await route.fulfill(status=503, headers={"Retry-After": "1"})

    await page.goto("/ui/links")
    await page.route("**/ui/links?*", refuse_once, times=1)
    await page.keyboard.press("/")
    await page.keyboard.type("found-later")
    await expect(page.locator("#said")).to_have_text("No answer. Trying again in 2 s")
    assert await page.locator(".row").count() > 0
    await expect(page.locator(".row")).to_have_count(1)
    assert len(refused) == 1


@pytest.mark.parametrize("javascript", [True, False])
async def test_links_are_found(service: Service, make_page: PageMaker, javascript: bool) -> None:
    """`/` leads to the search, which finds by text, state and tag, by typing alone or with a button."""
    suffix = "js" if javascript else "plain"
    await service.shorten(
        f"https://example.org/needle-{suffix}", alias=f"found-{suffix}", tags=[f"t {suffix}"]
    )
    await service.shorten("https://example.org/hay", alias=f"other-{suffix}", tags=[f"t {suffix}"])
    page = await make_page(javascript=javascript)
    await page.goto("/ui/links")
    if javascript:
        await page.keyboard.press("/")
        await page.keyboard.type(f"needle-{suffix}")
    else:
        await page.get_by_role("searchbox").fill(f"needle-{suffix}")
        await page.get_by_role("button", name="Search").click()
    await expect(page.locator(".row")).to_have_count(1)
    await expect(page.locator(".row")).to_contain_text(f"found-{suffix}")
    await expect(page).to_have_url(re.compile(f"q=needle-{suffix}"))
    await page.get_by_role("link", name=f"t {suffix}").click()
    await expect(page.locator(".row")).to_have_count(2)
    await page.goto(f"/ui/links?q=needle-{suffix}&state=expired")
    await expect(page.get_by_text("Nothing found")).to_be_visible()
    await page.goto("/ui/links?state=nonsense&q=kept")
    await expect(page.get_by_role("alert")).to_contain_text("The search cannot be done")
    await expect(page.get_by_role("searchbox")).to_have_value("kept")
