"""API keys: making one, whose secret is shown once, and revoking it."""

from __future__ import annotations

import re

from playwright.async_api import Page, expect

from tests.integration.http.service import Service
from tests.ui.conftest import PageMaker


async def test_a_new_key_works_and_is_shown_once(service: Service, page: Page) -> None:
    """A new key has the rights that were ticked, and its secret is on no later page."""
    await page.goto("/ui/keys")
    await page.get_by_text("New key").click()
    await page.get_by_label("Name").fill("Newsletter")
    await page.get_by_label("Change").uncheck()
    await page.get_by_label("Limit for new links").fill("often")
    await page.get_by_role("button", name="Create key").click()
    await expect(page.locator("#limit-error")).to_be_visible()
    await expect(page.get_by_label("Change")).not_to_be_checked()
    await page.get_by_label("Limit for new links").fill("600/minute")
    await page.get_by_role("button", name="Create key").click()
    secret = await page.locator(".secret code").inner_text()
    me = (await service.client(secret).get("/api/v1/me")).json()
    assert (me["name"], set(me["rights"])) == ("Newsletter", {"create", "read"})
    await page.goto("/ui/keys")
    await expect(page.get_by_text(secret)).to_have_count(0)


async def test_a_key_is_revoked_by_its_name(service: Service, make_page: PageMaker) -> None:
    """A key is revoked by typing its name, so that no slip ends one."""
    page = await make_page(javascript=False)
    await page.goto("/ui/keys")
    await page.get_by_text("New key").click()
    await page.get_by_label("Name").fill("Short-lived")
    await page.get_by_role("button", name="Create key").click()
    row = page.locator(".row", has_text="Short-lived")
    await row.get_by_role("link", name="Revoke").click()
    await page.get_by_role("textbox").fill("Something else")
    await page.get_by_role("button", name="Revoke").click()
    await expect(page.get_by_role("alert")).to_have_text("This is not the name of the key.")
    await page.get_by_role("textbox").fill("Short-lived")
    await page.get_by_role("button", name="Revoke").click()
    await expect(page).to_have_url(re.compile(r"/ui/keys\?revoked=1"))
    await expect(row.get_by_text("Revoked")).to_be_visible()


async def test_only_admins_see_keys(service: Service, make_page: PageMaker) -> None:
    """A key without the right to administer sees no keys."""
    page = await make_page(key=await service.key("read", "change"))
    await page.goto("/ui/keys")
    await expect(page.get_by_role("heading")).to_have_text("This API key may not do that")
    await expect(page.get_by_role("link", name="Keys")).to_have_count(0)
