"""Headers of responses for caches, browsers and crawlers, and HEAD wherever GET is."""

from __future__ import annotations

import httpx
import pytest

from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service

URL = "https://example.org/"


async def test_no_cache_may_keep_an_answer_of_the_api(service: Service, api: httpx.AsyncClient) -> None:
    """Every response of the API, success or problem, tells caches not to keep it and that it depends on the key."""
    link = await service.shorten()
    path = f"/api/v1/links/{link['code']}"
    anonymous = service.client()
    answers = [
        await api.get("/api/v1/links"),
        await api.head("/api/v1/links"),
        await api.post("/api/v1/links", json={"url": URL}),
        await anonymous.post("/api/v1/links", json={"url": URL}),
        await api.post("/api/v1/links/bulk", json={"links": [{"url": URL}]}),
        await api.get(path),
        await api.get(f"{path}/stats"),
        await api.patch(path, json={"title": "x"}),
        await api.delete(path),
        await api.get("/api/v1/ring"),
        await api.get("/api/v1/links/nobody"),
        await api.get("/api/v1/nothing"),
        await api.put("/api/v1/links"),
        await api.post("/api/v1/links", json={}),
        await api.post("/api/v1/links", content=b"{"),
        await anonymous.get("/api/v1/links"),
        await service.client("nonsense").get("/api/v1/links"),
    ]
    assert {answer.status_code for answer in answers} >= {200, 201, 204, 401, 404, 405, 415, 422}
    for answer in answers:
        assert answer.headers["cache-control"] == "no-store"
        assert answer.headers["vary"] == "Authorization, X-Api-Key"
        assert answer.headers["x-content-type-options"] == "nosniff"


async def test_a_page_that_depends_on_accept_says_so(api: httpx.AsyncClient) -> None:
    """What browsers get as a page and programs as JSON has `Vary: Accept`; its media type is not to be guessed."""
    for path in ("/", "/nobody-has-this", "/a/b"):
        for accept in ("text/html", "application/json"):
            answer = await api.get(path, headers={"Accept": accept})
            assert answer.headers["vary"] == "Accept"
            assert answer.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize("path", ["/openapi.json", "/health/live", "/health/ready", "/docs", "/robots.txt"])
async def test_no_media_type_is_to_be_guessed(api: httpx.AsyncClient, path: str) -> None:
    """JSON, text and pages outside the API have nosniff and an explicit cache policy."""
    answer = await api.get(path)
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] in ("no-store", "no-cache")


async def test_head_is_get_without_the_body(service: Service, api: httpx.AsyncClient) -> None:
    """HEAD of any address of the API has the status and headers of its GET, and no body."""
    link = await service.shorten()
    code = link["code"]
    paths = [
        "/api/v1/links?limit=1",
        f"/api/v1/links/{code}",
        f"/api/v1/links/{code}/stats",
        "/api/v1/links/nobody",
    ]
    for path in paths:
        got, head = await api.get(path), await api.head(path)
        assert head.status_code == got.status_code
        assert head.content == b""
        own = {"date", "x-request-id", "content-length"}
        assert {**head.headers, **dict.fromkeys(own)} == {**got.headers, **dict.fromkeys(own)}
        assert int(head.headers["content-length"]) == len(got.content)
    assert (await service.client().head("/api/v1/links")).status_code == 401


async def test_crawlers_may_follow_links_unless_the_deployment_says_no(
    api: httpx.AsyncClient, make_service: ServiceMaker
) -> None:
    """By default robots.txt keeps crawlers off the API and its documents, or with SNAPURL_ROBOTS=deny off all."""
    rules = (await api.get("/robots.txt")).text.splitlines()
    assert rules[0] == "User-agent: *"
    refused = [line.removeprefix("Disallow: ") for line in rules[1:]]
    assert set(refused) == {"/api/", "/docs$", "/docs/", "/openapi.json$", "/ui$", "/ui/"}
    async with make_service(SNAPURL_ROBOTS="deny") as closed:
        assert (await closed.api.get("/robots.txt")).text == "User-agent: *\nDisallow: /\n"
