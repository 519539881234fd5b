"""API keys that somebody makes up, and links that are not one's own: what it costs, and what it tells."""

from __future__ import annotations

import asyncio
import json

import httpx
import pytest

from snapurl.http import auth
from snapurl.keys import PlainKey, create_key
from snapurl.telemetry.metrics import KEY_LOOKUPS
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.paths import Side, count
from tests.integration.http.test_fast_creates import release_permit, take_all_permits, waits
from tests.integration.http.test_fast_states import BOTH, Open, loop, on_loop, open_side
from tests.support.waits import HANG_S, until

__all__ = ["loop", "open_side"]  # fixtures

LINKS = "/api/v1/links"
BODY = {"url": "https://example.org/"}
UNLIMITED = {"limit_unauthorized": "none", "limit_create": "none"}


def client_of(service: Side, key: object = None) -> httpx.AsyncClient:
    headers = {"X-Api-Key": str(key)} if key else {}
    return httpx.AsyncClient(base_url=f"http://127.0.0.1:{service.port}", timeout=HANG_S, headers=headers)


def lookups() -> int:
    """Returns how many look-ups of keys have gone to a shard."""
    return count(KEY_LOOKUPS.labels("shard"))


# -- keys that are made up ---------------------------------------------------------------------------------------


async def test_guessing_of_keys_ends_in_429_without_lookups(make_service: ServiceMaker) -> None:
    """After the allowed number of refused keys an address gets 429, and its further keys are not looked up."""

    async with make_service(SNAPURL_LIMIT_UNAUTHORIZED="5/hour") as service:
        client = service.client()

        async def shard_lookups() -> float:
            text = (await service.inside().get("/metrics")).text
            (line,) = [line for line in text.splitlines() if 'key_lookups_total{source="shard"}' in line]
            return float(line.split()[1])

        before = await shard_lookups()
        answers = [await client.get(LINKS, headers={"X-Api-Key": str(PlainKey.random())}) for _ in range(20)]
        assert [answer.status_code for answer in answers] == [401] * 5 + [429] * 15
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 3600
        assert await shard_lookups() - before <= 6
        assert (await client.get(LINKS)).status_code == 401


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Api-Key": "nonsense"},
        {"Authorization": "Basic dXNlcjpwYXNz"},
        {"Authorization": f"Bearer {PlainKey.random()}"},
    ],
    ids=["no key", "another scheme", "unknown"],
)
async def test_every_refused_key_counts(make_service: ServiceMaker, headers: dict[str, str]) -> None:
    """What cannot be a key, and what is none, counts alike, also where no key is needed."""
    async with make_service(SNAPURL_LIMIT_UNAUTHORIZED="2/hour") as service:
        client = service.client()
        answers = [await client.post(LINKS, json=BODY, headers=headers) for _ in range(3)]
        assert [answer.status_code for answer in answers] == [401, 401, 429]
        assert (await client.post(LINKS, json=BODY)).status_code == 201


async def test_a_known_key_goes_on_working_beside_a_guesser(make_service: ServiceMaker) -> None:
    """A key that the worker knows works from an address that guesses keys; a wrong secret for it does not help."""
    async with make_service(SNAPURL_LIMIT_UNAUTHORIZED="2/hour") as service:
        plain = PlainKey.parse(service.admin_key)
        assert plain is not None
        assert (await service.api.get(LINKS)).status_code == 200
        forged = service.client(str(PlainKey(plain.key_id, PlainKey.random().secret)))
        assert [(await forged.get(LINKS)).status_code for _ in range(4)] == [401, 401, 429, 429]
        assert (await service.client(str(PlainKey.random())).get(LINKS)).status_code == 429
        await asyncio.sleep(auth.KEY_AGE_MAX_S)
        assert (await service.api.get(LINKS)).status_code == 200


@on_loop
async def test_requests_with_one_unknown_key_share_a_lookup(open_side: Open) -> None:
    """Fifty requests with one made-up key cause one look-up, and the fifty-first none, since it is remembered."""
    async with open_side(**UNLIMITED) as service, client_of(service, PlainKey.random()) as client:
        before = lookups()
        answers = await asyncio.gather(*(client.get(LINKS) for _ in range(50)))
        answers.append(await client.get(LINKS))
        assert {answer.status_code for answer in answers} == {401}
        assert lookups() - before == 1


@on_loop
async def test_a_client_that_goes_away_does_not_end_the_lookup_of_others(open_side: Open) -> None:
    """A look-up goes on for those who wait when the request that began it is cancelled."""
    async with open_side(**UNLIMITED) as service:
        authenticator = service.app.ctx.services.auth
        plain = PlainKey.parse(await create_key(service.app.ctx.services.settings, "test", ["read"], "none"))
        assert plain is not None
        first = asyncio.create_task(authenticator.find(plain))
        second = asyncio.create_task(authenticator.find(plain))
        await asyncio.sleep(0)
        first.cancel()
        assert (await second).key_id == plain.key_id


@on_loop
async def test_unknown_ids_never_push_out_a_key(open_side: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    """After more made-up ids than the caches hold, a real key is still remembered, and the caches are bounded."""
    monkeypatch.setattr(auth, "UNKNOWN_IDS_CACHED_MAX", 3)
    monkeypatch.setattr(auth, "KEYS_CACHED_MAX", 3)
    monkeypatch.setattr(auth, "KEY_AGE_MAX_S", HANG_S)
    async with open_side(**UNLIMITED) as service:
        key = await create_key(service.app.ctx.services.settings, "test", ["read"], "none")
        async with client_of(service, key) as owner, client_of(service) as guesser:
            assert (await owner.get(LINKS)).status_code == 200
            for _ in range(10):
                answer = await guesser.get(LINKS, headers={"X-Api-Key": str(PlainKey.random())})
                assert answer.status_code == 401
            before = lookups()
            assert (await owner.get(LINKS)).status_code == 200
            assert lookups() == before
        authenticator = service.app.ctx.services.auth
        assert (len(authenticator._cached), len(authenticator._unknown)) == (1, 3)
        assert not authenticator._lookups


@BOTH
@on_loop
async def test_a_lookup_waits_for_its_turn(open_side: Open, is_fast: bool) -> None:
    """A client that holds all its permits has no key looked up until one is free."""
    async with open_side(is_fast, **UNLIMITED) as service, client_of(service, PlainKey.random()) as client:
        take_all_permits(service)
        before = lookups()
        asked = asyncio.create_task(client.post(LINKS, json=BODY))
        await until(lambda: waits(service))
        assert lookups() == before
        release_permit(service)
        assert (await asked).status_code == 401
        assert lookups() == before + 1


# -- links that are not one's own --------------------------------------------------------------------------------


async def test_a_key_cannot_tell_which_codes_are_in_use(make_service: ServiceMaker) -> None:
    """Another's link, another's deleted link and none get the same answer to a read, count, change and delete."""
    async with make_service() as service:
        live, dead = (await service.shorten())["code"], (await service.shorten())["code"]
        assert (await service.api.delete(f"{LINKS}/{dead}")).status_code == 204
        client = service.client(await service.key("read", "change"), 0, **{"X-Request-Id": "same"})
        answers = set()
        for code in (live, dead, "none1234"):
            path = f"{LINKS}/{code}"
            for answer in (
                await client.get(path),
                await client.get(f"{path}/stats"),
                await client.patch(path, json={"title": "x"}),
                await client.patch(path, json={"title": "x"}, headers={"If-Match": '"7"'}),
                await client.delete(path),
            ):
                answers.add((answer.status_code, json.dumps(answer.json()), str(sorted(answer.headers))))
        assert len(answers) == 1 and answers.pop()[0] == 404
        assert (await service.api.get(f"{LINKS}/{live}")).status_code == 200


async def test_misses_of_the_api_count_as_misses(make_service: ServiceMaker) -> None:
    """A key that asks for codes that are not its own gets 429 after the limit of misses; its own link stays."""
    async with make_service(SNAPURL_LIMIT_MISSING="3/hour") as service:
        client = service.client(await service.key("create", "read"))
        own = (await client.post(LINKS, json=BODY)).json()["code"]
        statuses = [(await client.get(f"{LINKS}/miss{number}")).status_code for number in range(6)]
        assert statuses == [404] * 3 + [429] * 3
        assert (await client.get(f"{LINKS}/{own}")).status_code == 200
        admin = [(await service.api.get(f"{LINKS}/miss{number}")).status_code for number in range(6)]
        assert admin == [404] * 6


async def test_requests_with_a_key_are_limited(make_service: ServiceMaker) -> None:
    """Reads and changes share a limit per key, over all workers; creates and an admin key have none of it."""
    async with make_service(workers=2, SNAPURL_LIMIT_API="4/hour") as service:
        key = await service.key("create", "read", "change")
        clients = [service.client(key, worker) for worker in (0, 1)]
        path = (await clients[0].post(LINKS, json=BODY)).headers["location"]
        answers = [
            await clients[0].get(path),
            await clients[1].get(f"{path}/stats"),
            await clients[0].get(LINKS),
            await clients[1].patch(path, json={"title": "x"}),
            await clients[0].get(path),
            await clients[1].delete(path),
        ]
        assert [answer.status_code for answer in answers] == [200] * 4 + [429] * 2
        assert answers[0].headers["ratelimit-policy"] == '"api";q=4;w=3600'
        assert "retry-after" in answers[-1].headers
        assert (await clients[1].post(LINKS, json=BODY)).status_code == 201
        assert [(await service.api.get(path)).status_code for _ in range(6)] == [200] * 6
