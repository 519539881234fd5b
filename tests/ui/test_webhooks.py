"""Webhooks: making one, whose secret is shown once, its messages, and ending it; all without a script."""

from __future__ import annotations

import re

from playwright.async_api import expect

from tests.integration.http.service import Service
from tests.ui.conftest import PageMaker


async def test_a_webhook_is_made_changed_and_deleted(service: Service, make_page: PageMaker) -> None:
    """A new webhook shows its secret once. Its messages are listed, and sent again; it is changed, disabled, given
    another secret, and deleted."""
    page = await make_page(javascript=False, key=await service.key("create", "read", "change"))
    await page.goto("/ui/webhooks")
    await page.get_by_label("URL").fill("ftp://example.org/")
    await page.get_by_role("button", name="Create webhook").click()
    await expect(page.locator("#url-error")).to_be_visible()
    await page.get_by_label("URL").fill("https://hooks.example.org/made")
    await page.get_by_label("Deleted").uncheck()
    await page.get_by_label("Note").fill("For the shop")
    await page.get_by_role("button", name="Create webhook").click()
    secret = await page.locator(".secret code").inner_text()
    assert secret.startswith("whsec_")
    await page.goto("/ui/webhooks")
    await page.get_by_role("link", name="https://hooks.example.org/made").click()
    await expect(page.get_by_text(secret)).to_have_count(0)

    await page.get_by_role("button", name="Send a test").click()
    row = page.locator(".row", has_text="webhook.test")
    await expect(row.get_by_text("Waiting")).to_be_visible()
    await row.get_by_role("button", name="again").click()
    await expect(page.get_by_role("status")).to_have_text("What you asked for is sent again.")
    await page.get_by_role("link", name="Given up").click()
    await expect(page.locator(".row")).to_have_count(0)

    await page.get_by_text("Change it").click()
    await page.get_by_label("URL").fill("https://hooks.example.org/changed")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("https://hooks.example.org/changed")).to_be_visible()
    await page.get_by_role("button", name="Disable").click()
    await expect(page.get_by_text("It is disabled: switched off.")).to_be_visible()
    await page.get_by_role("button", name="New secret").click()
    assert await page.locator(".secret code").inner_text() != secret
    await page.get_by_role("link", name="Delete", exact=True).click()
    await page.get_by_role("button", name="Delete").click()
    await expect(page).to_have_url(re.compile(r"/ui/webhooks\?deleted=1"))
    await expect(page.get_by_text("hooks.example.org")).to_have_count(0)
