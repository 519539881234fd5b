"""Pictures of every screen, wide and narrow, light and dark: `make screenshots`."""

from __future__ import annotations

import os
from pathlib import Path

from tests.integration.http.service import Service
from tests.ui.conftest import PageMaker
from tests.ui.test_pages import SCREENS, ensure_link

CLICKS = (3, 5, 2, 8, 13, 9, 4, 6, 11, 17, 21, 14, 7, 9)


async def test_every_screen_can_be_seen(service: Service, make_page: PageMaker, tmp_path: Path) -> None:
    """Every screen is drawn in both widths and colours; the pictures go to SCREENSHOTS, if it is set."""
    place = Path(os.environ.get("SCREENSHOTS", tmp_path))
    await ensure_link(service)
    wanted = (1280, 360) if "SCREENSHOTS" in os.environ else (360,)
    for width in wanted:
        for theme in ("light", "dark"):
            page = await make_page(width=width, theme=theme)
            for path in [path for path in SCREENS if "?" not in path]:
                answer = await page.goto(path)
                assert answer is not None and answer.ok, path
                name = path.strip("/").replace("/", "-")
                await page.screenshot(path=place / f"{name}-{width}-{theme}.png", full_page=True)
                assert (place / f"{name}-{width}-{theme}.png").stat().st_size > 5_000
