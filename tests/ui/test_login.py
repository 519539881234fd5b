"""Login: with a key, by a one-time link, and all that must not log anybody in."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator

import httpx
import pytest
from playwright.async_api import expect

from snapurl.keys import PlainKey, create_key, list_keys, revoke_key
from snapurl.ui.screens.login import _carried
from snapurl.ui.sessions import KeyClaim, Sessions
from tests.integration.http.service import Service, running
from tests.support.waits import HANG_S, until
from tests.ui.conftest import SECRET, PageMaker


async def test_a_key_logs_in_and_logs_out(service: Service, make_page: PageMaker) -> None:
    """Whoever has no session is asked for a key, comes to the page that was wanted, and leaves it again."""
    page = await make_page(key=None)
    await page.goto("/ui/links?days=7")
    await expect(page).to_have_title(re.compile("Log in"))
    await page.get_by_label("API key").fill(service.admin_key)
    await page.keyboard.press("Enter")
    await expect(page).to_have_url(re.compile(r"/ui/links\?days=7$"))
    await page.get_by_text("Account").locator("..").click()
    await page.get_by_role("button", name="Log out").click()
    await expect(page).to_have_url(re.compile("/ui/login"))
    await page.goto("/ui/links")
    await expect(page).to_have_url(re.compile("/ui/login"))


async def test_login_works_without_javascript(service: Service, make_page: PageMaker) -> None:
    """A browser that runs no scripts logs in, too; a wrong key is refused in one line."""
    page = await make_page(key=None, javascript=False)
    await page.goto("/ui/login")
    await page.get_by_label("API key").fill("snap_0123456789_" + "x" * 32)
    await page.get_by_role("button", name="Log in").click()
    await expect(page.get_by_role("alert")).to_have_text("This key is unknown or revoked.")
    await page.get_by_label("API key").fill(service.admin_key)
    await page.get_by_role("button", name="Log in").click()
    await expect(page).to_have_url(re.compile("/ui$"))


async def test_a_link_logs_in_once(service: Service, make_page: PageMaker) -> None:
    """A one-time link asks before it logs in, so that previews do not use it up, and works once."""
    plain = PlainKey.parse(service.admin_key)
    assert plain is not None
    token = Sessions(SECRET, time.time).login_token(plain.key_id, plain.secret_hash)
    page = await make_page(key=None)
    for _ in range(2):
        await page.goto(f"/ui/login/link?token={token}")
    await page.get_by_role("button", name="Log in").click()
    await expect(page).to_have_url(re.compile("/ui$"))
    other = await make_page(key=None)
    await other.goto(f"/ui/login/link?token={token}")
    await other.get_by_role("button", name="Log in").click()
    await expect(other.get_by_role("alert")).to_contain_text("has been used")


async def test_a_revoked_key_ends_its_sessions(service: Service) -> None:
    """The session of a key that is revoked is over within seconds."""
    key = await create_key(service.settings, "leaver", ["read"])
    browser = service.client(Origin=service.workers[0].url)
    await browser.post("/ui/login", data={"key": key})
    assert (await browser.get("/ui/links")).status_code == 200
    await revoke_key(service.settings, key)

    async def is_out() -> bool:
        return (await browser.get("/ui/links")).status_code == 303

    await until(is_out)


async def test_a_cookie_that_was_not_signed_here_is_none(service: Service) -> None:
    """Neither a forged, nor an old, nor another key's cookie shows anything."""
    plain = PlainKey.parse(service.admin_key)
    assert plain is not None
    listed, _ = await list_keys(service.settings)
    key = next(key for key in listed if key.key_id == plain.key_id)
    made = Sessions(SECRET, time.time).cookie(KeyClaim.of(key))
    forged = Sessions("another secret that is just as long", time.time).cookie(KeyClaim.of(key))
    idle = Sessions(SECRET, lambda: time.time() - 43_300).cookie(KeyClaim.of(key))
    long = Sessions(SECRET, time.time).cookie(KeyClaim.of(key), int(time.time()) - 604_900)
    for cookie in (forged, idle, long, made[:-1], "", "x" * 4_000):
        browser = service.client(Cookie=f"snapurl_session={cookie}")
        answer = await browser.get("/ui/links")
        assert (answer.status_code, answer.headers["location"]) == (303, "/ui/login?next=%2Fui%2Flinks")
        assert not answer.content
    assert (await service.client(Cookie=f"snapurl_session={made}").get("/ui/links")).status_code == 200
    assert (await service.client(Cookie=f"snapurl_session={made}").get("/api/v1/links")).status_code == 401


async def test_the_login_leads_to_no_other_site(service: Service) -> None:
    """Whatever address is given to go to after the login, it is one of the dashboard."""
    browser = service.client(Origin=service.workers[0].url)
    for place in (
        "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "\t//evil.example",
        "/ui\\@evil", "/ui//evil.example", "/ui@evil", "/ui/links\r\nX-Bad: 1", "/ui/\x00evil", "/ui\u2028evil",
        "javascript:alert(1)", "/docs", "/ui/../docs",
    ):  # fmt: skip
        answer = await browser.post("/ui/login", data={"key": service.admin_key, "next": place})
        location = answer.headers["location"]
        assert location == "/ui" or (location.startswith("/ui/") and "evil" not in location), location


async def test_what_was_typed_outlives_the_session(service: Service, make_page: PageMaker) -> None:
    """A form that is sent after the session has ended is there again after the login. A password of a link is in no
    page on the way, and the link is not made without it."""
    page = await make_page()
    await page.goto("/ui/new")
    await page.get_by_label("Target URL").fill("https://example.org/typed-before")
    await page.get_by_label("Alias").fill("outlives-session")
    await page.get_by_text("More options").click()
    await page.get_by_label("Password").fill("open sesame")
    await page.context.clear_cookies()
    await page.get_by_role("button", name="Shorten").click()
    await expect(page.get_by_text("Your session has ended")).to_be_visible()
    assert "open sesame" not in await page.content()
    await page.get_by_label("API key").fill(service.admin_key)
    await page.get_by_role("button", name="Log in").click()
    assert "open sesame" not in await page.content()
    await page.get_by_role("button", name="Send it now").click()
    await expect(page.locator("#password-error")).to_contain_text("typed again")
    await page.get_by_label("Password").fill("open sesame")
    await page.get_by_role("button", name="Shorten").click()
    await expect(page).to_have_url(re.compile("/ui/links/outlives-session"))
    await expect(page.locator(".facts").get_by_text("Password")).to_be_visible()
    await expect(page.get_by_text("https://example.org/typed-before")).to_be_visible()


async def test_login_cookie_and_pages_are_private(service: Service) -> None:
    """The cookie is for the dashboard alone, no script reads it, and no cache keeps a page."""
    browser = service.client(Origin=service.workers[0].url)
    answer = await browser.post("/ui/login", data={"key": service.admin_key})
    parts = {part.strip().partition("=")[0] for part in answer.headers["set-cookie"].split(";")}
    assert {"HttpOnly", "SameSite", "Path", "Max-Age"} <= parts and "Secure" not in parts
    assert "Path=/ui;" in answer.headers["set-cookie"]
    listed = await browser.get("/ui/links")
    assert listed.headers["cache-control"] == "no-store"
    assert listed.headers["content-security-policy"].startswith("default-src 'none'")


@pytest.fixture(scope="module")
async def strict(service: Service, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    """A service that refuses addresses soon, and shows its dashboard at one host alone."""
    variables = {"SNAPURL_LIMIT_UNAUTHORIZED": "3/minute", "SNAPURL_DASHBOARD_HOST": "admin.example.org"}
    async with running(service.settings, tmp_path_factory.mktemp("strict"), 1, **variables) as started:
        yield started


def at_admin_host(service: Service, address: str = "127.0.0.1") -> httpx.AsyncClient:
    """Returns a client of the host of the dashboard that connects from this address."""
    headers = {"Origin": "https://admin.example.org", "Host": "admin.example.org"}
    transport = httpx.AsyncHTTPTransport(local_address=address)
    client = httpx.AsyncClient(
        base_url=service.workers[0].url, headers=headers, transport=transport, timeout=HANG_S
    )
    service.clients.append(client)
    return client


async def test_a_flood_of_logins_ends_for_its_address_alone(strict: Service) -> None:
    """An address with too many refused keys has to wait, and is told how long. Nobody else notices."""
    flood = at_admin_host(strict, "127.0.0.3")
    known = await strict.key("read")
    assert (await flood.post("/ui/login", data={"key": known})).status_code == 303
    wrong = [f"snap_{number:010}_{'x' * 32}" for number in range(60)]
    answers = await asyncio.gather(*(flood.post("/ui/login", data={"key": key}) for key in wrong))
    refused = [answer for answer in answers if answer.status_code == 429]
    assert {answer.status_code for answer in answers} == {401, 429} and len(refused) >= 57
    assert all(1 <= int(answer.headers["retry-after"]) <= 60 for answer in refused)
    assert 'role="alert"' in refused[0].text and "set-cookie" not in refused[0].headers
    other = at_admin_host(strict, "127.0.0.2")
    assert (await other.post("/ui/login", data={"key": strict.admin_key})).status_code == 303
    # Whoever is known here works on behind the same address.
    assert (await flood.post("/ui/login", data={"key": known})).status_code == 303


async def test_the_dashboard_is_at_its_host_alone(strict: Service) -> None:
    """Only SNAPURL_DASHBOARD_HOST shows the dashboard; short URLs and the API are everywhere."""
    elsewhere, admin = strict.client(Accept="text/html"), at_admin_host(strict)
    for path in ("/ui", "/ui/login", "/ui/links", "/ui/static/0/app.css"):
        assert (await elsewhere.get(path)).status_code == 404, path
    assert (await admin.get("/ui/login")).status_code == 200
    home = await elsewhere.get("/")
    assert home.status_code == 200 and "/ui" not in home.text
    assert (await admin.get("/", headers={"Accept": "text/html"})).headers["location"] == "/ui"
    link = await strict.shorten("https://example.org/everywhere")
    for client in (elsewhere, admin):
        assert (await client.get(f"/{link['code']}")).status_code == 302


def test_a_carried_form_is_data() -> None:
    """A form that the login page carries along is fields of text, whatever else somebody puts there."""
    assert _carried(json.dumps({"url": "x", "n": 1, "deep": {}})) == {"url": "x"}
    assert _carried("[1]") == _carried("nonsense") == {}
