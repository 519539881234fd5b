"""What must hold for every screen of the route table: a new screen is tested without a new test."""

from __future__ import annotations

import pytest
from playwright.async_api import Page

from snapurl.model import Right
from snapurl.ui.guard import Screen
from snapurl.ui.routes import SCREENS
from tests.integration.http.service import Service

WITH_SESSION = [screen for screen in SCREENS if screen.right is not None]
POSTS = [screen for screen in SCREENS if screen.method != "GET"]
NO_PAGES = ("/ui/static/", "/ui/cluster/", "/ui/login/openid")
NO_PAGES_END = ("{format}", "{table}", "/live", "/events")
"""Beginnings and ends of the paths of GET screens that answer with something other than a page."""


def path_of(screen: Screen, **values: str) -> str:
    """Returns an address of the screen. A path parameter that no test knows is an error: add a value for it."""
    known = {"code": "every-screen", "key_id": "0123456789", "account_id": "acc_0123456789",
             "webhook_id": "wh_0123456789abcdef", "format": "svg",
             "table": "series.csv", "version": "0", "name": "app.css"}  # fmt: skip
    return screen.path.format_map(known | values)


def test_only_forms_change_anything() -> None:
    """A screen that changes anything is a POST, which is the method whose origin is checked."""
    assert {screen.method for screen in SCREENS} == {"GET", "POST"}


async def test_no_screen_shows_anything_without_a_session(service: Service) -> None:
    """Whoever has no session gets the login and nothing else, whatever they ask for."""
    browser = service.client(Origin=service.workers[0].url)
    for screen in WITH_SESSION:
        path = path_of(screen)
        if screen.method == "GET":
            answer = await browser.get(path)
            assert (answer.status_code, answer.content) == (303, b""), path
            assert answer.headers["location"].startswith("/ui/login?next="), path
        else:
            answer = await browser.post(path, data={"url": "https://example.org/"})
            assert answer.status_code == 401 and "Your session has ended" in answer.text, path
        assert answer.headers["cache-control"] == "no-store", path


@pytest.mark.parametrize("screen", POSTS, ids=lambda screen: screen.path)
async def test_no_form_of_another_site_is_taken(service: Service, screen: Screen) -> None:
    """A form that another site makes a browser send is refused by every screen, by either header browsers set."""
    browser, url = service.client(), service.workers[0].url
    await browser.post("/ui/login", data={"key": service.admin_key}, headers={"Origin": url})
    for headers in (
        {},
        {"Origin": "https://evil.example"},
        {"Origin": "null"},
        {"Origin": url + ".evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": url},
        {"Sec-Fetch-Site": "same-site", "Origin": url},
        {"Sec-Fetch-Site": ""},
    ):
        answer = await browser.request(screen.method, path_of(screen), data={"name": "x"}, headers=headers)
        assert (answer.status_code, "another site" in answer.text) == (403, True), headers
        assert "API key" not in answer.text
        assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("right", [Right.READ, Right.CREATE, Right.CHANGE])
async def test_each_screen_asks_for_its_right(service: Service, right: Right) -> None:
    """A key with one right alone is refused by every screen that needs another."""
    browser = service.client(Origin=service.workers[0].url)
    await browser.post("/ui/login", data={"key": await service.key(right)})
    for screen in WITH_SESSION:
        answer = await browser.request(
            screen.method, path_of(screen), data={"name": ""} if screen.method == "POST" else None
        )
        assert (answer.status_code == 403) == (screen.right != right), screen.path


HTML = "<img src=x onerror=\"window.hit='img'\"><script>window.hit='script'</script>'\"><b class=planted>"
BIDI = "abc\u202efdp.exe\u2066 \u200f"
STRAY_BIDI = """
() => {
  const found = [], walker = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (walker.nextNode()) {
    const text = walker.currentNode;
    const isolated = text.parentElement.closest("bdi, [dir], option, textarea, script");
    if (/[\\u202e\\u2066]/.test(text.data) && !isolated) found.push(text.parentElement.outerHTML);
  }
  return found;
}
"""


async def test_what_people_have_typed_is_text_on_every_page(service: Service, page: Page) -> None:
    """HTML and characters that turn text around do nothing on any page, wherever they are planted."""
    link = await service.shorten(
        "https://example.org/?q=%3Cb%3E'\"",
        title=f"{HTML} {BIDI}",
        tags=[HTML[:40], BIDI[:20]],
        note=f"{HTML}\n{BIDI}",
    )
    named: dict[str, str] = {}
    for kind, path in (("account_id", "accounts"), ("key_id", "keys")):
        made = await service.api.post(f"/api/v1/{path}", json={"name": HTML[:100]})
        assert made.status_code == 201, made.text
        named[kind] = made.json()["id"]
        refused = await service.api.post(f"/api/v1/{path}", json={"name": BIDI})
        assert refused.status_code == 422  # a name is shown in many places, and has none of these characters
    body = {"url": "https://example.org/?q=%3Cb%20class=planted%3E'", "note": HTML}
    named["webhook_id"] = (await service.api.post("/api/v1/webhooks", json=body)).json()["id"]
    pages = [
        screen for screen in WITH_SESSION if screen.method == "GET" and not screen.path.startswith(NO_PAGES)
    ]
    shown = [screen for screen in pages if not screen.path.endswith(NO_PAGES_END)]
    asked = [path_of(screen, code=link["code"], **named) for screen in shown]
    account = {"account": named["account_id"], "q": "<b>"}
    for path in asked:
        answer = await page.goto(path + "?" + "&".join(f"{name}={value}" for name, value in account.items()))
        assert answer is not None and answer.status in (200, 422), path
        assert await page.evaluate(
            "window.hit === undefined && !document.querySelector('.planted, [src=x]')"
        ), path
        assert not await page.evaluate(STRAY_BIDI), path
