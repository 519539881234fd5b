"""Restoring, changing many links at once, and tags, over HTTP."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import httpx
import pytest

from tests.integration.http.service import Service
from tests.support.waits import until

LINKS = 1_003  # more than one batch may have
OUT_OF_TIME = (
    503  # for the links of a batch that a busy machine did not get to within its seconds: it can be repeated
)


async def own_client(service: Service) -> httpx.AsyncClient:
    return service.client(await service.key("create", "read", "change"))


async def make(client: httpx.AsyncClient, **fields: Any) -> str:
    answer = await client.post("/api/v1/links", json={"url": "https://example.org/", **fields})
    assert answer.status_code == 201, answer.text
    code: str = answer.json()["code"]
    return code


# -- restore -----------------------------------------------------------------------------------------------------


async def test_a_deleted_link_is_restored_with_all_that_it_had(service: Service) -> None:
    """A restored link redirects again in every worker, with its fields and a new version; a repeat changes nothing.

    Its statistics stay readable for its owner while it is deleted."""
    own = await own_client(service)
    code = await make(own, title="kept", tags=["a"])
    path = f"/api/v1/links/{code}"
    visitors = [service.client(worker=worker) for worker in range(2)]
    assert (await own.delete(path)).status_code == 204
    for visitor in visitors:
        assert (await visitor.get(f"/{code}")).status_code == 410
    assert (await own.get(f"{path}/stats")).json()["code"] == code
    stranger = await own_client(service)
    assert (await stranger.get(f"{path}/stats")).status_code == 404
    assert (await stranger.post(f"{path}/restore")).status_code == 404
    assert (await own.post(f"{path}/restore", headers={"If-Match": '"1"'})).status_code == 412
    restored = await own.post(f"{path}/restore", headers={"If-Match": '"2"'})
    assert restored.status_code == 200, restored.text
    link = restored.json()
    assert (link["version"], link["title"], link["tags"], link["deleted_at"]) == (3, "kept", ["a"], None)
    assert restored.headers["etag"] == '"3"'
    for visitor in visitors:
        assert (await visitor.get(f"/{code}")).status_code == 302
    assert (await own.post(f"{path}/restore")).json() == link
    assert (await own.get(path)).json() == link


async def test_a_link_cannot_be_restored_after_thirty_days(service: Service) -> None:
    """A link that was deleted more than thirty days ago stays gone."""
    own = await own_client(service)
    code = await make(own)
    assert (await own.delete(f"/api/v1/links/{code}")).status_code == 204
    for item in service.settings.shard_dsns:
        shard = await asyncpg.connect(item.dsn)
        await shard.execute(
            "UPDATE links SET deleted_at = $1 WHERE code = $2", datetime.now(UTC) - timedelta(days=31), code
        )
        await shard.close()
    assert (await own.post(f"/api/v1/links/{code}/restore")).status_code == 410
    assert (await own.post("/api/v1/links/nobody-has-this/restore")).status_code == 404


# -- batches -----------------------------------------------------------------------------------------------------


async def test_a_batch_answers_for_each_link(service: Service) -> None:
    """Each link of a batch succeeds or fails by itself, in the order of the codes."""
    own = await own_client(service)
    first, full = await make(own, tags=["a"]), await make(own, tags=[str(n) for n in range(20)])
    other = await make(await own_client(service))

    async def batch(action: str, *codes: str, **fields: Any) -> list[dict[str, Any]]:
        body = {"action": action, "codes": codes, **fields}
        answer = await own.post("/api/v1/links/batch", json=body)
        assert answer.status_code == 200, answer.text
        results: list[dict[str, Any]] = answer.json()["results"]
        assert [result["code"] for result in results] == list(codes)
        return results

    results = await batch("tag", first, full, other, "nobody-has-this", tags=["a", "b"])
    assert [result["status"] for result in results] == [200, 422, 404, 404]
    assert (results[0]["link"]["tags"], results[0]["link"]["version"]) == (["a", "b"], 2)
    again = await batch("tag", first, tags=["b"])
    assert again[0]["link"]["version"] == 2
    assert (await batch("untag", first, tags=["a"]))[0]["link"]["tags"] == ["b"]
    assert (await batch("disable", first))[0]["link"]["enabled"] is False
    assert (await service.api.get(f"/{first}")).status_code == 404
    enabled = (await batch("enable", first))[0]["link"]
    assert (await batch("enable", first))[0]["link"]["version"] == enabled["version"]
    assert [result["status"] for result in await batch("delete", first, other)] == [200, 404]
    assert (await service.api.get(f"/{first}")).status_code == 410
    assert [result["status"] for result in await batch("delete", first)] == [410]
    assert [result["status"] for result in await batch("restore", first, full)] == [200, 200]
    assert (await service.api.get(f"/{first}")).status_code == 302


@pytest.mark.parametrize(
    "body",
    [
        {"action": "delete"},
        {"action": "explode", "codes": ["a"]},
        {"action": "delete", "codes": []},
        {"action": "delete", "codes": ["a", "a"]},
        {"action": "delete", "codes": ["a b"]},
        {"action": "delete", "codes": [str(n) for n in range(1_001)]},
        {"action": "delete", "codes": ["a"], "filter": {}},
        {"action": "delete", "codes": ["a"], "tags": ["t"]},
        {"action": "delete", "codes": ["a"], "dry_run": True},
        {"action": "tag", "codes": ["a"]},
        {"action": "delete", "filter": {}},
        {"action": "delete", "filter": {}, "dry_run": True, "confirm": 1},
        {"action": "delete", "filter": {"q": " "}, "dry_run": True},
        {"action": "delete", "filter": {"state": "gone"}, "dry_run": True},
        {"action": "delete", "filter": {"created_to": "2030-01-01"}, "dry_run": True},
        {"action": "delete", "filter": {"owner": "x"}, "dry_run": True},
        {"action": "delete", "filter": {}, "cursor": "x"},
    ],
)
async def test_a_bad_batch_is_refused_as_a_whole(service: Service, body: dict[str, Any]) -> None:
    """A batch that does not fit its schema gets 422, and changes nothing."""
    answer = await service.api.post("/api/v1/links/batch", json=body)
    assert answer.status_code == 422, answer.text
    assert answer.json()["errors"]


async def test_links_of_a_filter_are_counted_confirmed_and_changed_in_parts(service: Service) -> None:
    """A filter changes links only with the count that a dry run gave, a thousand at a time.

    Likewise a tag is renamed and deleted, and the list of tags counts its links."""
    own = await own_client(service)
    for first in range(0, LINKS, 1_000):
        links = [{"url": "https://example.org/Many"} for _ in range(first, min(LINKS, first + 1_000))]
        assert (await own.post("/api/v1/links/bulk", json={"links": links})).status_code == 200
    await make(own, tags=["other"])

    async def batch(**fields: Any) -> dict[str, Any]:
        body = {"action": "tag", "tags": ["many"], "filter": {"q": "many"}, **fields}
        answer = await own.post("/api/v1/links/batch", json=body)
        assert answer.status_code == 200, answer.text
        found: dict[str, Any] = answer.json()
        return found

    dry = await batch(dry_run=True)
    assert (dry["results"], dry["total"], dry["total_is_estimate"]) == ([], LINKS, False)
    wrong = {"action": "delete", "filter": {"q": "many"}, "confirm": LINKS + 1}
    refused = await own.post("/api/v1/links/batch", json=wrong)
    assert refused.status_code == 422
    assert refused.json()["errors"][0]["pointer"] == "/confirm"

    async def all_tagged() -> bool:
        begun = await batch(confirm=LINKS)
        assert (len(begun["results"]), begun["complete"]) == (1_000, True)
        rest = await batch(cursor=begun["next_cursor"])
        assert (len(rest["results"]), rest["next_cursor"]) == (LINKS - 1_000, None)
        results = begun["results"] + rest["results"]
        assert len({result["code"] for result in results}) == LINKS
        assert {result["status"] for result in results} <= {200, OUT_OF_TIME}
        return {result["status"] for result in results} == {200}

    await until(all_tagged)

    async def tags(**query: Any) -> dict[str, Any]:
        found: dict[str, Any] = (await own.get("/api/v1/tags", params=query)).json()
        return found

    counted = [{"tag": "many", "links": LINKS}, {"tag": "other", "links": 1}]
    assert await tags() == {"tags": counted, "more": False, "complete": True}
    assert await tags(limit=1) == {"tags": counted[:1], "more": True, "complete": True}
    assert (await tags(q="OTH"))["tags"] == counted[1:]
    left = LINKS

    async def all_renamed() -> bool:
        nonlocal left
        part = (await own.patch("/api/v1/tags", params={"tag": "many"}, json={"tag": "other"})).json()
        assert part["changed"] + part["refused"] == min(left, 1_000)
        left -= part["changed"]
        assert part["left"] == left
        return not left

    assert not await all_renamed()
    await until(all_renamed)
    assert (await tags())["tags"] == [{"tag": "other", "links": LINKS + 1}]
    one = await make(own, tags=["gone", "kept"])
    removed = (await own.delete("/api/v1/tags", params={"tag": "gone"})).json()
    assert removed == {"changed": 1, "refused": 0, "left": 0, "complete": True}
    assert (await own.get(f"/api/v1/links/{one}")).json()["tags"] == ["kept"]
    assert (await own.delete("/api/v1/tags")).status_code == 422
    same = await own.patch("/api/v1/tags", params={"tag": "other"}, json={"tag": "other"})
    assert same.status_code == 422
