"""Exports of a list: which links are in the file, for whom, and that nobody takes a part of it for the whole."""

from __future__ import annotations

import csv
import json
import socket
import uuid
from datetime import UTC, datetime
from io import StringIO

import httpx
import pytest
from playwright.async_api import Page

from ring.slots import slot_of
from snapurl.link_exports import COLUMNS, DAYS, SHLINK
from snapurl.model import ClickRow, Right
from tests.integration.http.service import Service
from tests.support.click_rows import count_clicks
from tests.support.waits import HANG_S, until
from tests.ui.conftest import PageMaker


async def logged_in(service: Service, key: str) -> httpx.AsyncClient:
    client = service.client(Origin=service.workers[0].url)
    await client.post("/ui/login", data={"key": key})
    return client


async def make_links(
    service: Service, tag: str, count: int, *, key: str | None = None, **fields: str
) -> None:
    """Makes links `tag-0` and so on."""
    api = service.client(key or service.admin_key)
    items = [
        {"url": f"https://example.org/{number}", "alias": f"{tag}-{number}", "tags": [tag], **fields}
        for number in range(count)
    ]
    for start in range(0, count, 1_000):
        made = await api.post("/api/v1/links/bulk", json={"links": items[start : start + 1_000]})
        assert made.status_code == 200, made.text


async def test_the_links_of_the_list_are_saved(service: Service, page: Page) -> None:
    """The search, the state and the tag of the page say what is in the file, which has every page of the list."""
    tag = f"ex{uuid.uuid4().hex[:8]}"
    await make_links(service, tag, 450)
    await service.shorten(alias=f"{tag}-off", title="=1+1", tags=[tag], enabled=False)
    for place, expected in ((f"tag={tag}", 451), (f"q={tag}&state=disabled", 1), (f"q={tag}-44", 11)):
        await page.goto(f"/ui/links?{place}")
        async with page.expect_download() as download:
            await page.get_by_role("link", name="CSV", exact=True).click()
        saved = await download.value
        assert saved.suggested_filename == "links.csv"
        rows = list(csv.DictReader(StringIO((await saved.path()).read_text())))
        assert (len(rows), len({row["code"] for row in rows})) == (expected, expected)
        assert tuple(rows[0]) == COLUMNS
        if expected == 1:
            assert rows[0]["title"] == "'=1+1", "no spreadsheet takes it for a formula"
    client = await logged_in(service, service.admin_key)
    shlink = (await client.get(f"/ui/export/shlink?q={tag}-off")).text.splitlines()
    assert shlink[0] == ",".join(SHLINK) and f"{tag}-off" in shlink[1]
    lines = (await client.get(f"/ui/export/jsonl?q={tag}-off")).text.splitlines()
    assert [json.loads(line)["title"] for line in lines] == ["=1+1"]


async def test_clicks_by_day_are_saved(service: Service) -> None:
    """Each day of each link with clicks is a row."""
    code, today = f"ex{uuid.uuid4().hex[:8]}", datetime.now(UTC).date()
    await service.shorten(alias=code)
    await count_clicks(service.settings, code, [ClickRow(slot_of(code), 1, code, today, 5, bots=2)])
    client = await logged_in(service, service.admin_key)
    answer = await client.get(f"/ui/export/days?q={code}")
    header, row = csv.reader(StringIO(answer.text))
    assert tuple(header) == DAYS
    assert row == [code, "s.example.org", today.isoformat(), "5", "2", "0", "0", "0"]


async def test_a_key_exports_the_links_of_its_account(service: Service, make_page: PageMaker) -> None:
    """A key that may read has its own links in the file, and no others."""
    tag, key = f"ex{uuid.uuid4().hex[:8]}", await service.key(Right.READ, Right.CREATE)
    await service.shorten(alias=f"{tag}-theirs", tags=[tag])
    await make_links(service, tag, 1, key=key)
    client = await logged_in(service, key)
    found = list(csv.DictReader(StringIO((await client.get(f"/ui/export/csv?tag={tag}")).text)))
    assert [row["code"] for row in found] == [f"{tag}-0"]
    other = await logged_in(service, await service.key(Right.CREATE))
    assert (await other.get("/ui/export/csv")).status_code == 403


@pytest.mark.parametrize(("path", "status"), [("/ui/export/xls", 404), ("/ui/export/csv?state=odd", 422)])
async def test_what_cannot_be_exported_is_refused(service: Service, path: str, status: int) -> None:
    """A refusal is a page, and no file."""
    answer = await (await logged_in(service, service.admin_key)).get(path)
    assert (answer.status_code, answer.headers["content-type"]) == (status, "text/html; charset=utf-8")
    assert "content-disposition" not in answer.headers


async def test_part_of_an_export_does_not_look_like_the_whole(service: Service) -> None:
    """An export that cannot go on, as its key is revoked meanwhile, is cut: the client sees no end of it."""
    tag, key = f"ex{uuid.uuid4().hex[:8]}", await service.key(Right.READ, Right.CREATE)
    await make_links(service, tag, 3_000, key=key, note="x" * 2_000)
    client = await logged_in(service, key)
    slow = httpx.AsyncHTTPTransport(socket_options=[(socket.SOL_SOCKET, socket.SO_RCVBUF, 32_768)])
    taken = 0
    async with httpx.AsyncClient(
        transport=slow, base_url=client.base_url, cookies=client.cookies, timeout=HANG_S
    ) as reader:
        with pytest.raises(httpx.TransportError):
            async with reader.stream("GET", f"/ui/export/jsonl?tag={tag}") as answer:
                async for part in answer.aiter_bytes():
                    if not taken:
                        await service.api.delete(f"/api/v1/keys/{key.split('_')[1]}")
                        await until(lambda: _is_out(client))
                    taken += len(part)
    assert 0 < taken < 3_000 * 2_000


async def _is_out(client: httpx.AsyncClient) -> bool:
    return (await client.get("/ui/links")).status_code != 200
