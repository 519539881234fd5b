"""Idempotency-Key: a retry gets the first answer, whatever happened in between."""

from __future__ import annotations

import asyncio
import signal
import uuid
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service

BODY = {"url": "https://example.org/"}


def named() -> dict[str, str]:
    return {"Idempotency-Key": f"key-{uuid.uuid4()}"}


async def test_a_repeat_gets_the_first_answer(service: Service) -> None:
    """A retry gets the first answer from either worker any number of times, and only one link is created."""
    headers = named()
    answers = [
        await service.clients[number % 2].post("/api/v1/links", json=BODY, headers=headers)
        for number in range(4)
    ]
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert len({answer.headers["location"] for answer in answers}) == 1


async def test_repeats_at_once_make_one_link(service: Service) -> None:
    """Twenty concurrent requests with one key on two workers create one link."""
    headers = named()
    key = service.client(await service.key("create", "read")).headers["x-api-key"]
    clients = [service.client(key, worker) for worker in (0, 1)]
    answers = await asyncio.gather(
        *(clients[number % 2].post("/api/v1/links", json=BODY, headers=headers) for number in range(20))
    )
    assert {answer.status_code for answer in answers} == {201}
    assert len({answer.text for answer in answers}) == 1
    assert len((await clients[0].get("/api/v1/links")).json()["links"]) == 1


async def test_a_repeat_with_an_alias_is_no_conflict(service: Service, api: httpx.AsyncClient) -> None:
    """A retry of a create with an alias succeeds; without the key it is a conflict."""
    headers = named()
    body = {**BODY, "alias": f"again-{uuid.uuid4().hex[:8]}"}
    first = await api.post("/api/v1/links", json=body, headers=headers)
    again = await api.post("/api/v1/links", json=body, headers=headers)
    assert (first.status_code, again.status_code) == (201, 201)
    assert first.text == again.text
    assert (await api.post("/api/v1/links", json=body)).status_code == 409


async def test_a_refusal_is_repeated_too(service: Service, api: httpx.AsyncClient) -> None:
    """A retry gets the same refusal: an alias that was taken stays taken."""
    other = await service.shorten()
    headers = named()
    for _ in range(2):
        answer = await api.post("/api/v1/links", json={**BODY, "alias": other["code"]}, headers=headers)
        assert answer.status_code == 409


async def test_another_request_with_the_same_key_is_422(api: httpx.AsyncClient) -> None:
    """Another request with a used key gets 422, whichever field differs; an equivalent one is a retry."""
    headers = named()
    first = await api.post("/api/v1/links", json={**BODY, "tags": ["a"]}, headers=headers)
    assert first.status_code == 201
    for other in ({"url": "https://example.com/"}, {**BODY}, {**BODY, "tags": ["a"], "title": "x"}):
        answer = await api.post("/api/v1/links", json=other, headers=headers)
        assert answer.status_code == 422
        assert answer.json()["type"] == "urn:snapurl:problem:idempotency-mismatch"
    same: dict[str, Any] = {
        "redirect_status": 302,
        "tags": ["a"],
        "url": "HTTPS://EXAMPLE.org",
        "title": None,
    }
    assert (await api.post("/api/v1/links", json=same, headers=headers)).text == first.text


async def test_keys_of_two_clients_are_two_keys(service: Service) -> None:
    """The same Idempotency-Key from two clients identifies two requests."""
    headers = named()
    one, other = [service.client(await service.key("create")) for _ in range(2)]
    codes = {
        (await client.post("/api/v1/links", json=BODY, headers=headers)).json()["code"]
        for client in (one, other, service.client())
    }
    assert len(codes) == 3


async def test_a_repeat_after_a_change_gets_the_first_answer_and_brings_nothing_back(
    service: Service, api: httpx.AsyncClient
) -> None:
    """A retry after a change returns version 1, while the link stays at version 2."""
    headers = named()
    first = await api.post("/api/v1/links", json=BODY, headers=headers)
    path, code = first.headers["location"], first.json()["code"]
    await api.patch(path, json={"url": "https://example.com/new"})
    again = await api.post("/api/v1/links", json=BODY, headers=headers)
    assert again.text == first.text and again.headers["etag"] == '"1"'
    for client in service.clients[:2]:
        assert (await client.get(f"/{code}")).headers["location"] == "https://example.com/new"
    assert (await api.get(path)).json()["version"] == 2
    await api.delete(path)
    assert (await api.post("/api/v1/links", json=BODY, headers=headers)).text == first.text
    assert (await api.get(f"/{code}")).status_code == 410


async def test_a_repeat_after_the_expiry_gets_the_first_answer(api: httpx.AsyncClient) -> None:
    """A retry after the link's expiry gets the first answer; only a first request with a past expiry is refused."""
    for ahead_s in (0.5 * 2**tries for tries in range(10)):  # a busy machine may take longer than the first
        headers, soon = named(), datetime.now(UTC) + timedelta(seconds=ahead_s)
        body = {**BODY, "expires_at": soon.isoformat()}
        first = await api.post("/api/v1/links", json=body, headers=headers)
        if first.status_code == 201:
            break
    assert first.status_code == 201
    await asyncio.sleep((soon - datetime.now(UTC)).total_seconds() + 0.1)
    assert (await api.post("/api/v1/links", json=body, headers=headers)).text == first.text
    for alias in ({}, {"alias": f"late-{uuid.uuid4().hex[:8]}"}):
        late = await api.post("/api/v1/links", json={**body, **alias}, headers=named())
        assert late.status_code == 422
        assert late.json()["errors"][0]["pointer"] == "/expires_at"


async def test_a_repeated_bulk_finds_each_of_its_links_again(
    service: Service, api: httpx.AsyncClient
) -> None:
    """A bulk retry finds its links by position: a different item gets 422, an additional one is created."""
    headers = named()
    items = [{"url": f"https://example.org/{number}"} for number in range(5)]
    first = (await api.post("/api/v1/links/bulk", json={"links": items}, headers=headers)).json()["results"]
    assert [result["status"] for result in first] == [201] * 5
    again = await service.clients[1].post(
        "/api/v1/links/bulk", json={"links": [*items, {"url": "https://example.org/new"}]}, headers=headers
    )
    assert again.json()["results"][:5] == first and again.json()["results"][5]["status"] == 201
    swapped = await api.post("/api/v1/links/bulk", json={"links": items[::-1]}, headers=headers)
    statuses = [result["status"] for result in swapped.json()["results"]]
    assert statuses == [422, 422, 201, 422, 422]
    single = await api.post("/api/v1/links", json=items[0], headers=headers)
    assert single.status_code == 201 and single.json()["code"] != first[0]["link"]["code"]


async def test_repeats_survive_the_death_of_workers(make_service: ServiceMaker) -> None:
    """Clients whose worker is killed retry at another one and get one link per key."""
    async with make_service(workers=2) as service:
        key = await service.key("create", "read")
        names = [named() for _ in range(60)]
        clients = [service.client(key, worker) for worker in (0, 1)]

        async def create(number: int) -> dict[str, Any] | None:
            try:
                answer = await clients[0].post(
                    "/api/v1/links", json={"url": f"https://example.org/{number}"}, headers=names[number]
                )
            except httpx.HTTPError:
                return None
            return answer.json() if answer.status_code == 201 else None

        creating = [asyncio.create_task(create(number)) for number in range(60)]
        await asyncio.wait(creating, return_when=asyncio.FIRST_COMPLETED)
        await service.workers[0].stop(signal.SIGKILL)
        first = [await task for task in creating]

        for number, answered in enumerate(first):
            again = await clients[1].post(
                "/api/v1/links", json={"url": f"https://example.org/{number}"}, headers=names[number]
            )
            assert again.status_code == 201
            assert answered is None or again.json() == answered
        assert len((await clients[1].get("/api/v1/links?limit=200")).json()["links"]) == 60
