"""Pictures of every screen, wide and narrow, light and dark: `make screenshots`."""

from __future__ import annotations

import os
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceClicks, SourceKind
from tests.integration.http.service import Service
from tests.ui.conftest import PageMaker
from tests.ui.test_link import count
from tests.ui.test_pages import screens

CLICKS = (3, 5, 2, 8, 13, 9, 4, 6, 11, 17, 21, 14, 7, 9, 12, 18, 26, 31, 22, 15, 19, 28, 35, 41, 30, 24)


async def test_every_screen_can_be_seen(service: Service, make_page: PageMaker, tmp_path: Path) -> None:
    """Every screen can be drawn; if SCREENSHOTS is set, in both widths and colours, as files in it."""
    place = Path(os.environ.get("SCREENSHOTS", tmp_path))
    every = [path for path in await screens(service) if "?" not in path]
    await service.shorten(
        "https://example.org/catalogue/2030/spring?utm_source=newsletter",
        alias="spring-sale",
        title="Spring sale",
        tags=["sale", "newsletter"],
    )
    await count(service, "spring-sale", _clicks("spring-sale"))
    wanted = (1280, 360) if "SCREENSHOTS" in os.environ else (360,)
    for width in wanted:
        for theme in ("light", "dark") if "SCREENSHOTS" in os.environ else ("dark",):
            page = await make_page(width=width, theme=theme)
            for path in ["/ui/links/spring-sale", *every]:
                answer = await page.goto(path)
                assert answer is not None and answer.ok, path
                name = re.sub("acc_.*", "one", path.strip("/").replace("/", "-"))
                await page.screenshot(path=place / f"{name}-{width}-{theme}.png", full_page=True)
                assert (place / f"{name}-{width}-{theme}.png").stat().st_size > 5_000


def _clicks(code: str) -> list[ClickRow]:
    """Returns clicks of the last days, with sources."""
    today, slot = datetime.now(UTC).date(), slot_of(code)
    return [
        ClickRow(
            slot, entry, code, today - timedelta(days=len(CLICKS) - entry), number,
            (
                SourceClicks(SourceKind.REFERRER, "news.example.org", number // 2),
                SourceClicks(SourceKind.REFERRER, "social.example", number // 3),
                SourceClicks(SourceKind.BROWSER, "firefox", number // 2),
                SourceClicks(SourceKind.BROWSER, "chrome", number // 3),
            ),
        )
        for entry, number in enumerate(CLICKS, 1)
    ]  # fmt: skip
