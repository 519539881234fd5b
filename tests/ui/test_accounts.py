"""Accounts: making one and keys for it, and giving all its links to another."""

from __future__ import annotations

import re

import pytest
from playwright.async_api import Page, expect

from snapurl.store.accounts import TRANSFER_LINKS_MAX
from tests.integration.http.service import Service
from tests.ui.conftest import PageMaker


async def create(page: Page, name: str) -> str:
    """Creates an account as a person does, and returns its id."""
    await page.goto("/ui/accounts")
    if not await page.get_by_label("Name").is_visible():
        await page.get_by_text("New account").click()
    await page.get_by_label("Name").fill(name)
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_text("The account is ready.")).to_be_visible()
    return page.url.rpartition("/")[2].partition("?")[0]


@pytest.mark.parametrize("javascript", [True, False])
async def test_keys_of_an_account_share_its_links(
    service: Service, make_page: PageMaker, javascript: bool
) -> None:
    """An account is made, a key for it in one step more, and that key reaches the links of the account."""
    page = await make_page(javascript=javascript)
    name = f"Team {javascript}"
    account = await create(page, name)
    await page.get_by_role("link", name="New key").click()
    await page.get_by_label("Name").fill("Ann")
    await expect(page.get_by_label("Account — whose links it shares")).to_have_value(account)
    await page.get_by_role("button", name="Create key").click()
    secret = await page.locator(".secret code").inner_text()
    link = await service.shorten("https://example.org/of-the-team", account=account)
    found = await service.client(secret).get(f"/api/v1/links/{link['code']}")
    assert found.status_code == 200
    row = page.locator(".row", has_text="Ann").first
    await expect(row).to_contain_text("Never used")
    await row.get_by_role("link", name=name).click()
    await expect(page.locator(".row", has_text="Ann")).to_contain_text("change, create, read")
    await expect(page.get_by_text(secret)).to_have_count(0)


async def test_a_name_is_given_once(page: Page) -> None:
    """A second account of one name is refused in one line, also when one is renamed; what was typed stays."""
    await create(page, "Only one")
    await page.goto("/ui/accounts")
    await page.get_by_text("New account").click()
    await page.get_by_label("Name").fill("Only one")
    await page.get_by_role("button", name="Create account").click()
    await expect(page.get_by_role("alert")).to_contain_text("has this name")
    await expect(page.get_by_label("Name")).to_have_value("Only one")
    await create(page, "A second one")
    await page.get_by_label("Name").fill("Only one")
    await page.get_by_role("button", name="Rename").click()
    await expect(page.locator("#name-error")).to_have_text("Is the name of another account.")
    await expect(page.get_by_label("Name")).to_have_value("Only one")
    await page.get_by_label("Name").fill("Only two")
    await page.get_by_role("button", name="Rename").click()
    await expect(page.get_by_role("heading", level=1)).to_have_text("Only two")


async def test_all_links_are_given_to_another_account(service: Service, page: Page) -> None:
    """Giving all links says how many they are, goes on by itself until none is left, and says that it is done."""
    source, target = await create(page, "Giver"), await create(page, "Taker")
    made = 0
    while made <= TRANSFER_LINKS_MAX * len(service.settings.shard_dsns):
        links = [{"url": f"https://example.org/{number}", "account": source} for number in range(1_000)]
        answer = await service.api.post("/api/v1/links/bulk", json={"links": links})
        assert answer.status_code == 200, answer.text
        made += 1_000
    await page.goto(f"/ui/accounts/{source}")
    await page.get_by_label("Give all its links to").select_option(target)
    await page.get_by_role("button", name="Continue").click()
    await expect(page.get_by_role("heading")).to_have_text("Give all links?")
    await page.get_by_role("button", name=f"Give {made:,} links").click()
    await expect(page.get_by_role("status").first).to_have_text(f"{made:,} links belong to Taker now.")
    left = await service.api.get(f"/api/v1/links?account={source}&total=true")
    assert left.json()["total"] == 0
    await page.goto(f"/ui/accounts/{source}/transfer?account={target}")
    await expect(page.get_by_role("heading")).to_have_text("Nothing to give")


async def test_a_person_without_rights_sees_what_the_key_may_do(
    service: Service, make_page: PageMaker
) -> None:
    """Whoever is no admin sees no other keys and accounts, and on the settings what their own key may do."""
    made = (await service.api.post("/api/v1/accounts", json={"name": "Own team"})).json()
    key = await service.api.post(
        "/api/v1/keys", json={"name": "Ben", "account": made["id"], "rights": ["read"], "limit": "5/minute"}
    )
    page = await make_page(key=key.json()["key"])
    await page.goto("/ui/settings")
    await expect(page.locator(".pairs")).to_contain_text(
        re.compile("Ben.*Own team.*read.*5/minute", re.DOTALL)
    )
    await expect(page.get_by_role("link", name="Keys")).to_have_count(0)
    for path in ("/ui/accounts", "/ui/keys", f"/ui/accounts/{made['id']}"):
        await page.goto(path)
        await expect(page.get_by_role("heading")).to_have_text("This API key may not do that")
