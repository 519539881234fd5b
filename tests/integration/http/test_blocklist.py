"""Blocked targets over HTTP: every way in which a target comes to a link, and what operators see of the list."""

from __future__ import annotations

import sys
import uuid
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest

from snapurl.config import Settings
from tests.integration.http.service import Service, running
from tests.integration.http.test_links_command import run
from tests.support.waits import until

BAD, LATER, PHISHING, GOOD = (
    "https://www.bad.example/x",
    "https://later.example/",
    "https://example.org/phishing",
    "https://example.org/",
)
HOST = {"pointer": "/url", "detail": "leads to a host that is blocked here"}
PROGRAM = """
import sys
for line in sys.stdin:
    print("refuse is known to steal passwords" if "phishing" in line else "allow", flush=True)
"""


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("blocklist")


@pytest.fixture(scope="module")
async def guarded(shared_settings: Settings, directory: Path) -> AsyncIterator[Service]:
    """Yields a service of one worker with a list of blocked hosts and a program that is asked of URLs."""
    (directory / "blocked").write_text("# a list\n0.0.0.0 bad.example\n<unread>\nmore.example\n")
    (directory / "program.py").write_text(PROGRAM)
    variables = {
        "SNAPURL_BLOCKED_HOSTS_FILE": str(directory / "blocked"),
        "SNAPURL_URL_CHECK_COMMAND": f"{sys.executable} -I '{directory / 'program.py'}'",
        "SNAPURL_URL_CHECK_TIMEOUT_MS": "10000",
        "SNAPURL_SHLINK_API": "true",
        "SNAPURL_YOURLS_API": "true",
    }
    async with running(shared_settings, directory, 1, **variables) as started:
        await until_hosts(started, 2)
        yield started


async def until_hosts(service: Service, count: int) -> None:
    async def loaded() -> bool:
        found = (await service.api.get("/api/v1/blocklist")).json()
        return bool(found["hosts"] == count and found["fault"] is None)

    await until(loaded)


def refused(answer: httpx.Response, *pointers: str) -> dict[str, Any]:
    """Checks that an answer names these targets and nothing else of the list. Returns the problem."""
    problem: dict[str, Any] = answer.json()
    assert (answer.status_code, problem["type"]) == (422, "urn:snapurl:problem:blocked-target"), answer.text
    assert [error["pointer"] for error in problem["errors"]] == list(pointers)
    assert "bad.example" not in answer.text and "more.example" not in answer.text
    return problem


async def test_no_way_leads_to_a_blocked_host(guarded: Service) -> None:
    """Creates, changes, imports, rules, the target after the expiry and other APIs refuse it, and say where."""
    api, rule = guarded.api, {"if": {"os": ["ios"]}, "url": BAD}
    create = "/api/v1/links"
    assert refused(await api.post(create, json={"url": BAD}), "/url")["errors"] == [HOST]
    refused(await api.post(create, json={"url": BAD, "alias": uuid.uuid4().hex}), "/url")
    refused(await guarded.client().post(create, json={"url": "http://BAD.example.:8080"}), "/url")
    refused(await api.post(create, json={"url": GOOD, "expired_url": BAD, "rules": [rule]}),
            "/expired_url", "/rules/0/url")  # fmt: skip
    said = refused(await api.post(create, json={"url": PHISHING}), "/url")
    assert said["errors"][0]["detail"] == "is known to steal passwords"
    link = await guarded.shorten(GOOD)
    path = f"{create}/{link['code']}"
    for change in ({"url": BAD}, {"expired_url": BAD}, {"rules": [rule]}, {"url": PHISHING}):
        answer = await api.patch(path, json=change)
        assert answer.json()["type"].endswith(":blocked-target"), change
    links = [{"url": GOOD}, {"url": BAD}, {"url": GOOD}, {"url": PHISHING}]
    for place in ("/api/v1/links/bulk", "/api/v1/import"):
        for more in ({"dry_run": True}, {}) if place.endswith("import") else ({},):
            answer = await api.post(place, json={"links": links, **more})
            results = answer.json()["results"]
            assert [result["status"] for result in results] == [201, 422, 201, 422]
            assert results[1]["error"]["errors"] == [HOST]
    key = guarded.admin_key
    shlink = await api.post("/rest/v3/short-urls", json={"longUrl": BAD})
    assert (shlink.status_code, shlink.json()["invalidElements"]) == (400, ["longUrl"])
    query = {"signature": key, "format": "json", "action": "shorturl", "url": BAD}
    yourls = await api.get("/yourls-api.php", params=query)
    assert (yourls.status_code, yourls.json()["code"]) == (400, "error:nourl")
    assert (await api.get(path)).json()["url"] == GOOD


async def test_links_to_a_host_that_is_blocked_later(guarded: Service, directory: Path) -> None:
    """They go on until an operator finds and disables them, and then no change brings them back."""
    api = guarded.api
    made: dict[str, dict[str, Any]] = {
        "plain": {"url": LATER},
        "ruled": {"url": GOOD, "rules": [{"if": {"os": ["ios"]}, "url": LATER}]},
        "off": {"url": LATER, "enabled": False},
        "deleted": {"url": LATER},
        "good": {"url": GOOD},
    }
    links = {name: await guarded.shorten(**fields) for name, fields in made.items()}
    path = {name: f"/api/v1/links/{link['code']}" for name, link in links.items()}
    await api.delete(path["deleted"])
    new = directory / "new"
    new.write_text("bad.example\nmore.example\nlater.example\n")
    new.rename(directory / "blocked")
    await until_hosts(guarded, 3)

    assert (await api.get(f"/{links['plain']['code']}")).headers["location"] == LATER
    assert (await api.patch(path["plain"], json={"title": "still mine", "enabled": True})).status_code == 200
    refused(await api.patch(path["off"], json={"enabled": True}), "/url")
    assert (await api.patch(path["off"], json={"enabled": True, "url": GOOD})).status_code == 200
    assert (await api.patch(path["off"], json={"enabled": False, "url": GOOD})).status_code == 200
    refused(await api.post(f"{path['deleted']}/restore"), "/url")
    refused(await api.post(f"{path['plain']}/rename", json={"code": uuid.uuid4().hex}), "/url")

    environ = {"SNAPURL_URL": guarded.workers[0].url, "SNAPURL_API_KEY": guarded.admin_key}
    say = partial(run, environ, command="blocklist")
    found = (await say("links", "--text")).out
    assert links["plain"]["code"] in found and links["ruled"]["code"] in found
    assert not any(links[name]["code"] in found for name in ("off", "deleted", "good"))
    done = await say("links", "--disable", "--yes", "--text")
    assert done.code == 0 and "2 of them were switched off now" in done.out
    assert (await api.get(f"/{links['plain']['code']}")).status_code == 404
    assert (await api.get(f"/{links['good']['code']}")).status_code == 302
    history = (await api.get(f"{path['ruled']}/history")).json()["changes"][-1]
    assert history["fields"] == [{"name": "enabled", "old": True, "new": False}] and history["by"]
    tried = await say("test", "https://a.later.example/", "--text")
    assert (tried.code, tried.out) == (1, "refused: it leads to a host that is blocked here\n")
    assert (await say("test", GOOD)).document["allowed"]
    assert "blocked hosts    3" in (await say("status", "--text")).out


async def test_only_admins_see_the_list(guarded: Service) -> None:
    """Its state, trying URLs and finding links take an admin key."""
    client = guarded.client(await guarded.key("create", "read", "change"))
    assert (await client.get("/api/v1/blocklist")).status_code == 403
    assert (await client.get("/api/v1/blocklist/links")).status_code == 403
    assert (await client.post("/api/v1/blocklist/try", json={"url": GOOD})).status_code == 403


async def test_a_list_that_cannot_be_read_is_said(guarded: Service, directory: Path) -> None:
    """The list before it stays; readiness says so, in general to the public, and metrics count."""
    (directory / "blocked").unlink()

    async def says() -> bool:
        ready = (await guarded.api.get("/health/ready")).json()
        return "the list of blocked hosts cannot be read" in ready.get("reasons", ())

    await until(says)
    assert (await guarded.api.get("/health/ready")).json()["status"] == "degraded"
    details = (await guarded.details())["blocklist"]
    assert not details["ok"] and str(directory) in details["detail"]
    refused(await guarded.api.post("/api/v1/links", json={"url": BAD}), "/url")
    metrics = (await guarded.inside().get("/metrics")).text
    assert "snapurl_blocklist_fault 1.0" in metrics and 'snapurl_targets_refused_total{by="host"}' in metrics
