"""POST /api/v1/import: links of other services, under their codes there."""

from __future__ import annotations

import uuid
from typing import Any

import httpx

from tests.integration.http.service import Service
from tests.support.waits import until

MADE = "2019-05-06T07:08:09.000000Z"


async def post(api: httpx.AsyncClient, *links: object, **options: object) -> list[dict[str, Any]]:
    answer = await api.post("/api/v1/import", json={"links": links, **options})
    assert answer.status_code == 200, answer.text
    results: list[dict[str, Any]] = answer.json()["results"]
    return results


def code() -> str:
    return f"imported-{uuid.uuid4().hex[:8]}"


async def test_an_import_keeps_what_the_link_had_and_a_repeat_finds_it(
    service: Service, api: httpx.AsyncClient
) -> None:
    """Time of creation and clicks come along, an expiry may be over, and the same again makes nothing new."""
    full, plain, over, nameless = code(), code(), code(), str(uuid.uuid4())
    links = [
        {"url": "https://example.org/1", "alias": full, "created_at": MADE, "clicks": 7, "tags": ["x"]},
        {"url": "https://example.org/2", "alias": plain, "domain": "go.elsewhere.example"},
        {"url": "https://example.org/3", "alias": over, "expires_at": "2020-01-01T00:00:00Z"},
        {"url": "https://example.org/4", "id": nameless, "created_at": MADE},
        {"url": "https://example.org/5", "id": str(uuid.uuid4()), "enabled": False},
    ]
    other = service.client(worker=1)
    for client in (api, other):  # so that every cache knows that they are not there
        assert {(await client.get(f"/{alias}")).status_code for alias in (full, plain)} == {404}
    foreseen = await post(api, *links, dry_run=True)
    assert (await api.get(f"/api/v1/links/{full}")).status_code == 404
    made = await post(api, *links)
    assert made == foreseen and [result["status"] for result in made] == [201] * 5
    again = await post(api, *links)
    assert [result["code"] for result in again] == [result["code"] for result in made]
    assert {result["status"] for result in again} == {200}

    async def redirects() -> bool:
        return {(await other.get(f"/{alias}")).status_code for alias in (full, plain)} == {302}

    await until(redirects)
    link = (await api.get(f"/api/v1/links/{full}")).json()
    assert (link["created_at"], link["imported_clicks"], link["clicks"]) == (MADE, 7, 0)
    assert link["tags"] == ["x"] and link["created_by"] and link["version"] == 1
    assert (await api.get(f"/{full}")).headers["location"] == "https://example.org/1"
    assert (await api.get(f"/{over}")).status_code == 410
    assert (await api.get(f"/{made[4]['code']}")).status_code == 404
    assert (await api.get(f"/api/v1/links/{made[3]['code']}")).json()["created_at"] == MADE
    assert (await api.get(f"/api/v1/links/{plain}")).json()["imported_clicks"] is None
    await api.patch(f"/api/v1/links/{again[3]['code']}", json={"url": "https://example.org/moved"})
    await api.delete(f"/api/v1/links/{again[4]['code']}")
    more = {"url": "https://example.org/6", "id": str(uuid.uuid4())}
    changed, deleted, new = await post(api, links[3], links[4], more)
    assert (changed["status"], changed["code"], new["status"]) == (200, again[3]["code"], 201)
    assert (deleted["status"], deleted["error"]["detail"]) == (409, "the code was that of a deleted link")


async def test_every_link_that_is_not_imported_has_its_reason(
    service: Service, api: httpx.AsyncClient
) -> None:
    """A code that leads elsewhere, was deleted, or is asked for twice is a conflict; a bad field is named."""
    taken, gone, twice = (await service.shorten())["code"], (await service.shorten())["code"], code()
    await api.delete(f"/api/v1/links/{gone}")
    url = "https://example.org/other"
    refused = [
        {"url": url, "alias": taken},
        {"url": url, "alias": gone},
        {"url": "mailto:a@example.org", "alias": code()},
        {"url": url, "alias": "a.b"},
        {"url": url, "created_at": "2999-01-01T00:00:00Z"},
        {"url": url, "clicks": -1},
        {"url": url, "id": "x"},
        {"url": url, "account": "acc_0123456789"},
        {"url": url, "password": "secret-one"},
        "nonsense",
    ]
    statuses = [409, 409, 422, 422, 422, 422, 422, 422, 422, 422]
    assert [result["status"] for result in await post(api, *refused, dry_run=True)] == statuses
    results = await post(api, *refused, {"url": url, "alias": twice}, {"url": url + "?", "alias": twice})
    assert [result["status"] for result in results] == [*statuses, 201, 409]
    assert results[0]["error"]["detail"] == "the code leads elsewhere here"
    assert results[1]["error"]["detail"] == "the code was that of a deleted link"
    assert [result["error"]["errors"][0]["pointer"] for result in results[4:9]] == [
        "/created_at", "/clicks", "/id", "/account", "/password",
    ]  # fmt: skip


async def test_only_an_admin_imports_and_names_the_account(service: Service, api: httpx.AsyncClient) -> None:
    """Other keys are refused; the links belong to the account that the import names."""
    name = f"team {uuid.uuid4().hex[:8]}"
    account = (await api.post("/api/v1/accounts", json={"name": name})).json()["id"]
    member = (await api.post("/api/v1/keys", json={"name": name, "account": account})).json()["key"]
    body = {"links": [{"url": "https://example.org/", "alias": code()}], "account": account}
    assert (await api.post("/api/v1/import", json=body, headers={"X-Api-Key": member})).status_code == 403
    assert (await api.post("/api/v1/import", json={**body, "account": "acc_0000000000"})).status_code == 422
    assert (await api.post("/api/v1/import", json=body)).json()["results"][0]["status"] == 201
    assert (await api.get(f"/api/v1/links/{body['links'][0]['alias']}")).json()["account"] == account
