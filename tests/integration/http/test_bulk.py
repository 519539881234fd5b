"""Bulk creation: results in the order of the items, each independent of the others."""

from __future__ import annotations

import uuid

import httpx

from ring.slots import slot_of
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.shards import Shards
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import PUBLIC_URL, Service


async def test_results_come_in_the_order_asked_with_failures_in_their_places(
    service: Service, api: httpx.AsyncClient
) -> None:
    """A bulk response has one result per item in request order, also for invalid and conflicting items."""
    taken = (await service.shorten())["code"]
    twice = f"twice-{uuid.uuid4().hex[:8]}"
    items = [
        {"url": "https://example.org/0", "title": "first", "tags": ["x"]},
        {"url": "javascript:alert(1)"},
        {"url": "https://example.org/2", "alias": taken},
        {"url": "https://example.org/3", "alias": twice},
        {"url": "https://example.org/4", "alias": twice},
        "nonsense",
        {"url": "https://example.org/6", "expires_at": "2020-01-01T00:00:00Z"},
        {"url": "https://example.org/7", "alias": "api"},
        {"url": "https://example.org/8", "redirect_status": 308},
    ]
    answer = await api.post("/api/v1/links/bulk", json={"links": items})
    assert answer.status_code == 200
    results = answer.json()["results"]
    assert [result["status"] for result in results] == [201, 422, 409, 201, 409, 422, 422, 422, 201]
    for number in (0, 3, 8):
        link = results[number]["link"]
        assert link["url"] == items[number]["url"]  # type: ignore[index]
        assert link["short_url"] == f"{PUBLIC_URL}/{link['code']}"
        assert (await api.get(f"/api/v1/links/{link['code']}")).json() == link
    assert results[0]["link"]["title"] == "first" and results[3]["link"]["code"] == twice
    assert results[1]["error"]["errors"][0]["pointer"] == "/url"
    assert results[2]["error"]["type"] == "urn:snapurl:problem:alias-taken"
    assert results[5]["error"]["errors"][0]["pointer"] == ""
    assert (await api.get(f"/{twice}")).headers["location"] == "https://example.org/3"


async def test_a_thousand_links_at_once(api: httpx.AsyncClient) -> None:
    """A bulk request of 1,000 links, the maximum, creates all of them with different codes."""
    items = [{"url": f"https://example.org/{number}"} for number in range(1_000)]
    results = (await api.post("/api/v1/links/bulk", json={"links": items})).json()["results"]
    assert {result["status"] for result in results} == {201}
    assert len({result["link"]["code"] for result in results}) == 1_000
    for number in (0, 499, 999):
        answer = await api.get(f"/{results[number]['link']['code']}")
        assert answer.headers["location"] == f"https://example.org/{number}"


async def test_a_shard_that_is_down_fails_its_items_only(
    make_service: ServiceMaker, cluster: LocalCluster
) -> None:
    """When a shard is down, items for it get 503 and the others 201."""
    async with make_service() as service:
        shards = await Shards.connect(service.settings)
        aliases = [f"down-{number}" for number in range(40)]
        down = [shards.map.owner(slot_of(alias)) == "db2" for alias in aliases]
        await shards.close()
        await service.shorten()
        await cluster.shard("db2").stop()
        items = [{"url": "https://example.org/", "alias": alias} for alias in aliases]
        results = (await service.api.post("/api/v1/links/bulk", json={"links": items})).json()["results"]
        assert any(down) and not all(down)
        assert [result["status"] for result in results] == [503 if is_down else 201 for is_down in down]
        assert {result["error"]["type"] for result in results if "error" in result} == {
            "urn:snapurl:problem:unavailable"
        }
