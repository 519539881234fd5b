"""`snapurl import` against a running service: what it says and writes, and that it can be interrupted anywhere."""

from __future__ import annotations

import asyncio
import csv
import json
import signal
import sys
import uuid
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest

from snapurl.commands import import_urls
from tests.integration.http.service import Service
from tests.integration.http.test_links_command import Finished, run
from tests.support.waits import until

Import = Callable[..., Awaitable[Finished]]

ENVIRON = ("SNAPURL_URL", "SNAPURL_API_KEY")


def environ_of(service: Service) -> dict[str, str]:
    return {"SNAPURL_URL": service.workers[0].url, "SNAPURL_API_KEY": service.admin_key}


@pytest.fixture
def run_import(service: Service) -> Import:
    """Returns `run` for this command, with the shared service and its admin key."""

    async def run_here(*words: str | Path, **how: Any) -> Finished:
        return await run(environ_of(service), *map(str, words), command="import", **how)

    return run_here


def lines(finished: Finished) -> list[dict[str, Any]]:
    return [json.loads(line) for line in finished.out.splitlines()]


async def test_a_dry_run_says_what_the_import_then_does(
    run_import: Import, service: Service, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Each row has its outcome and reason; refused rows are in a file that can be mended and imported again."""
    taken = (await service.shorten(alias=f"t{uuid.uuid4().hex[:8]}"))["code"]
    new, odd = f"n{uuid.uuid4().hex[:8]}", f"o{uuid.uuid4().hex[:8]}"
    file = tmp_path / "links.csv"
    file.write_text(
        "Slug;Long URL;Title;Created;Password;Host;Hits;Expires at\n"
        f"{new};https://example.org/1;Größe;2020-01-02;;go.elsewhere.example;7;\n"
        f"{new};https://example.org/2;;;;;;\n"
        f"{taken};https://example.org/3;;;;;;\n"
        f"{odd};https://example.org/4;;;$2b$x;;;\n"
        "a.b;https://example.org/5;;;;;;\n"
        "x;mailto:a@example.org;;;;;;\n"
        ";https://example.org/7;;;;;;\n"
        "y;https://example.org/8;;01/02/2020;;;;\n"
        "z;https://example.org/9;;;;;;2020-01-01\n"
    )
    dry = await run_import("csv", file, "--dry-run", "--skip-expired")
    *rows, summary = lines(dry)
    outcomes = [
        "created",
        "refused",
        "refused",
        "created",
        "refused",
        "refused",
        "created",
        "refused",
        "skipped",
    ]
    assert dry.code == 1 and [row["outcome"] for row in rows] == outcomes
    assert summary == {
        "rows": 9, "created": 3, "present": 0, "refused": 5, "skipped": 1, "remarks": 1, "dry_run": True,
        "refused_file": None,
    }  # fmt: skip
    assert (await api.get(f"/api/v1/links/{new}")).status_code == 404 and list(tmp_path.iterdir()) == [file]

    done = await run_import("csv", file, "--skip-expired", "--tag", "moved")
    assert done.code == 1 and lines(done)[0] == {
        **summary,
        "dry_run": False,
        "refused_file": str(tmp_path / "links.refused.csv"),
    }
    link = (await api.get(f"/api/v1/links/{new}")).json()
    assert (link["url"], link["title"], link["imported_clicks"], link["tags"]) == (
        "https://example.org/1",
        "Größe",
        7,
        ["moved"],
    )
    assert link["created_at"].startswith("2020-01-02T00:00:00")
    assert (await api.get(f"/{odd}")).status_code == 404
    assert (await api.get(f"/{rows[6]['code']}")).headers["location"] == "https://example.org/7"
    with (tmp_path / "links.refused.csv").open() as refused:
        mend = list(csv.DictReader(refused))
    assert [row["Long URL"][-1] for row in mend] == ["2", "3", "5", "g", "8"]
    assert [row["snapurl_reason"] for row in mend[:2]] == ["the code leads elsewhere here"] * 2

    again = lines(await run_import("csv", file, "--skip-expired"))[0]
    assert (again["present"] + again["created"], again["refused"]) == (3, 5)
    mended = await run_import("csv", tmp_path / "links.refused.csv", "--dry-run")
    assert [row["outcome"] for row in lines(mended)[:-1]] == ["refused"] * 5


async def test_for_people_it_is_a_line_per_row_and_a_summary(run_import: Import, tmp_path: Path) -> None:
    """On a terminal the output is text."""
    file = tmp_path / "links.csv"
    file.write_text(f"code,url\np{uuid.uuid4().hex[:8]},https://example.org/\na.b,https://example.org/\n")
    said = (await run_import("csv", file, "--dry-run", terminal=True)).out
    assert "created   p" in said and "refused   alias: must be" in said and "1 would be created" in said


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("csv", "none.csv"), "No such file"),
        (("csv", "bad.csv"), "no column is the target"),
        (("yourls", "bad.csv"), "no column is the target"),
        (("elsewhere", "bad.csv"), "is not one of"),
        (("csv", "bad.csv", "--zone", "Mars"), "time zone"),
    ],
)
async def test_a_call_that_cannot_work_is_one_line(
    run_import: Import, words: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    """Neither a stack trace nor a file of refused rows."""
    (tmp_path / "bad.csv").write_text("code,ziel\nx,https://example.org/\n")
    source, name, *options = words
    finished = await run_import(source, tmp_path / name, *options)
    assert finished.code and said in finished.err and len(finished.err.splitlines()) <= 3
    assert [found.name for found in tmp_path.iterdir()] == ["bad.csv"]


async def test_a_key_without_the_right_is_refused_at_once(service: Service, tmp_path: Path) -> None:
    """It needs an admin key."""
    file = tmp_path / "links.csv"
    file.write_text("code,url\nx,https://example.org/\n")
    key = (await service.api.post("/api/v1/keys", json={"name": "no admin"})).json()["key"]
    environ = {**environ_of(service), "SNAPURL_API_KEY": key}
    finished = await run(environ, "csv", str(file), command="import")
    assert finished.code == 1 and "lacks the right" in finished.err


async def test_a_kill_in_the_midst_leaves_nothing_twice_and_nothing_missing(
    run_import: Import, service: Service, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    """The same again after `kill -9`: each row has one link, those without a code too."""
    tag, rows = f"k{uuid.uuid4().hex[:8]}", 6_000
    file = tmp_path / "links.csv"
    with file.open("w") as out:
        out.write("code,url,tags\n")
        for row in range(rows):
            out.write(f"{f'{tag}-{row}' if row % 2 else ''},https://example.org/{tag}/{row % 100},{tag}\n")
    command = [sys.executable, "-m", "snapurl", "import", "csv", str(file)]
    killed = await asyncio.create_subprocess_exec(
        *command,
        env=environ_of(service),
        cwd=tmp_path,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )

    async def count() -> int:
        answer = await api.get("/api/v1/links", params={"tags_all": tag, "limit": 1, "total": "true"})
        return int(answer.json()["total"] or 0)

    await until(count)
    killed.kill()
    await killed.communicate()
    finished = await run_import("csv", file)
    assert finished.code == 0, finished.err
    summary = lines(finished)[0]
    assert (summary["rows"], summary["refused"]) == (rows, 0)
    assert await count() == rows
    assert lines(await run_import("csv", file))[0]["rows"] == rows and await count() == rows


@contextmanager
def answering(handler: type[BaseHTTPRequestHandler]) -> Iterator[int]:
    """Runs a server in a thread; yields its port."""
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


class FakeShlink(BaseHTTPRequestHandler):
    """Lists one link per page to whoever has the key."""

    links: ClassVar[list[dict[str, Any]]] = []

    def do_GET(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        is_known = self.headers["X-Api-Key"] == "key-of-shlink"
        place = int(query["page"][0]) - 1
        pagination = {"pagesCount": len(self.links), "totalItems": len(self.links)}
        listed = {"shortUrls": {"data": self.links[place : place + 1], "pagination": pagination}}
        refusal = {
            "title": "Invalid API key",
            "type": "x",
            "detail": "Provided API key does not exist",
            "status": 401,
        }
        if "/visits?" in self.path:
            two = [{"date": "2023-04-05T23:30:00-02:00", "potentialBot": bot} for bot in (True, False)]
            listed = {"visits": {"data": two, "pagination": {"pagesCount": 2}}}
        body = json.dumps(
            listed if is_known and self.path.startswith("/base/rest/v3/short-urls") else refusal
        )
        self.send_response(200 if is_known else 401)
        self.end_headers()
        self.wfile.write(body.encode())

    def log_message(self, *_: object) -> None:
        pass


async def test_a_running_shlink_is_read_page_by_page(
    run_import: Import, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Its key comes from a file, and goes to it alone; a wrong one is refused in its words."""
    codes = [f"s{uuid.uuid4().hex[:8]}" for _ in range(2)]
    FakeShlink.links = [
        {"shortCode": code, "shortUrl": f"https://s.test/{code}", "longUrl": f"https://example.org/{code}",
         "dateCreated": "2023-04-05T06:07:08+02:00", "tags": ["x"], "visitsSummary": {"total": 3}}
        for code in codes
    ]  # fmt: skip
    key = tmp_path / "key"
    key.write_text("key-of-shlink\n")
    key.chmod(0o600)
    with answering(FakeShlink) as port:
        url = f"http://127.0.0.1:{port}/base"
        refused = ("--refused", tmp_path / "refused.csv")
        done = await run_import("shlink", url, "--key-file", key, *refused)
        key.write_text("another")
        wrong = await run_import("shlink", url, "--key-file", key, *refused)
        without = await run_import("shlink", url, *refused)
    assert done.code == 0 and lines(done)[0]["created"] == 2, done.err
    link = (await api.get(f"/api/v1/links/{codes[1]}")).json()
    assert (link["created_at"], link["imported_clicks"], link["tags"]) == (
        "2023-04-05T04:07:08.000000Z",
        4,
        ["x"],
    )
    imported = (await api.get(f"/api/v1/links/{codes[1]}/stats")).json()["imported"]
    assert imported["series"] == [{"start": "2023-04-06", "clicks": 4, "bots": 2}], "two pages of two visits"
    assert wrong.code == 1 and "Invalid API key" in wrong.err and "Shlink does not take this key" in wrong.err
    assert without.code == 2 and "--key-file" in without.err


class FakeBitly(BaseHTTPRequestHandler):
    """Has one link, with a title that makes its answers no strict JSON. Wants fewer requests each second time."""

    code = ""
    asked = 0

    def do_GET(self) -> None:
        FakeBitly.asked += 1
        path, status = urlsplit(self.path).path, 200
        link = {
            "id": "bit.ly/3xYz", "long_url": f"https://example.org/{self.code}", "title": "a\x0bb",
            "created_at": "2020-10-26T17:20:40+0000", "custom_bitlinks": [f"https://go.test/{self.code}"],
        }  # fmt: skip
        answers: dict[str, Any] = {
            "/v4/groups": {"groups": [{"guid": "Bg1"}]},
            "/v4/groups/Bg1/bitlinks": {"links": [link], "pagination": {"next": ""}},
            "/v4/bitlinks/bit.ly/3xYz/clicks": {
                "link_clicks": [{"date": "2021-02-04T00:00:00+0000", "clicks": 3}]
            },
        }
        answer = answers[path]
        if self.headers["Authorization"] != "Bearer token-of-bitly" or self.headers["X-Api-Key"]:
            status, answer = 403, {"message": "FORBIDDEN"}
        elif FakeBitly.asked % 2:
            status, answer = 429, {"message": "MONTHLY_RATE_LIMIT_EXCEEDED"}
        self.send_response(status)
        self.end_headers()
        self.wfile.write(json.dumps(answer).replace("\\u000b", "\x0b").encode())

    def log_message(self, *_: object) -> None:
        pass


async def test_bitly_is_read_over_its_api(
    run_import: Import, api: httpx.AsyncClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a token from a file, as slowly as it wants; a wrong token is refused in one line."""
    monkeypatch.setattr(import_urls, "LIMITED_S", 0.01)
    FakeBitly.code = f"b{uuid.uuid4().hex[:8]}"
    key = tmp_path / "token"
    key.write_text("token-of-bitly\n")
    key.chmod(0o600)
    with answering(FakeBitly) as port:
        url = f"http://127.0.0.1:{port}/v4/"
        refused = ("--refused", tmp_path / "refused.csv")
        done = await run_import("bitly", url, "--key-file", key, *refused)
        key.write_text("another")
        wrong = await run_import("bitly", url, "--key-file", key, *refused)
        other = await run_import("kutt", url, "--key-file", key, *refused)
    assert done.code == 0 and lines(done)[0]["created"] == 1, done.err
    link = (await api.get(f"/api/v1/links/{FakeBitly.code}")).json()
    assert (link["title"], link["imported_clicks"], link["created_at"]) == (
        "a b",
        3,
        "2020-10-26T17:20:40.000000Z",
    )
    imported = (await api.get(f"/api/v1/links/{FakeBitly.code}/stats")).json()["imported"]
    assert imported["series"] == [{"start": "2021-02-04", "clicks": 3, "bots": 0}]
    assert (wrong.code, wrong.err.count("Bitly does not take this key")) == (
        1,
        1,
    ) and "token" not in wrong.err
    assert other.code == 2 and "only shlink and bitly are read from a URL" in other.err


async def test_ctrl_c_ends_an_import_when_what_is_under_way_has_its_answer(tmp_path: Path) -> None:
    """It says how far it came and exits with 130; the refused rows until then are in their file."""
    rows = 20_000
    file = tmp_path / "links.csv"
    file.write_text("code,url\n.,https://example.org/\n" + "x,https://example.org/\n" * rows)
    interrupted: list[int] = []

    class Service(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            links = json.loads(self.rfile.read(int(self.headers["Content-Length"])))["links"]
            if not interrupted:
                interrupted.append(process.pid)
                process.send_signal(signal.SIGINT)
            results = [
                {"status": 409, "error": {"detail": "taken"}}
                if link["alias"] == "."
                else {"status": 201, "code": "x", "domain": None}
                for link in links
            ]
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"results": results, "places": None}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Service) as server:
        thread = Thread(target=server.serve_forever)
        environ = {"SNAPURL_URL": f"http://127.0.0.1:{server.server_port}", "SNAPURL_API_KEY": "k"}
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "snapurl", "import", "csv", str(file),
            env=environ, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        )  # fmt: skip
        thread.start()
        out, err = await process.communicate()
        server.shutdown()
        thread.join()
    assert (process.returncode, err.strip()) == (130, b"snapurl: stopped")
    summary = json.loads(out)
    assert 1_000 <= summary["rows"] <= rows and summary["refused"] == 1
    assert (tmp_path / "links.refused.csv").read_text().splitlines()[1:] == [".,https://example.org/,taken"]


async def test_a_key_that_may_not_is_refused_before_anything_is_written(
    run_import: Import, service: Service, tmp_path: Path
) -> None:
    """An import or export with a wrong key says so alone: no summary, no header, and no file is touched."""
    file, refused = tmp_path / "links.csv", tmp_path / "links.refused.csv"
    file.write_text("code,url\nx,mailto:a@example.org\n")
    refused.write_text("kept")
    wrong = {**environ_of(service), "SNAPURL_API_KEY": "sk_0123456789_" + "x" * 32}
    for command, words in (
        ("import", ("csv", str(file))),
        ("export", ("links",)),
        ("export", ("statistics", "-o", str(tmp_path / "clicks.csv"))),
    ):
        said = await run(wrong, *words, command=command)
        assert said.code == 1 and said.out == "" and said.err.count("\n") == 1, said
    assert refused.read_text() == "kept" and not (tmp_path / "clicks.csv").exists()


async def test_visits_come_along_by_day_and_a_repeat_does_not_double_them(
    run_import: Import, api: httpx.AsyncClient, service: Service, tmp_path: Path
) -> None:
    """They are in the statistics as imported, and in no count of clicks; not those of a refused link."""
    code, taken = (
        f"v{uuid.uuid4().hex[:8]}",
        (await service.shorten(alias=f"t{uuid.uuid4().hex[:8]}"))["code"],
    )
    file = tmp_path / "yourls.sql"
    visits = [("2020-02-03", code)] * 3 + [("2020-02-09", code), ("2020-02-03", taken)]
    log = ",".join(f"({n},'{day} 04:05:06','{of}','','','','')" for n, (day, of) in enumerate(visits))
    file.write_text(
        f"-- dump\nINSERT INTO yourls_log VALUES {log};\nINSERT INTO yourls_url VALUES "
        f"('{code}','https://example.org/v','t','2020-01-01 00:00:00','',2),"
        f"('{taken}','https://example.org/other','t','2020-01-01 00:00:00','',2);\n"
    )
    for outcome in ("created", "present"):
        done = await run_import("yourls", file)
        assert (lines(done)[0][outcome], lines(done)[0]["refused"]) == (1, 1), done.err
        stats = (await api.get(f"/api/v1/links/{code}/stats", params={"interval": "week"})).json()
        assert stats["imported"] == {
            "clicks": 4,
            "bots": 0,
            "series": [{"start": "2020-02-03", "clicks": 4, "bots": 0}],
        }
        assert (stats["clicks"], stats["series"]) == (0, [])
    assert (await api.get(f"/api/v1/links/{code}")).json()["imported_clicks"] == 4
    assert (await api.get(f"/api/v1/links/{taken}/stats")).json()["imported"]["clicks"] == 0
    sent = {"links": [
        {"code": code, "days": [{"day": "2020-02-03", "clicks": 9, "bots": 2}]},
        {"code": "nowhere-at-all", "days": [{"day": "2020-02-03", "clicks": 9}]},
    ]}  # fmt: skip
    answer = await api.post("/api/v1/import/visits", json=sent)
    assert [each["status"] for each in answer.json()["results"]] == [200, 404]
    days = (await api.get(f"/api/v1/links/{code}/stats")).json()["imported"]["series"]
    assert [(day["clicks"], day["bots"]) for day in days] == [(9, 2), (1, 0)]
    for bad in ({"day": "2999-01-01", "clicks": 1}, {"day": "x", "clicks": 1},
                {"day": "2020-01-01", "clicks": 1, "bots": 2}):  # fmt: skip
        refused = await api.post("/api/v1/import/visits", json={"links": [{"code": code, "days": [bad]}]})
        assert refused.status_code == 422, bad


async def test_visits_in_a_second_file_come_along(
    run_import: Import, api: httpx.AsyncClient, tmp_path: Path
) -> None:
    """Those of Kutt's table and of Shlink's CSV; a file that is not whole imports nothing, and a line says why."""
    code, other = f"k{uuid.uuid4().hex[:8]}", f"s{uuid.uuid4().hex[:8]}"
    kutt, hours = tmp_path / "links.csv", tmp_path / "visits.csv"
    kutt.write_text(f"id,address,target,visit_count\n5,{code},https://example.org/k,1\n")
    hours.write_text(
        "link_id,created_at,total\n5,2020-02-03 04:00:00,2\n5,2020-02-03 05:00:00,1\n5,2020-02-09,4\n"
    )
    for source, options in (("dub", ()), ("kutt", ("--no-visits",)), ("kutt", ("--days", str(hours)))):
        wrong = await run_import(source, kutt, "--visits", str(hours), *options)
        assert (wrong.code, wrong.out, "--visits" in wrong.err) == (2, "", True), wrong
    shlink, visits = tmp_path / "short_urls.csv", tmp_path / "short_visits.csv"
    shlink.write_text(f"shortCode,domain,longUrl,visits\n{other},s.test,https://example.org/s,1\n")
    visits.write_text(
        "date,potentialBot,visitedUrl\n"
        + f"2020-02-03T04:05:06+00:00,false,https://s.test/{other}\n"
        + f"2020-02-03T05:05:06+00:00,true,https://s.test/{other}\n"
    )
    for source, file, beside, name, days in (
        ("kutt", kutt, hours, code, [("2020-02-03", 3, 0), ("2020-02-09", 4, 0)]),
        ("shlink", shlink, visits, other, [("2020-02-03", 2, 1)]),
    ):
        broken = tmp_path / "broken.csv"
        broken.write_text(beside.read_text() + "2020,x\n")
        refused = await run_import(source, file, "--visits", str(broken))
        assert (refused.code, refused.out, refused.err.count("\n")) == (1, "", 1), refused
        assert "the file with the visits: " in refused.err
        assert (await api.get(f"/api/v1/links/{name}")).status_code == 404
        done = await run_import(source, file, "--visits", str(beside))
        assert (done.code, lines(done)[0]["created"]) == (0, 1), done.err
        told = (await api.get(f"/api/v1/links/{name}/stats")).json()["imported"]["series"]
        assert [(day["start"], day["clicks"], day["bots"]) for day in told] == days
