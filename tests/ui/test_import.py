"""The import of a file on its page: dry run, progress, stops and goes on, refused rows; and what a piece may be."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Mapping
from io import StringIO
from pathlib import Path

import httpx
import pytest
from playwright.async_api import Page, Request, Route, expect

from snapurl.imports.pieces import PIECE_BYTES_MAX
from snapurl.model import Right
from tests.integration.http.service import Service
from tests.integration.http.test_import_command import environ_of
from tests.integration.http.test_links_command import run
from tests.ui.conftest import PageMaker
from tests.ui.test_pages import AXE, SMALL_TARGETS

PIECE = "/ui/import/piece"
ROWS = 2_400


def rows_of(prefix: str, count: int = ROWS) -> str:
    """Returns a file of `count` links, of which the second has a code that cannot be."""
    lines = [f"{prefix}-{number},https://example.org/{number},=1+{number},7" for number in range(count)]
    lines[1] = f'"{prefix}.1",https://example.org/1,=1+1,'
    return "code,url,title,clicks\n" + "\n".join(lines) + "\n"


def a_prefix() -> str:
    return f"im{uuid.uuid4().hex[:8]}"


async def choose(page: Page, text: str | bytes, name: str = "links.csv") -> None:
    data = text if isinstance(text, bytes) else text.encode()
    await page.locator("[name=file]").set_input_files({"name": name, "mimeType": "text/csv", "buffer": data})


async def counts(page: Page) -> list[int]:
    """Returns the numbers of new, present, refused and left out rows."""
    texts = await page.locator("[data-count]").all_inner_texts()
    return [int(text.replace(",", "")) for text in texts]


async def imported(service: Service, prefix: str) -> int:
    answer = await service.api.get("/api/v1/links", params={"q": f"{prefix}-", "total": "true"})
    return int(answer.json()["total"])


async def test_a_file_is_looked_at_and_then_imported(service: Service, page: Page, tmp_path: Path) -> None:
    """The dry run says what would happen and changes nothing; the import does that, and a repeat finds it done."""
    prefix = a_prefix()
    await service.shorten("https://example.org/elsewhere", alias=f"{prefix}-3")
    await page.goto("/ui/links")
    await page.get_by_role("link", name="Import", exact=True).click()
    await choose(page, rows_of(prefix))
    await page.get_by_text("Options").click()
    await page.get_by_label("Tags for all").fill(prefix)
    await page.get_by_role("button", name="Show what would happen").click()
    await expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
    assert await counts(page) == [ROWS - 2, 0, 2, 0]
    refused = page.locator("[data-rows=refused] tbody tr")
    await expect(refused).to_have_count(2)
    await expect(refused.first).to_contain_text("alias: must be 1 to 64 of the characters")
    await expect(refused.last).to_contain_text("the code leads elsewhere here")
    assert await imported(service, prefix) == 1

    await page.get_by_role("button", name=f"Import {ROWS - 2:,} links").click()
    await expect(page.get_by_role("heading", name="Imported")).to_be_visible()
    assert await counts(page) == [ROWS - 2, 0, 2, 0]
    assert await imported(service, prefix) == ROWS - 1
    link = (await service.api.get(f"/api/v1/links/{prefix}-7")).json()
    assert (link["imported_clicks"], link["clicks"], link["tags"]) == (7, 0, [prefix])
    async with page.expect_download() as download:
        await page.get_by_role("link", name="Refused rows as a file").click()
    saved = await download.value
    assert saved.suggested_filename == "links.refused.csv"
    await saved.save_as(tmp_path / "refused.csv")
    rows = list(csv.DictReader(StringIO((tmp_path / "refused.csv").read_text())))
    assert [row["code"] for row in rows] == [f"{prefix}.1", f"{prefix}-3"]
    assert rows[0]["title"] == "'=1+1", "no spreadsheet takes it for a formula"
    assert "must be 1 to 64" in rows[0]["snapurl_reason"]

    await page.get_by_role("button", name="Another file").click()
    await page.get_by_role("button", name="Show what would happen").click()
    await expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
    assert await counts(page) == [0, ROWS - 2, 2, 0]
    await expect(page.locator("[data-begin]")).to_be_hidden()


async def test_an_import_is_cancelled_and_goes_on_after_a_reload(
    service: Service, make_page: PageMaker
) -> None:
    """Cancel stops it at a row; the page of later knows where, and nothing is missing or made twice then."""
    prefix, page = a_prefix(), await make_page(is_new=True)
    await page.goto("/ui/import")
    await choose(page, rows_of(prefix))
    await page.get_by_role("button", name="Show what would happen").click()
    pieces: list[Request] = []

    async def hold_second(route: Route) -> None:
        pieces.append(route.request)
        if len(pieces) < 2:
            await route.continue_()

    await page.get_by_role("heading", name="What would happen").wait_for()
    await page.route(f"**{PIECE}*", hold_second)
    await page.locator("[data-begin]").click()
    await expect(page.locator("#rate")).to_contain_text("1,000 rows ·")
    await expect(page.locator("#rate")).to_contain_text("left")
    await page.get_by_role("button", name="Cancel").click()
    await expect(page.get_by_role("heading", name="Stopped")).to_be_visible()
    assert await imported(service, prefix) == 999

    await page.unroute(f"**{PIECE}*")
    await page.reload()
    await expect(page.locator("#stopped")).to_contain_text("The import of links.csv has stopped at row 1,000")
    await expect(page.get_by_role("button", name="Go on")).to_be_hidden()
    await choose(page, rows_of(prefix, 5), "other.csv")
    await expect(page.get_by_role("button", name="Go on")).to_be_hidden()
    state = await page.evaluate("JSON.parse(localStorage.getItem('snapurl.import')).file")
    await page.evaluate(
        """([state, text]) => {
          const chosen = new DataTransfer(), field = document.querySelector("[name=file]");
          chosen.items.add(new File([text], state.name, { lastModified: state.modified }));
          field.files = chosen.files;
          field.dispatchEvent(new Event("change"));
        }""",
        [state, rows_of(prefix)],
    )
    await page.get_by_role("button", name="Go on").click()
    await expect(page.get_by_role("heading", name="Imported")).to_be_visible()
    assert await counts(page) == [ROWS - 1, 0, 1, 0]
    assert await imported(service, prefix) == ROWS - 1
    assert await page.evaluate("localStorage.getItem('snapurl.import')") is None
    await expect(page.get_by_role("link", name="Refused rows as a file")).to_be_visible()


async def test_a_piece_without_an_answer_is_sent_again(service: Service, make_page: PageMaker) -> None:
    """A worker that does not answer delays an import, and costs it nothing."""
    prefix, page = a_prefix(), await make_page(is_new=True)
    await page.goto("/ui/import")
    failed: list[Request] = []

    async def fail_once(route: Route) -> None:
        if failed:
            await route.continue_()
            return
        failed.append(route.request)
        await route.fulfill(status=503, body="{}", headers={"retry-after": "1"})

    await page.route(f"**{PIECE}*", fail_once)
    await page.get_by_text("Paste rows instead").click()
    await page.get_by_label("Rows").fill(rows_of(prefix, 5))
    await page.get_by_role("button", name="Show what would happen").click()
    await expect(page.locator("#pause")).to_have_text("No answer. Trying again in 1 s.")
    await expect(page.get_by_role("heading", name="What would happen")).to_be_visible()
    assert await counts(page) == [4, 0, 1, 0]


@pytest.mark.parametrize(
    ("source", "content", "said"),
    [
        ("csv", b"\x89PNG\r\n\x1a\n\x00\x01\x02", "No column is the target"),
        ("csv", "", "The file is empty."),
        ("csv", "name,mail\nAnn,ann@example.org\n", "the first row is: name, mail"),
        ("yourls", b"-- MySQL dump\nCREATE TABLE `a` (`b` int);\n", "The dump has no table of links"),
        ("yourls", b"-- MySQL dump\n" * 80_000, "`snapurl import yourls`"),
    ],
)
async def test_a_file_that_is_none_is_refused_in_words(
    page: Page, source: str, content: str | bytes, said: str
) -> None:
    """What cannot be imported is refused beside the form, which keeps what was chosen."""
    await page.goto("/ui/import")
    await page.get_by_label("From").select_option(source)
    await choose(page, content or b" ", "wrong.csv")
    await page.get_by_role("button", name="Show what would happen").click()
    await expect(page.locator("#fault")).to_contain_text(said)
    await expect(page.get_by_label("From")).to_have_value(source)


@pytest.mark.parametrize("encoding", ["utf-8-sig", "cp1252", "utf-16"])
async def test_files_of_other_encodings_are_read(
    service: Service, make_page: PageMaker, encoding: str
) -> None:
    """A file of a spreadsheet is read as the command line reads it, whatever encoding it is in."""
    prefix, page = a_prefix(), await make_page(is_new=True)
    await page.goto("/ui/import")
    await choose(page, f"code;url;title\r\n{prefix};https://example.org/;Größe\r\n".encode(encoding))
    await page.get_by_role("button", name="Show what would happen").click()
    await page.get_by_role("button", name="Import 1 link").click()
    await expect(page.get_by_role("heading", name="Imported")).to_be_visible()
    assert (await service.api.get(f"/api/v1/links/{prefix}")).json()["title"] == "Größe"


async def test_two_rows_with_one_code_are_found_by_the_dry_run(page: Page) -> None:
    """What the import would refuse, the dry run refuses: here the second row of a code."""
    prefix = a_prefix()
    await page.goto("/ui/import")
    await choose(page, f"code,url\n{prefix},https://example.org/a\n{prefix},https://example.org/b\n")
    await page.get_by_role("button", name="Show what would happen").click()
    await expect(page.locator("[data-rows=refused]")).to_contain_text("another row before it has this code")
    assert await counts(page) == [1, 0, 1, 0]


async def test_only_admins_see_the_import(service: Service, make_page: PageMaker) -> None:
    """A key with all other rights has no way to the page, and is refused there."""
    page = await make_page(key=await service.key(Right.READ, Right.CREATE, Right.CHANGE))
    await page.goto("/ui/links")
    await expect(page.get_by_role("link", name="Import")).to_have_count(0)
    answer = await page.goto("/ui/import")
    assert answer is not None and answer.status == 403


async def test_without_scripts_the_page_names_the_command(make_page: PageMaker) -> None:
    """A page whose form cannot work shows none."""
    page = await make_page(javascript=False)
    await page.goto("/ui/import")
    await expect(page.get_by_text("snapurl import csv links.csv")).to_be_visible()
    await expect(page.locator("#import")).to_be_hidden()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1280])
async def test_the_results_fit_and_can_be_read(make_page: PageMaker, width: int, theme: str) -> None:
    """With all kinds of results nothing scrolls sideways or is too small to press, and axe finds nothing."""
    page = await make_page(width=width, theme=theme, is_new=True)
    await page.goto("/ui/import")
    await page.get_by_text("Options").click()
    await page.get_by_label("Only those of").fill("s.example.org")
    rows = rows_of(a_prefix(), 150).replace(
        "https://example.org/9,", "https://example.org/" + "long" * 60 + ","
    )
    await choose(page, rows.replace("code,", "domain,code,").replace("\n", "\ns.example.org,") + "x,y,,\n")
    await page.get_by_role("button", name="Show what would happen").click()
    await page.get_by_role("heading", name="What would happen").wait_for()
    await page.locator("[data-rows=created] summary").click()
    assert await page.evaluate("document.documentElement.scrollWidth") <= width
    assert not await page.evaluate(SMALL_TARGETS)
    await page.evaluate(AXE.read_text())
    found = await page.evaluate("axe.run().then((result) => result.violations)")
    assert not [(item["id"], item["nodes"][0]["html"]) for item in found]


# -- the piece ---------------------------------------------------------------------------------------------------


@pytest.fixture
async def client(service: Service) -> httpx.AsyncClient:
    """Returns a client with the session of the admin key."""
    made = service.client(Origin=service.workers[0].url)
    await made.post("/ui/login", data={"key": service.admin_key})
    return made


async def test_rows_without_codes_are_found_again(service: Service, client: httpx.AsyncClient) -> None:
    """A row without a code is known by its place and its target: a repeat makes no second link."""
    body = f"url\nhttps://example.org/{a_prefix()}\nhttps://example.org/{a_prefix()}\n".encode()
    asked = {"source": "csv", "last": "1"}
    first, again = [(await client.post(PIECE, params=asked, content=body)).json() for _ in range(2)]
    assert [row[2] for row in first["rows"]] == [row[2] for row in again["rows"]]
    foreseen = (await client.post(PIECE, params={**asked, "dry": "1"}, content=body)).json()
    assert [row[1] for row in foreseen["rows"]] == ["present", "present"]


async def test_the_command_line_and_the_dashboard_make_the_same_links(
    service: Service, client: httpx.AsyncClient, tmp_path: Path
) -> None:
    """What the command line has imported is there already for the dashboard, rows without codes too."""
    file = tmp_path / "links.csv"
    file.write_text(f"url\nhttps://example.org/{a_prefix()}\nhttps://example.org/{a_prefix()}\n")
    imported = await run(environ_of(service), "csv", str(file), command="import")
    assert imported.code == 0, imported.err
    asked = {"source": "csv", "last": "1", "dry": "1"}
    foreseen = (await client.post(PIECE, params=asked, content=file.read_bytes())).json()
    assert [row[1] for row in foreseen["rows"]] == ["present", "present"]


async def test_clicks_by_day_of_a_dump_come_along(service: Service, client: httpx.AsyncClient) -> None:
    """The log of a YOURLS dump becomes imported clicks of days, once."""
    code = a_prefix()
    dump = (
        "CREATE TABLE `y_url` (`keyword` varchar(9), `url` text, `clicks` int);\n"
        f"INSERT INTO `y_url` VALUES ('{code}','https://example.org/',1);\n"
        "CREATE TABLE `y_log` (`click_id` int, `click_time` datetime, `shorturl` varchar(9));\n"
        f"INSERT INTO `y_log` VALUES (1,'2026-01-02 03:04:05','{code}'),(2,'2026-01-02 04:04:05','{code}');\n"
    )
    for _ in range(2):
        answer = await client.post(PIECE, params={"source": "yourls", "last": "1"}, content=dump.encode())
        assert answer.json()["over"], answer.text
    stats = (await service.api.get(f"/api/v1/links/{code}/stats")).json()
    assert stats["imported"]["series"] == [{"start": "2026-01-02", "clicks": 2, "bots": 0}]


async def test_a_piece_has_a_bound(client: httpx.AsyncClient) -> None:
    """A piece beyond the bound is refused before it is read."""
    answer = await client.post(PIECE, params={"source": "csv"}, content=b"x" * (PIECE_BYTES_MAX + 1))
    assert (answer.status_code, problem_of(answer)["type"]) == (413, "urn:snapurl:problem:too-large")


@pytest.mark.parametrize(
    ("asked", "body", "said"),
    [
        ({"source": "other"}, b"url\n", "source"),
        ({"source": "csv", "place": "x"}, b"url\n", "place"),
        ({"source": "csv", "place": "9.1.1"}, b"url\nhttps://example.org/\n", "no longer the file"),
        ({"source": "csv", "zone": "Mars/Phobos"}, b"url\n", "zone"),
        ({"source": "csv", "domain": "other.example"}, b"url\n", "domain"),
        ({"source": "csv", "account": "nobody"}, b"url\nhttps://example.org/\n", "account"),
        ({"source": "csv", "account": "acc_0123456789"}, b"url\nhttps://example.org/\n", "account"),
        ({"source": "csv"}, b"url\n\xff", "UTF-8"),
        ({"source": "csv"}, b"", "empty"),
        ({"source": "yourls"}, b"INSERT INTO a VALUES (1", "not complete"),
    ],
)
async def test_what_is_no_piece_is_refused(
    client: httpx.AsyncClient, asked: Mapping[str, str], body: bytes, said: str
) -> None:
    """A piece that cannot be read is answered with a problem that says what is wrong."""
    answer = await client.post(PIECE, params={**asked, "last": "1", "dry": "1"}, content=body)
    assert answer.status_code == 422, answer.text
    assert said in json.dumps(problem_of(answer))


async def test_a_session_that_has_ended_is_said_to_the_script(service: Service) -> None:
    """Without a session a piece is refused with a problem, not with a page."""
    client = service.client(Origin=service.workers[0].url)
    answer = await client.post(PIECE, params={"source": "csv"}, content=b"url\n")
    assert (answer.status_code, "Your session has ended" in problem_of(answer)["detail"]) == (401, True)


def problem_of(answer: httpx.Response) -> dict[str, str]:
    assert answer.headers["content-type"] == "application/problem+json"
    found: dict[str, str] = answer.json()
    return found
