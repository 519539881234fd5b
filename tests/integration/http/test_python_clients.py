"""Programs that others have written for Shlink and YOURLS, from the package index, unchanged against a service.

Each runs from its wheel in a process of its own: `shlink` and `PyShlink` have the same module, and `pyourls3`
brings a package `tests`. They get the `requests` and `httpx` of this environment, newer ones than they ask for. Of
`mcp-shlink` it is the client that runs, which its server for language models wraps.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import uuid
from pathlib import Path
from typing import Any

from tests.integration.http.service import PUBLIC_URL, Service
from tests.integration.http.test_shlink import count
from tests.support.requirements import requires
from tests.support.waits import HANG_S

WHEELS = Path(sys.prefix) / "clients"
TARGET = "https://example.org/clients?a=1"

pytestmark = requires("the clients of `make .venv/.dev`")


async def run(service: Service, script: str, *wheels: str, code: str = "") -> dict[str, Any]:
    """Runs a script that finds what it needs in `url`, `key` and `code`. Returns what it puts into `said`."""
    begin = "import json, sys\nurl, key, code = sys.argv[1:]\nsaid = {}\n"
    end = "\nprint(json.dumps(said, default=str))\n"
    path = [next(str(file) for file in WHEELS.glob(f"{wheel}-*.whl")) for wheel in wheels]
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", begin + script + end, service.workers[0].url, service.admin_key, code),
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await asyncio.wait_for(process.communicate(), HANG_S)
    assert process.returncode == 0, err.decode()
    said: dict[str, Any] = json.loads(out)
    return said


def new_code() -> str:
    return f"c{uuid.uuid4().hex[:10]}"


async def test_mcp_shlink_creates_lists_reads_and_deletes(service: Service) -> None:
    """Each of its tools but the tags gets what it reads; its list of tags looks where Shlink has none either."""
    said = await run(
        service,
        """
import httpx
from mcp_shlink.client import ShlinkClient
from mcp_shlink.models import CreateShortUrlRequest
client = ShlinkClient(url + "/", key)
asked = CreateShortUrlRequest(long_url="https://example.org/clients?a=1", tags=["mcp"], custom_slug=code,
                              valid_until="2099-01-01T00:00:00+00:00", max_visits=3)
said["created"] = client.create_short_url(asked).model_dump()
said["listed"] = client.list_short_urls().model_dump()
said["read"] = client.get_short_url(code).model_dump()
said["tags"] = client.list_tags().model_dump()
try:
    client.create_short_url(asked)
except httpx.HTTPStatusError as error:
    said["again"] = error.response.status_code
client.delete_short_url(code)
try:
    client.get_short_url(code)
except httpx.HTTPStatusError as error:
    said["gone"] = error.response.status_code
""",
        "mcp_shlink",
        code=(code := new_code()),
    )
    link = said["created"]
    assert (link["short_url"], link["short_code"], link["long_url"]) == (f"{PUBLIC_URL}/{code}", code, TARGET)
    assert (link["tags"], link["visits_count"]) == (["mcp"], 0)
    assert link in said["listed"]["data"] and said["listed"]["pagination"]["currentPage"] == 1
    meta = {"validSince": None, "validUntil": "2099-01-01T00:00:00+00:00", "maxVisits": 3}
    assert said["read"] == {**link, "meta": meta}
    assert (said["tags"], said["again"], said["gone"]) == ({"data": []}, 400, 404)


async def test_pyshlink_lists_reads_and_gets_visits(service: Service) -> None:
    """It passes on the JSON: of a link, of the list, and of its visits without those of bots in a range of days."""
    code = (await service.shorten(TARGET, alias=new_code()))["code"]
    await count(service, code)
    said = await run(
        service,
        """
from shlink import Shlink
client = Shlink(key, url + "/")
said["list"] = client.list_short_urls()
said["read"] = client.get_short_url(code)
said["visits"] = client.list_visit_data(code, startDate="2026-05-05", endDate="2026-05-06")
said["all"] = client.list_visit_data(code, excludeBots=False)
said["missing"] = client.get_short_url("none-" + code)
""",
        "PyShlink",
        code=code,
    )
    assert said["read"]["longUrl"] == TARGET
    assert said["read"] in said["list"]["shortUrls"]["data"]
    assert said["visits"]["visits"]["pagination"]["totalItems"] == 2
    assert said["all"]["visits"]["pagination"]["totalItems"] == 8
    assert said["missing"]["type"].endswith("short-url-not-found")


async def test_shlink_of_version_1_creates_and_reads(service: Service) -> None:
    """Its forms, with dates without a zone or `None`, make links whose dates it can read."""
    said = await run(
        service,
        """
from datetime import datetime
from shlink import Shlink
client = Shlink(key, url)
told = dict(tags=["v1", "form"], valid_until=datetime(2099, 1, 1), custom_slug=code, max_visits=3)
said["made"] = client.add_short_url("https://example.org/clients?a=1", find_if_exists=False, **told).to_dict()
said["plain"] = client.add_short_url("https://example.org/clients?a=1").to_dict()
said["read"] = client.get_short_url(code).to_dict()
said["list"] = client.list_short_urls().to_dict()
""",
        "shlink",
        code=(code := new_code()),
    )
    assert (said["made"]["short_code"], said["made"]["tags"]) == (code, ["v1", "form"])
    assert said["made"] == said["read"]
    assert said["plain"]["long_url"] == TARGET and said["plain"]["date_created"]
    assert said["made"] in said["list"]["data"]
    api = (await service.api.get(f"/api/v1/links/{code}")).json()
    assert (api["max_clicks"], api["expires_at"], api["starts_at"]) == (
        3,
        "2099-01-01T00:00:00.000000Z",
        None,
    )


async def test_yourls_shortens_expands_and_counts(service: Service) -> None:
    """By signature and by password; its exceptions for a loop and a missing URL are raised, and every link of a
    list has its number."""
    said = await run(
        service,
        """
import yourls
client = yourls.YOURLSClient(url + "/yourls-api.php", signature=key)
other = yourls.YOURLSClient(url + "/yourls-api.php", username="anybody", password=key)
def told(link):
    return {name: getattr(link, name) for name in link.__slots__}
said["made"] = told(client.shorten("https://example.org/clients?a=1", keyword=code, title="A title"))
said["long"] = other.expand(code)
said["stats"] = told(client.url_stats(code))
links, total = client.stats("last", 2)
said["links"], said["total"] = [told(link) for link in links], total.total_links
said["db"] = client.db_stats().total_links
for name, work in (
    ("loop", lambda: client.shorten(said["made"]["shorturl"])),
    ("none", lambda: client.shorten("")),
    ("taken", lambda: client.shorten("https://example.org/", keyword=code)),
    ("missing", lambda: client.expand("none-" + code)),
    ("key", lambda: yourls.YOURLSClient(client.apiurl, signature="0123456789").db_stats()),
):
    try:
        said[name] = work()
    except yourls.YOURLSAPIError as error:
        said[name] = type(error).__name__
""",
        "yourls",
        "logbook",
        "represent",
        code=(code := new_code()),
    )
    made = said["made"]
    assert (made["shorturl"], made["url"], made["title"]) == (f"{PUBLIC_URL}/{code}", TARGET, "A title")
    assert said["long"] == TARGET
    assert said["stats"] == {**made, "keyword": None} and made["clicks"] == 0
    assert len(said["links"]) == 2 and said["total"] == said["db"] >= 1
    assert [said[name] for name in ("loop", "none", "taken", "missing", "key")] == [
        "YOURLSNoLoopError", "YOURLSNoURLError", "YOURLSHTTPError", "YOURLSHTTPError", "YOURLSHTTPError",
    ]  # fmt: skip


async def test_pyourls3_shortens_expands_and_counts(service: Service) -> None:
    """It posts forms. Each refusal has the message and the code that it reads."""
    said = await run(
        service,
        """
import pyourls3
from pyourls3.exceptions import Pyourls3APIError
client = pyourls3.Yourls(url, key=key)
other = pyourls3.Yourls(url + "/", user="anybody", passwd=key)
said["made"] = client.shorten("https://example.org/clients?a=1", keyword=code, title="A title")
said["long"] = other.expand(said["made"]["shorturl"])
said["stats"], said["link"] = client.stats(), client.url_stats(code)
for name, work in (
    ("taken", lambda: client.shorten("https://example.org/", keyword=code)),
    ("missing", lambda: client.expand("none-" + code)),
    ("unknown", lambda: client.url_stats("none-" + code)),
    ("key", lambda: pyourls3.Yourls(url, key="0123456789")),
):
    try:
        said[name] = work()
    except Pyourls3APIError as error:
        said[name] = [error.message, error.code]
""",
        "pyourls3",
        code=(code := new_code()),
    )
    made = said["made"]
    assert (made["shorturl"], made["url"]["url"], made["title"]) == (
        f"{PUBLIC_URL}/{code}",
        TARGET,
        "A title",
    )
    assert (said["long"], said["link"]["url"]) == (TARGET, TARGET)
    assert int(said["stats"]["total_links"]) >= 1
    assert said["taken"][1] == "error:keyword"
    assert said["missing"] == said["unknown"] == ["short URL not found", "error:notfound"]
    assert said["key"] == ["forbidden", 403]
