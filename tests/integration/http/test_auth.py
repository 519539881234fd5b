"""API keys over HTTP: what they allow, and how soon a revoked key is refused."""

from __future__ import annotations

import asyncio
import time

import pytest

from ring.slots import slot_of
from snapurl.errors import NoSuchKey
from snapurl.http.auth import KEY_AGE_MAX_S
from snapurl.keys import PlainKey, list_keys, revoke_key
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.shards import Shards
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service
from tests.support.waits import until

BODY = {"url": "https://example.org/"}


async def test_both_headers_work_and_two_different_keys_do_not(service: Service) -> None:
    """X-Api-Key and Authorization: Bearer both work, also together if they have the same key."""
    key, other = service.admin_key, await service.key("admin")
    anybody = service.client()
    for headers in (
        {"X-Api-Key": key},
        {"Authorization": f"Bearer {key}"},
        {"X-Api-Key": key, "Authorization": f"bearer {key}"},
    ):
        assert (await anybody.get("/api/v1/links?limit=1", headers=headers)).status_code == 200
    answer = await anybody.get(
        "/api/v1/links", headers={"X-Api-Key": key, "Authorization": f"Bearer {other}"}
    )
    assert answer.status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": ""},
        {"X-Api-Key": "nonsense"},
        {"X-Api-Key": str(PlainKey.random())},
        {"Authorization": f"Bearer {PlainKey.random()}"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"X-Api-Key": "x" * 5_000},
    ],
)
async def test_a_bad_key_is_401_even_where_none_is_needed(service: Service, headers: dict[str, str]) -> None:
    """A client with an invalid key gets 401 even where no key is needed."""
    anybody = service.client()
    for answer in (
        await anybody.post("/api/v1/links", json=BODY, headers=headers),
        await anybody.get("/api/v1/links", headers=headers),
    ):
        assert answer.status_code == 401
        assert answer.headers["www-authenticate"].startswith("Bearer")
        assert answer.json()["type"] == "urn:snapurl:problem:unauthorized"


async def test_the_right_id_with_a_wrong_secret_is_401(service: Service) -> None:
    """A key with a valid id and a wrong secret gets 401."""
    plain = PlainKey.parse(service.admin_key)
    assert plain is not None
    forged = str(PlainKey(plain.key_id, PlainKey.random().secret))
    assert (await service.client(forged).get("/api/v1/links")).status_code == 401


async def test_without_a_key_one_may_create_and_nothing_else(service: Service) -> None:
    """With anonymous creation a client without a key can only create; only an admin key can change such a link."""
    anybody = service.client()
    created = await anybody.post("/api/v1/links", json=BODY)
    assert created.status_code == 201
    path = created.headers["location"]
    for answer in (
        await anybody.get(path),
        await anybody.get(f"{path}/stats"),
        await anybody.get("/api/v1/links"),
        await anybody.patch(path, json={"title": "x"}),
        await anybody.delete(path),
    ):
        assert answer.status_code == 401
    own = service.client(await service.key("create", "read", "change"))
    assert (await own.delete(path)).status_code == 404
    assert (await service.api.delete(path)).status_code == 204


@pytest.mark.parametrize(
    ("right", "statuses"),
    [
        ("create", [201, 200, 403, 403, 403, 403, 403]),
        ("read", [403, 403, 404, 200, 404, 403, 403]),
        ("change", [403, 403, 403, 403, 403, 404, 404]),
        ("admin", [201, 200, 200, 200, 200, 200, 204]),
    ],
)
async def test_a_key_has_its_rights_and_no_others(service: Service, right: str, statuses: list[int]) -> None:
    """A key can do only what its rights allow; for any but an admin key there are no links but its own."""
    code = (await service.shorten())["code"]
    client = service.client(await service.key(right))
    path = f"/api/v1/links/{code}"
    answers = [
        await client.post("/api/v1/links", json=BODY),
        await client.post("/api/v1/links/bulk", json={"links": [BODY]}),
        await client.get(path),
        await client.get("/api/v1/links?limit=1"),
        await client.get(f"{path}/stats"),
        await client.patch(path, json={"title": "x"}),
        await client.delete(path),
    ]
    assert [answer.status_code for answer in answers] == statuses


async def test_a_key_reaches_its_own_links(service: Service) -> None:
    """A key with the rights to read and change can access its own links."""
    client = service.client(await service.key("create", "read", "change"))
    path = (await client.post("/api/v1/links", json=BODY)).headers["location"]
    assert (await client.get(path)).status_code == 200
    assert (await client.patch(path, json={"title": "x"})).status_code == 200
    assert (await client.delete(path)).status_code == 204


async def test_a_revoked_key_is_refused_by_every_worker_within_seconds(service: Service) -> None:
    """Every worker refuses a revoked key as soon as the key's cache entry expires."""
    key = await service.key("read")
    clients = [service.client(key, worker) for worker in (0, 1)]
    for client in clients:
        assert (await client.get("/api/v1/links")).status_code == 200
    revoked = await revoke_key(service.settings, key)
    revoked_at = time.monotonic()
    assert revoked.revoked_at is not None
    assert (await revoke_key(service.settings, revoked.key_id)).revoked_at == revoked.revoked_at

    async def refused() -> bool:
        asked_at = time.monotonic()
        answers = [await client.get("/api/v1/links") for client in clients]
        is_refused = all(answer.status_code == 401 for answer in answers)
        assert is_refused or asked_at < revoked_at + KEY_AGE_MAX_S
        return is_refused

    await until(refused)


async def test_keys_are_listed_without_their_secrets(service: Service) -> None:
    """The list of keys shows name, rights and dates, but no secret."""
    key = await service.key("read", "create")
    plain = PlainKey.parse(key)
    assert plain is not None
    listed, _ = await list_keys(service.settings)
    found = next(item for item in listed if item.key_id == plain.key_id)
    assert found.rights == {"read", "create"} and found.revoked_at is None
    assert plain.secret not in repr(listed)
    with pytest.raises(NoSuchKey):
        await revoke_key(service.settings, "nobodyskey")


async def test_anonymous_creation_is_a_setting(make_service: ServiceMaker) -> None:
    """With anonymous creation off, a create needs a key."""
    async with make_service(SNAPURL_ANONYMOUS_CREATION="false") as service:
        anybody = service.client()
        for path, body in (("/api/v1/links", BODY), ("/api/v1/links/bulk", {"links": [BODY]})):
            answer = await anybody.post(path, json=body)
            assert answer.status_code == 401
            assert (await service.api.post(path, json=body)).is_success


async def test_a_silent_shard_does_not_lock_its_keys_out(
    make_service: ServiceMaker, cluster: LocalCluster
) -> None:
    """A cached key keeps working on the other shards while the key's shard is down."""
    async with make_service() as service:
        plain = PlainKey.parse(service.admin_key)
        assert plain is not None
        shards = await Shards.connect(service.settings)
        name = shards.map.owner(slot_of(plain.key_id))
        await shards.close()
        await service.shorten()
        await cluster.shard(name).stop()
        await asyncio.sleep(KEY_AGE_MAX_S)

        async def creates() -> bool:
            return (await service.api.post("/api/v1/links", json=BODY)).status_code == 201

        await until(creates)
        unknown = await service.client(str(PlainKey.random())).get("/api/v1/links")
        assert unknown.status_code in (401, 503)
