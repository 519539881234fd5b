"""What holds for every page: its size, its width, its colours, its accessibility."""

from __future__ import annotations

import gzip
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from playwright.async_api import Response

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceClicks, SourceKind
from tests.integration.http.service import Service
from tests.support.click_rows import by_kind, count_clicks
from tests.ui.conftest import PageMaker

BYTES_MAX = 60_000
REQUESTS_MAX = 5
SCREENS = (
    "/ui/login",
    "/ui",
    "/ui/links",
    "/ui/import",
    "/ui/new",
    "/ui/links/every-page",
    "/ui/links/every-page/edit",
    "/ui/links?q=every-page&state=live",
    "/ui/keys",
    "/ui/statistics?tag=sale&bots=yes",
    "/ui/settings",
    "/ui/webhooks",
    "/ui/blocklist",
    "/ui/cluster",
)


async def screens(service: Service) -> list[str]:
    """Returns an address of each screen, after making what they show, once."""
    await ensure_link(service)
    await count_clicks(service.settings, "every-page", _clicks())
    public = (await service.api.post("/api/v1/links/every-page/public-stats")).json()["url"]
    await service.api.post("/api/v1/accounts", json={"name": "An account for every page"})
    listed = (await service.api.get("/api/v1/accounts?limit=200")).json()["accounts"]
    account = next(each["id"] for each in listed if each["name"] == "An account for every page")
    keys = (await service.api.get(f"/api/v1/accounts/{account}")).json()["keys"]
    if not keys:
        await service.api.post("/api/v1/keys", json={"name": "Ann", "account": account})
    found = [
        *SCREENS,
        urlsplit(public).path,
        "/ui/accounts",
        f"/ui/accounts/{account}",
        f"/ui/keys?account={account}",
    ]
    listed_hooks = (await service.api.get("/api/v1/webhooks")).json()["webhooks"]
    webhook = next((each["id"] for each in listed_hooks if each["note"] == "every-page"), None)
    if webhook is None:
        body = {"url": "https://hooks.example.org/" + "x" * 200, "note": "every-page"}
        webhook = (await service.api.post("/api/v1/webhooks", json=body)).json()["id"]
        await service.api.post(f"/api/v1/webhooks/{webhook}/test")
    found += [f"/ui/webhooks/{webhook}", f"/ui/webhooks/{webhook}/delete"]
    other = next((each["id"] for each in listed if each["id"] != account), service.admin_key.split("_")[1])
    return [*found, f"/ui/accounts/{account}/transfer?account={other}"]


def _clicks() -> list[ClickRow]:
    """Returns clicks of people and bots, now and before, with what is told of them."""
    slot, today = slot_of("every-page"), datetime.now(UTC).date()
    told = by_kind([SourceClicks(SourceKind.COUNTRY, "DE", 40), SourceClicks(SourceKind.BOT, "crawler", 9)])
    return [
        ClickRow(slot, 1, "every-page", today - timedelta(40), 70),
        ClickRow(slot, 2, "every-page", today, 90, told, bots=9),
    ]


async def test_the_first_page_is_small(service: Service, make_page: PageMaker) -> None:
    """The first page takes at most five requests and 60 kB, and a second one loads no script again."""
    page = await make_page(is_new=True)
    answers: list[Response] = []

    def keep(answer: Response) -> None:
        answers.append(answer)

    page.on("response", keep)
    await page.goto("/ui", wait_until="networkidle")
    assert len(answers) <= REQUESTS_MAX, [answer.url for answer in answers]
    sizes = [len(gzip.compress(await answer.body())) for answer in answers]
    assert sum(sizes) <= BYTES_MAX
    client = service.client()
    for answer in answers:
        if "/static/" in answer.url:
            asset = await client.get(answer.url)
            assert asset.headers["content-encoding"] == "gzip"
            assert asset.headers["cache-control"] == "public, max-age=31536000, immutable"
            old = await client.get(answer.url.replace("/static/", "/static/0"))
            assert (old.headers["cache-control"], old.content) == ("no-cache", asset.content)


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_page_scrolls_sideways_at_360_pixels(
    service: Service, make_page: PageMaker, theme: str
) -> None:
    """At 360 pixels every page fits, and everything to press is at least 44 pixels high or wide."""
    page = await make_page(width=360, theme=theme)
    for path in await screens(service):
        answer = await page.goto(path)
        assert answer is not None and answer.ok, path
        assert await page.evaluate("document.documentElement.scrollWidth") <= 360, path
        assert not await page.evaluate(SMALL_TARGETS), path


SMALL_TARGETS = """
[...document.querySelectorAll("a, button, input, select, summary")].filter((element) => {
  const box = element.getBoundingClientRect();
  const seen = box.width > 1 && element.checkVisibility() && !element.closest(".visually-hidden, .skip, .choice");
  const inText = element.tagName === "A" && getComputedStyle(element).display === "inline";
  return seen && !inText && Math.max(box.height, box.width) < 44;
}).map((element) => element.outerHTML)
"""


async def ensure_link(service: Service) -> None:
    """Makes the link whose pages are looked at, once."""
    made = await service.api.post(
        "/api/v1/links",
        json={
            "url": "https://example.org/a/very/long/address/" + "with-many-words-" * 12,
            "alias": "every-page",
            "title": "A title that is somewhat longer than a line of a narrow screen can hold",
            "tags": ["sale", "spring", "a-tag-that-is-longer-than-most-tags-are"],
            "expires_at": "2099-01-31T12:00:00Z",
        },
    )
    assert made.status_code in (201, 409), made.text


AXE = Path(__file__).parent / "axe" / "axe.min.js"


@pytest.mark.parametrize("theme", ["light", "dark"])
async def test_no_page_has_an_accessibility_violation(
    service: Service, make_page: PageMaker, theme: str
) -> None:
    """axe finds nothing on any page, and in dark colours enough contrast."""
    page = await make_page(theme=theme)
    script = AXE.read_text()
    options = "{}" if theme == "light" else "{runOnly: ['color-contrast']}"
    for path in await screens(service):
        answer = await page.goto(path)
        assert answer is not None and answer.ok, path
        await page.evaluate(script)
        found = await page.evaluate(f"axe.run({options}).then((result) => result.violations)")
        assert not [(item["id"], item["nodes"][0]["html"], item["help"]) for item in found], path
