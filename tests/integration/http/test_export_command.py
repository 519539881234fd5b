"""`snapurl export`, and what `snapurl import` makes of its file in an empty cluster."""

from __future__ import annotations

import asyncio
import csv
import json
import sys
import uuid
from datetime import date
from http.server import BaseHTTPRequestHandler, HTTPServer
from io import StringIO
from pathlib import Path
from threading import Thread
from typing import Any

import httpx

from ring.slots import slot_of
from snapurl.imports.catalogue import SOURCES
from snapurl.imports.table import TORN
from snapurl.link_exports import COLUMNS
from snapurl.model import ClickRow
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service
from tests.integration.http.test_import_command import environ_of
from tests.integration.http.test_links_command import run
from tests.support.click_rows import count_clicks
from tests.unit.imports.reading import links as read_links
from tests.unit.imports.reading import read

NEW = (
    "created_by",
    "changed_by",
    "changed_at",
    "account",
    "version",
    "imported_clicks",
    "clicks",
    "has_password",
)
"""What a link does not keep: who made it and changed it here, and what a file does not tell."""


async def list_of(api: httpx.AsyncClient, **query: str) -> dict[str, dict[str, Any]]:
    answer = await api.get("/api/v1/links", params={"limit": 200, "order": "asc", **query})
    return {link["code"]: link for link in answer.json()["links"]}


async def test_an_export_imported_into_an_empty_cluster_is_the_same(
    service: Service, make_service: ServiceMaker, tmp_path: Path
) -> None:
    """All fields and states come back; a deleted link is refused; a protected one is switched off."""
    tag, api = f"t{uuid.uuid4().hex[:8]}", service.api
    rules = [{"if": {"device": ["mobile"], "language": ["de"]}, "url": "https://example.org/m"}]
    fields: list[dict[str, Any]] = [
        {"title": '=1+"1"', "note": "two\nlines, and; more", "tags": [tag, "a|b", "[c"]},
        {"expires_at": "2031-01-01T00:00:00Z", "starts_at": "2030-06-01T00:00:00Z", "max_clicks": 5},
        {"enabled": False, "expired_url": "https://example.org/over", "redirect_status": 308, "rules": rules},
        {"forward_query": True, "forward_path": True, "alias": f"-{tag}", "title": "Größe 🎉"},
        {"password": "correct horse", "title": "protected"},
        {"title": "deleted"},
    ]
    made = [await service.shorten(**{"tags": [tag], **each}) for each in fields]
    await api.post("/api/v1/import", json={"links": [
        {"url": "https://example.org/i", "alias": f"i{tag}", "tags": [tag], "clicks": 7,
         "created_at": "2020-01-01T00:00:00Z"},
        {"url": "https://example.org/e", "alias": f"e{tag}", "tags": [tag], "expires_at": "2021-01-01T00:00:00Z"},
    ]})  # fmt: skip
    await api.delete(f"/api/v1/links/{made[5]['code']}")

    file = tmp_path / "all.csv"
    shown = made[0]["code"]
    rows = [ClickRow(slot_of(shown), day, shown, date(2026, 5, day), 3) for day in (4, 6)]
    await count_clicks(service.settings, shown, rows, f"of {shown}")
    visits = {"links": [{"code": shown, "days": [{"day": "2026-05-04", "clicks": 5, "bots": 2}]}]}
    assert (await api.post("/api/v1/import/visits", json=visits)).json()["results"][0]["status"] == 200
    days = tmp_path / "days.csv"
    await run(environ_of(service), "statistics", "--tag", tag, "-o", str(days), command="export")
    done = await run(environ_of(service), "links", "--tag", tag, "-o", str(file), command="export")
    assert (done.code, done.out, done.err) == (0, "", "")
    gone = await run(environ_of(service), "links", "--tag", tag, "--state", "deleted", command="export")
    assert [row["code"] for row in csv.DictReader(StringIO(gone.out))] == [made[5]["code"]]
    assert not [path for path in tmp_path.iterdir() if path.suffix == ".part"]

    async with make_service() as other:
        words = ("csv", str(file), "--days", str(days))
        imported = await run(environ_of(other), *words, command="import")
        assert imported.code == 0, imported.out + imported.err
        before, after = await list_of(api, tags_all=tag), await list_of(other.api, tags_all=tag)
        assert list(after) == list(before) and len(after) == 7
        told = (await other.api.get(f"/api/v1/links/{shown}/stats")).json()["imported"]
        assert [(day["start"], day["clicks"], day["bots"]) for day in told["series"]] == [
            ("2026-05-04", 8, 2),
            ("2026-05-06", 3, 0),
        ], "what was counted and what was imported there is imported here"
        protected = after.pop(made[4]["code"])
        assert not protected["enabled"] and protected["title"] == "protected"
        for code, link in after.items():
            old = before[code]
            assert {**link, **dict.fromkeys(NEW)} == {**old, **dict.fromkeys(NEW)}
            days_there = (
                5 if code == shown else 0
            )  # of visits, more than the clicks that were said to be imported
            assert link["imported_clicks"] == old["clicks"] + (old["imported_clicks"] or 0) + days_there
        (tmp_path / "gone.csv").write_text(gone.out)
        refused = await run(
            environ_of(other), "csv", str(tmp_path / "gone.csv"), "--dry-run", command="import"
        )
        assert json.loads(refused.out.splitlines()[0])["remarks"] == ["the link was deleted"]


async def test_the_other_formats(service: Service, tmp_path: Path) -> None:
    """JSON lines are the links of the API; the CSV of Shlink is read as such; clicks come by day."""
    tag = f"t{uuid.uuid4().hex[:8]}"
    link = await service.shorten(tags=[tag, "x"], title="=1")
    environ = environ_of(service)
    as_json = await run(environ, "links", "--format", "jsonl", "--tag", tag, command="export")
    assert [json.loads(line) for line in as_json.out.splitlines()] == list(
        (await list_of(service.api, tags_all=tag)).values()
    )
    shlink = await run(environ, "links", "--format", "shlink", "--tag", tag, command="export")
    (found,) = read_links("shlink", shlink.out)
    assert (found.code, found.url, found.title, found.tags) == (link["code"], link["url"], "=1", (tag, "x"))
    assert found.domain == "s.example.org" and "shlink" in SOURCES
    counted = await run(environ, "statistics", "--tag", tag, command="export")
    assert counted.out == "code,domain,day,clicks,bots,visitors,imported_clicks,imported_bots\n"
    documents = await run(environ, "statistics", "--tag", tag, "--format", "jsonl", command="export")
    assert json.loads(documents.out)["code"] == link["code"]


async def test_a_refused_export_leaves_the_file_as_it_was(service: Service, tmp_path: Path) -> None:
    """It is one line on stderr."""
    file = tmp_path / "links.csv"
    file.write_text("old")
    finished = await run(
        environ_of(service),
        "links",
        "--account",
        "x" * 200,
        "--domain",
        "?",
        "-o",
        str(file),
        command="export",
    )
    assert finished.code == 1 and len(finished.err.splitlines()) == 1
    assert file.read_text() == "old" and list(tmp_path.iterdir()) == [file]


async def test_a_killed_export_leaves_no_file_that_could_be_taken_for_one(tmp_path: Path) -> None:
    """The file has another name until it is whole; what is cut off elsewhere is refused row by row."""
    file = tmp_path / "links.csv"
    page: dict[str, Any] = {"links": [dict.fromkeys(COLUMNS, "x") | {"tags": []}] * 200}
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if "cursor" in self.path:
                loop.call_soon_threadsafe(asked.set)
                return  # without an answer
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({**page, "next_cursor": "x"}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Endless) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "snapurl", "export", "links", "-o", str(file),
            env={"SNAPURL_URL": f"http://127.0.0.1:{server.server_port}"},
        )  # fmt: skip
        await asked.wait()
        process.kill()
        await process.wait()
        server.shutdown()
        thread.join()
    assert [path.name for path in tmp_path.iterdir()] == ["links.csv.part"]
    torn = "code,url,title\na,https://example.org/,x\nb,https://exam"
    assert [str(found) for found in read("csv", torn)][1:] == [TORN]
