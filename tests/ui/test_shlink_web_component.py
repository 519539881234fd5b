"""The pages of Shlink's web client, which its web component draws: from another origin, in a browser, on our API.

`npm/package.json` pins the component; what it needs is installed into build/npm.
"""

from __future__ import annotations

import json
import subprocess
import uuid
from collections.abc import AsyncIterator, Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest
from playwright.async_api import Browser, Page, Response, expect

from snapurl.config import Settings
from tests.integration.http.service import Service, running
from tests.integration.http.test_shlink import count
from tests.support.npm_packages import installed
from tests.support.waits import HANG_S
from tests.ui.conftest import PUBLIC_URL

APP = Path(__file__).with_name("shlink_web_component.jsx")
TARGET = "https://example.org/component"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """Returns the component with ours around it, as one script."""
    packages, script = installed(), tmp_path_factory.mktemp("bundle") / "app.js"
    words = ("--bundle", "--format=esm", "--jsx=automatic", '--define:process.env.NODE_ENV="production"')
    subprocess.run(
        [packages / ".bin/esbuild", APP, *words, "--log-level=warning", f"--outfile={script}"],
        env={"NODE_PATH": str(packages), "PATH": "/usr/local/bin:/usr/bin:/bin"},
        check=True,
    )
    return script.read_bytes()


# A dialog closes when its transition has ended, and without a stylesheet it would have none.
PAGE = b"""<!doctype html><title>Shlink</title>
<style>
  [data-testid=transition-container] { opacity: 0; transition: opacity 1ms }
  [data-testid=transition-container][data-open] { opacity: 1 }
</style>
<div id=root></div><script type=module src=/app.js></script>
"""


class Site(BaseHTTPRequestHandler):
    """The script at /app.js, and everywhere else the page that loads it."""

    def __init__(self, script: bytes, *others: object) -> None:
        self._script = script
        super().__init__(*others)  # type: ignore[arg-type]  # those of the server

    def do_GET(self) -> None:
        is_script = self.path == "/app.js"
        self.send_response(200)
        self.send_header("Content-Type", "text/javascript" if is_script else "text/html; charset=utf-8")
        self.end_headers()
        self.wfile.write(self._script if is_script else PAGE)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(bundle: bytes) -> Iterator[str]:
    """Yields the URL of the page, on a port of its own."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Site, bundle)) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


@pytest.fixture(scope="module")
async def shlink(ui_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Service]:
    variables = {"SNAPURL_BASE_URL": PUBLIC_URL, "SNAPURL_SHLINK_API": "true"}
    async with running(ui_settings, tmp_path_factory.mktemp("workers"), 1, **variables) as started:
        yield started


@pytest.fixture
async def page(browser: Browser, site: str, shlink: Service) -> AsyncIterator[Page]:
    """Yields a page of the component. Nothing may be thrown in it, nor refused but live updates."""
    context = await browser.new_context(base_url=site, timezone_id="UTC", locale="en-GB")
    context.set_default_timeout(HANG_S * 1000)
    base_url = shlink.workers[0].url
    server = {"baseUrl": base_url, "apiKey": shlink.admin_key}
    await context.add_init_script(f"window.server = {json.dumps(server)}")
    opened = await context.new_page()
    faults: list[str] = []
    opened.on("pageerror", lambda error: faults.append(str(error)))

    def note(answer: Response) -> None:
        path = answer.url.removeprefix(base_url)
        if path != answer.url and answer.status >= 400 and path != "/rest/v3/mercure-info":
            faults.append(f"{answer.request.method} {path}: {answer.status}")

    opened.on("response", note)
    yield opened
    await context.close()
    assert not faults


async def shorten(shlink: Service) -> tuple[str, str]:
    """Returns the code and the tag of a link with clicks: 8, of which 2 are of bots."""
    name = uuid.uuid4().hex[:8]
    code, tag = f"c-{name}", f"tag {name}"
    await shlink.shorten(TARGET, alias=code, tags=[tag], title="A title")
    await count(shlink, code)
    return code, tag


async def search_tag(page: Page, tag: str) -> None:
    """Finds a tag of `shorten` among those of other tests, of which a page shows twenty."""
    await page.get_by_placeholder("Search...").fill(tag.removeprefix("tag "))


async def test_each_page_shows_what_is_there(page: Page, shlink: Service) -> None:
    """No page of the web client dies or lacks what it asks for."""
    code, tag = await shorten(shlink)
    visits, short = f"/short-code/{code}/visits", f"{PUBLIC_URL}/{code}"
    for path, texts in (
        ("/overview", ("Recently created URLs", short, "A title", tag)),
        ("/list-short-urls/1", (short, TARGET, tag)),
        (f"/list-short-urls/1?search={code}&tags={tag}&orderBy=visits-DESC", (short, "Export (1)")),
        ("/create-short-url", ("Main options", "Limit access to the short URL")),
        (f"/short-code/{code}/edit", (f"Edit {short}", tag)),
        (f"{visits}/by-time", (f"Visits for {short}", "Visits: 8", "Visits over time")),
        (f"{visits}/by-context", ("Operating systems", "Firefox", "news.example.org")),
        (f"{visits}/by-location", ("FR", "Paris")),
        (f"{visits}/list", ("2026-05-05", "2026-05-04", "news.example.org", "Paris")),
        (f"{visits}/options", ("Delete visits",)),
        (f"/short-code/{code}/redirect-rules", ("This short URL has no dynamic redirect rules", TARGET)),
        (f"/tag/{tag}/visits/by-time", (tag, "Visits: 8")),
        ("/domain/s.example.org_DEFAULT/visits/by-time", ("s.example.org", "Visits over time")),
        ("/non-orphan-visits/list", ("Non-orphan visits", "Visits list")),
        # Other tests click as well, on other days.
        (
            "/non-orphan-visits/by-location?startDate=2026-05-04&endDate=2026-05-05",
            ("Non-orphan visits", "Paris"),
        ),
        ("/orphan-visits/by-time", ("There are no visits matching current filter",)),
        (f"/short-urls/compare-visits?short-urls=DEFAULT__{code}", ("Comparing 1 short URLs",)),
        ("/manage-tags", (tag,)),
        ("/manage-domains", ("s.example.org", "No redirect")),
    ):
        await page.goto(path)
        if path == "/manage-tags":
            await search_tag(page, tag)
        for text in texts:
            await expect(page.get_by_text(text).first).to_be_visible()
        await expect(page.get_by_text("went wrong")).to_have_count(0)


async def test_a_link_is_made_changed_and_deleted(page: Page, shlink: Service) -> None:
    """What is typed into the forms of the web client arrives here, and what is here is shown by them."""
    code, tag = f"w-{uuid.uuid4().hex[:8]}", f"new {uuid.uuid4().hex[:8]}"
    path = f"/api/v1/links/{code}"
    await page.goto("/create-short-url")
    await page.get_by_placeholder("URL to be shortened").fill(TARGET)
    await page.get_by_placeholder("Add tags to the URL").fill(tag)
    await page.get_by_placeholder("Add tags to the URL").press("Enter")
    await page.get_by_placeholder("Title").fill("Made there")
    await page.get_by_placeholder("Custom slug").fill(code)
    await page.get_by_placeholder("25...").fill("7")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("Great!")).to_be_visible()
    link = (await shlink.api.get(path)).json()
    assert (link["url"], link["title"], link["max_clicks"], link["forward_query"]) == (
        TARGET,
        "Made there",
        7,
        True,
    )
    assert link["tags"] == [tag.replace(" ", "-")]

    await page.goto(f"/short-code/{code}/edit")
    await page.get_by_placeholder("Title").fill("")
    await page.get_by_placeholder("25...").fill("")
    await page.get_by_placeholder("URL to be shortened").fill(f"{TARGET}/2")
    await page.get_by_role("button", name="Save").click()
    await expect(page.get_by_text("properly edited")).to_be_visible()
    link = (await shlink.api.get(path)).json()
    assert (link["url"], link["title"], link["max_clicks"]) == (f"{TARGET}/2", None, None)

    await page.goto(f"/short-code/{code}/redirect-rules")
    await page.get_by_role("button", name="Add rule").click()
    await page.get_by_label("Long URL:").fill(f"{TARGET}/android")
    await page.get_by_role("button", name="Add condition").click()
    await page.get_by_label("Device type:").select_option("android")
    await page.get_by_role("button", name="Confirm").click()
    await page.get_by_role("button", name="Save rules").click()
    await expect(page.get_by_text("properly saved")).to_be_visible()
    (rule,) = (await shlink.api.get(path)).json()["rules"]
    assert rule["url"] == f"{TARGET}/android"

    await page.goto(f"/list-short-urls/1?search={code}")
    await page.get_by_role("button", name="Options").click()
    await page.get_by_role("menuitem", name="Delete short URL").click()
    await page.get_by_role("dialog").get_by_role("textbox").fill("delete")
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_text(f"{PUBLIC_URL}/{code}")).to_have_count(0)
    assert (await shlink.api.get(path)).status_code == 410


async def test_a_tag_is_renamed_and_deleted(page: Page, shlink: Service) -> None:
    """From the page of all tags, for every link that has it."""
    code, tag = await shorten(shlink)
    new = tag.replace("tag ", "new-")
    await page.goto("/manage-tags")
    await search_tag(page, tag)
    row = page.get_by_role("row", name=tag)
    await row.get_by_role("button", name="Options").click()
    await page.get_by_role("menuitem", name="Edit").click()
    await page.get_by_role("dialog").get_by_placeholder("Tag").fill(new)
    await page.get_by_role("dialog").get_by_role("button", name="Save").click()
    await expect(page.get_by_role("row", name=new)).to_be_visible()
    assert (await shlink.api.get(f"/api/v1/links/{code}")).json()["tags"] == [new]
    await page.get_by_role("row", name=new).get_by_role("button", name="Options").click()
    await page.get_by_role("menuitem", name="Delete tag").click()
    await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    await expect(page.get_by_role("row", name=new)).to_have_count(0)
    assert (await shlink.api.get(f"/api/v1/links/{code}")).json()["tags"] == []
