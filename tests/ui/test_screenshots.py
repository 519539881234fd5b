"""Pictures of every screen, wide and narrow, light and dark: `make screenshots`."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from playwright.async_api import Page

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceClicks, SourceKind
from tests.integration.http.service import Service
from tests.support.click_rows import by_kind, count_clicks
from tests.ui.conftest import PageMaker
from tests.ui.test_pages import ensure_link, screens

RULES = [
    {"if": {"os": ["ios"]}, "url": "https://apps.example/ios"},
    {
        "if": {"language": ["de"], "percentage": 50, "query": {"from": "fair"}},
        "url": "https://example.org/de",
    },
]
CLICKS = (3, 5, 2, 8, 13, 9, 4, 6, 11, 17, 21, 14, 7, 9, 12, 18, 26, 31, 22, 15, 19, 28, 35, 41, 30, 24)


async def test_every_screen_can_be_seen(service: Service, make_page: PageMaker, tmp_path: Path) -> None:
    """A screen can be drawn; if SCREENSHOTS is set, each in both widths and colours, as files in it."""
    place = Path(os.environ.get("SCREENSHOTS", tmp_path))
    await ensure_link(service)
    await service.shorten(
        "https://example.org/catalogue/2030/spring?utm_source=newsletter",
        alias="spring-sale",
        title="Spring sale",
        tags=["sale", "newsletter"],
    )
    await count_clicks(service.settings, "spring-sale", _clicks("spring-sale"))
    await service.shorten(
        "https://example.org/apps", alias="get-the-app", tags=["app"], enabled=False, max_clicks=100,
        password="open sesame", note="For the fair", rules=RULES,
    )  # fmt: skip
    paths = ["/ui/links/spring-sale", "/ui/statistics?tag=sale"]
    if "SCREENSHOTS" in os.environ:
        paths += [path for path in await screens(service) if "?" not in path]
    wanted = (1280, 360) if "SCREENSHOTS" in os.environ else (360,)
    for width in wanted:
        for theme in ("light", "dark") if "SCREENSHOTS" in os.environ else ("dark",):
            page = await make_page(width=width, theme=theme)
            for path in paths:
                answer = await page.goto(path)
                assert answer is not None and answer.ok, path
                name = re.sub(
                    "(acc_|(?<=shared-every-page-)).*",
                    "one",
                    path.partition("?")[0].strip("/").replace("/", "-"),
                )
                await page.screenshot(path=place / f"{name}-{width}-{theme}.png", full_page=True)
                assert (place / f"{name}-{width}-{theme}.png").stat().st_size > 5_000
            if "SCREENSHOTS" in os.environ:
                await _take_states(page, place, f"{width}-{theme}")


async def _take_states(page: Page, place: Path, suffix: str) -> None:
    """Takes pictures of what a screen shows after something was done on it."""
    await page.goto("/ui/import")
    rows = [f"moved-{number},https://example.org/moved/{number},\n" for number in range(60)]
    text = (
        "code,url,title\n" + "".join(rows) + "a.dot,https://example.org/a/dot,\nbad,mailto:ann@example.org,\n"
    )
    await page.locator("[name=file]").set_input_files(
        {"name": "short_urls.csv", "mimeType": "text/csv", "buffer": text.encode()}
    )
    await page.get_by_role("button", name="Show what would happen").click()
    await page.get_by_role("heading", name="What would happen").wait_for()
    await page.screenshot(path=place / f"ui-import-dry-{suffix}.png", full_page=True)
    await page.goto("/ui/links/get-the-app/edit")
    await page.screenshot(path=place / f"ui-links-options-{suffix}.png", full_page=True)
    await page.goto("/ui/links?tag=sale")
    for pick in await page.locator(".pick input").all():
        await pick.check()
    await page.screenshot(path=place / f"ui-links-ticked-{suffix}.png")
    await page.get_by_label("Tags, separated by commas").fill("x" * 51)
    await page.get_by_role("button", name="Add").click()
    await page.locator("#batch-tags-error").wait_for()
    await page.screenshot(path=place / f"ui-links-refused-{suffix}.png")
    await page.get_by_label("Tags, separated by commas").fill("seen")
    await page.get_by_role("button", name="Remove").click()
    await page.get_by_text("Result of each link").click()
    await page.screenshot(path=place / f"ui-links-batch-{suffix}.png", full_page=True)
    await page.locator(".pick input").first.check()
    await page.get_by_label("All that the list finds").check()
    await page.get_by_role("button", name="Delete").click()
    await page.get_by_role("heading", name="Delete").wait_for()
    await page.screenshot(path=place / f"ui-links-confirm-{suffix}.png", full_page=True)


def _clicks(code: str) -> list[ClickRow]:
    """Returns clicks of the last days, with sources."""
    today, slot = datetime.now(UTC).date(), slot_of(code)
    return [
        ClickRow(
            slot, entry, code, today - timedelta(days=2 * len(CLICKS) - entry), number,
            by_kind([
                SourceClicks(SourceKind.REFERRER, "news.example.org", number // 2),
                SourceClicks(SourceKind.REFERRER, "social.example", max(1, number // 3)),
                SourceClicks(SourceKind.BROWSER, "firefox", number // 2),
                SourceClicks(SourceKind.BROWSER, "chrome", max(1, number // 3)),
                SourceClicks(SourceKind.COUNTRY, "DE", number // 2),
                SourceClicks(SourceKind.COUNTRY, "FR", max(1, number // 4)),
                SourceClicks(SourceKind.DEVICE, "mobile", number // 2),
                SourceClicks(SourceKind.DEVICE, "desktop", max(1, number // 3)),
                SourceClicks(SourceKind.LANGUAGE, "de", number // 2),
                SourceClicks(SourceKind.CHANNEL, "qr", max(1, number // 5)),
                SourceClicks(SourceKind.UTM_CAMPAIGN, "spring", max(1, number // 3)),
                SourceClicks(SourceKind.BOT, "crawler", number // 6),
            ]),
            bots=number // 6,
        )
        for entry, number in enumerate(CLICKS * 2, 1)
    ]  # fmt: skip
