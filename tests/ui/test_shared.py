"""The public link to the statistics of a link."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from urllib.parse import urlsplit

from playwright.async_api import expect

from ring.slots import slot_of
from snapurl.model import ClickRow, SourceClicks, SourceKind
from tests.integration.http.service import Service
from tests.support.click_rows import by_kind, count_clicks
from tests.ui.conftest import PageMaker

INSIDE = ("A title inside", "A note inside", "target.example.org", "inside-tag", "API documentation")


async def test_whoever_has_the_public_link_sees_the_statistics_until_it_is_revoked(
    service: Service, make_page: PageMaker
) -> None:
    """A link on the page of a link shows its statistics to anybody, and nothing else of it. It is gone with the
    link and when it is revoked; the next one has another address."""
    await service.shorten(
        "https://target.example.org/", alias="shared", title=INSIDE[0], note=INSIDE[1], tags=[INSIDE[3]]
    )
    told = (SourceClicks(SourceKind.REFERRER, "news.example", 4),)
    rows = [ClickRow(slot_of("shared"), 1_000, "shared", datetime.now(UTC).date(), 7, by_kind(told), bots=2)]
    await count_clicks(service.settings, "shared", rows)
    admin = await make_page(javascript=False)
    await admin.goto("/ui/links/shared")
    await admin.get_by_role("button", name="Make a public link").click()
    url = str(await admin.locator(".public a").get_attribute("href"))
    api, path = "/api/v1/links/shared/public-stats", urlsplit(url).path
    for answer in (await service.api.get(api), await service.api.post(api)):
        assert (answer.status_code, answer.json()["url"]) == (200, url), "there is one public link"
    visitor = await make_page(key=None, javascript=False, is_new=True)
    seen = await visitor.goto(path)
    assert seen is not None
    assert (seen.status, seen.headers["cache-control"]) == (200, "no-store")
    assert (seen.headers["x-robots-tag"], seen.headers.get("set-cookie")) == ("noindex", None)
    text = await visitor.content()
    assert not [word for word in (*INSIDE, service.admin_key.split("_")[1]) if word in text]
    await expect(visitor.locator(".figure-main")).to_contain_text(re.compile(r"People\s*5"))
    await visitor.get_by_role("link", name="With bots").click()
    await expect(visitor.locator(".figure-main")).to_contain_text(re.compile(r"Clicks\s*7"))
    async with visitor.expect_download() as download:
        await visitor.get_by_role("link", name="CSV", exact=True).first.click()
    assert "news.example,4" in (await (await download.value).path()).read_text().split()

    async def statuses() -> list[int]:
        client = service.client()
        return [(await client.get(place)).status_code for place in (path, f"{path}/tables/series.csv")]

    assert await statuses() == [200, 200]
    await service.api.delete("/api/v1/links/shared")
    assert await statuses() == [404, 404]
    await service.api.post("/api/v1/links/shared/restore")
    assert await statuses() == [200, 200]
    for wrong in (path + "x", path.replace("shared/shared", "shared/none"), "/ui/shared/shared/é", path[:-1]):
        assert (await service.client().get(wrong)).status_code == 404, wrong
    await admin.reload()
    await admin.get_by_role("button", name="Revoke").click()
    await expect(admin.get_by_text("The public link is revoked")).to_be_visible()
    assert await statuses() == [404, 404]
    assert (await service.api.get(api)).json()["url"] is None
    assert (await service.api.delete(api)).status_code == 204
    assert (await service.api.post(api)).json()["url"] not in (url, None)
    assert await statuses() == [404, 404]
    other = service.client(await service.key("read", "change"))
    for method in ("GET", "POST", "DELETE"):
        assert (await other.request(method, api)).status_code == 404, method
