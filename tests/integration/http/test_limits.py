"""Rate limits over HTTP: on creates and on missing links."""

from __future__ import annotations

import asyncio
import re
import uuid

import httpx
import pytest

from snapurl.config import Settings
from snapurl.limits import RETRY_S
from snapurl.local.cluster import LocalCluster
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service
from tests.support.waits import until

BODY = {"url": "https://example.org/"}


def left(answer: httpx.Response) -> int:
    match = re.fullmatch(r'"create";r=(\d+);t=(\d+)', answer.headers["ratelimit"])
    assert match and 1 <= int(match[2]) <= 3600
    return int(match[1])


async def test_creation_is_limited_per_key_over_all_workers(make_service: ServiceMaker) -> None:
    """All workers share a key's limit: headers count down, then 429 has Retry-After; others are not affected."""
    async with make_service(workers=2, SNAPURL_LIMIT_CREATE="4/hour") as service:
        key = await service.key("create", limit="")
        clients = [service.client(key, worker) for worker in (0, 1)]
        answers = [await clients[number % 2].post("/api/v1/links", json=BODY) for number in range(6)]
        assert [answer.status_code for answer in answers] == [201] * 4 + [429] * 2
        assert [left(answer) for answer in answers] == [3, 2, 1, 0, 0, 0]
        refused = answers[-1]
        assert refused.headers["ratelimit-policy"] == '"create";q=4;w=3600'
        assert 1 <= int(refused.headers["retry-after"]) <= 3600
        assert refused.json()["type"] == "urn:snapurl:problem:rate-limited"
        other = service.client(await service.key("create", limit=""))
        assert (await other.post("/api/v1/links", json=BODY)).status_code == 201


async def test_the_limit_of_a_key_is_its_own(make_service: ServiceMaker) -> None:
    """A key's own limit applies; an admin key has none by default, and `none` means no limit."""
    async with make_service(SNAPURL_LIMIT_CREATE="1/hour") as service:
        own = service.client(await service.key("create", limit="2/hour"))
        assert [(await own.post("/api/v1/links", json=BODY)).status_code for _ in range(3)] == [201, 201, 429]
        for client in (
            service.client(await service.key("admin", limit="")),
            service.client(await service.key("create")),
        ):
            answers = [await client.post("/api/v1/links", json=BODY) for _ in range(3)]
            assert [answer.status_code for answer in answers] == [201] * 3
            assert "ratelimit" not in answers[0].headers


async def test_a_bulk_counts_all_its_links_or_none(make_service: ServiceMaker) -> None:
    """A bulk above the remaining limit creates nothing, and counts once for its body; so does each refused body."""
    async with make_service(SNAPURL_LIMIT_CREATE="5/hour") as service:
        client = service.client()
        three = {"links": [BODY] * 3}
        assert (await client.post("/api/v1/links/bulk", json=three)).status_code == 200
        assert (await client.post("/api/v1/links/bulk", json=three)).status_code == 429
        assert [(await client.post("/api/v1/links", json=BODY)).status_code for _ in range(3)] == [
            201,
            429,
            429,
        ]


async def test_a_bulk_that_waiting_does_not_help_is_not_told_to_wait(make_service: ServiceMaker) -> None:
    """A bulk of more links than the limit ever allows gets 422 with the number allowed, and no Retry-After."""
    async with make_service(SNAPURL_LIMIT_CREATE="5/hour") as service:
        answer = await service.client().post("/api/v1/links/bulk", json={"links": [BODY] * 6})
        assert answer.status_code == 422 and "retry-after" not in answer.headers
        assert answer.json()["errors"] == [{"pointer": "/links", "detail": "must have at most 5 items here"}]


async def test_a_default_key_may_create_a_bulk_of_the_documented_size(make_service: ServiceMaker) -> None:
    """With the limits of a new deployment, a key without a limit of its own creates 1,000 links at once."""
    limit = str(Settings.model_fields["limit_create"].default)
    async with make_service(SNAPURL_LIMIT_CREATE=limit) as service:
        client = service.client(await service.key("create", limit=""))
        answer = await client.post("/api/v1/links/bulk", json={"links": [BODY] * 1_000})
        assert {result["status"] for result in answer.json()["results"]} == {201}


async def test_addresses_are_told_apart_behind_a_trusted_proxy(make_service: ServiceMaker) -> None:
    """A client is the address that a trusted proxy appended to X-Forwarded-For; an IPv6 client is its /64."""
    async with make_service(SNAPURL_LIMIT_CREATE="1/hour", SNAPURL_PROXIES="127.0.0.0/8") as service:
        anybody = service.client()

        async def create(forwarded: str) -> int:
            answer = await anybody.post("/api/v1/links", json=BODY, headers={"X-Forwarded-For": forwarded})
            return answer.status_code

        assert [await create("198.51.100.1"), await create("198.51.100.2")] == [201, 201]
        assert await create("203.0.113.99, 198.51.100.1") == 429
        assert [await create("2001:db8::1"), await create("2001:db8::2")] == [201, 429]
        assert await create("2001:db8:0:1::1") == 201
        assert [await create("192.0.2.7:51234"), await create('"192.0.2.7:51235"')] == [201, 429]
        assert [await create("unknown"), await create("unknown"), await create("127.0.0.1")] == [
            201,
            429,
            429,
        ]
        answer = await anybody.post("/api/v1/links", json=BODY, headers={"Forwarded": 'for="192.0.2.8:1"'})
        assert answer.status_code == 201
        answer = await anybody.post(
            "/api/v1/links", json=BODY, headers={"Forwarded": "proto=https;For=192.0.2.8"}
        )
        assert answer.status_code == 429
        assert service.workers[0].log.read_text().count("where the client should be") == 1


async def test_a_peer_that_is_no_trusted_proxy_names_nobody(make_service: ServiceMaker) -> None:
    """With trusted proxies elsewhere, what a direct client writes into the headers is ignored."""
    async with make_service(SNAPURL_LIMIT_CREATE="1/hour", SNAPURL_PROXIES="10.0.0.0/8") as service:
        anybody = service.client()
        statuses = []
        for number in range(3):
            forged = {"X-Forwarded-For": f"198.51.100.{number}", "Forwarded": f"for=198.51.100.{number}"}
            statuses.append((await anybody.post("/api/v1/links", json=BODY, headers=forged)).status_code)
        assert statuses == [201, 429, 429]


async def test_without_a_trusted_proxy_the_header_means_nothing(make_service: ServiceMaker) -> None:
    """Without a trusted proxy the header is ignored, so that no client can choose its address."""
    async with make_service(SNAPURL_LIMIT_CREATE="1/hour") as service:
        anybody = service.client()
        statuses = [
            (
                await anybody.post(
                    "/api/v1/links", json=BODY, headers={"X-Forwarded-For": f"198.51.100.{number}"}
                )
            ).status_code
            for number in range(3)
        ]
        assert statuses == [201, 429, 429]


async def test_wrong_addresses_do_not_block_good_ones(make_service: ServiceMaker) -> None:
    """Above the limit of misses a client gets 429 for missing links, and its existing links go on."""
    async with make_service(SNAPURL_LIMIT_MISSING="5/minute") as service:
        link = await service.shorten()
        anybody = service.client()
        # Files that browsers request automatically do not count as misses.
        for _ in range(10):
            assert (await anybody.get("/apple-touch-icon.png")).status_code == 404
        answers = [await anybody.get(f"/{uuid.uuid4().hex[:7]}") for _ in range(8)]
        assert [answer.status_code for answer in answers] == [404] * 5 + [429] * 3
        assert 1 <= int(answers[-1].headers["retry-after"]) <= 60
        assert (await anybody.get(f"/{link['code']}")).status_code == 302
        assert "blocked" not in service.workers[0].log.read_text()


async def test_public_statistics_are_bounded_like_other_reads_without_a_key(
    make_service: ServiceMaker,
) -> None:
    """Whoever reads public statistics too often has to wait, and so has whoever tries secrets."""
    async with make_service(SNAPURL_LIMIT_PUBLIC_STATS="3/hour", SNAPURL_LIMIT_MISSING="1/hour") as service:
        code = (await service.shorten())["code"]
        url = (await service.api.post(f"/api/v1/links/{code}/public-stats")).json()["url"]
        path, visitor = url[url.index("/ui/") :], service.client()
        found = [(await visitor.get(place)).status_code for place in (path, f"{path}x", f"{path}y", path)]
        assert found == [200, 404, 429, 429]


async def test_nobody_enumerates_codes(make_service: ServiceMaker) -> None:
    """A client that goes on guessing gets 429 for existing links, too. It is logged once."""
    async with make_service(SNAPURL_LIMIT_MISSING="2/hour") as service:
        link = await service.shorten()
        anybody = service.client()

        async def guess() -> bool:
            await anybody.get(f"/{uuid.uuid4().hex[:7]}")
            return (await anybody.get(f"/{link['code']}")).status_code == 429

        await until(guess)
        for _ in range(5):
            await anybody.get(f"/{uuid.uuid4().hex[:7]}")
        assert service.workers[0].log.read_text().count("blocked 127.0.0.1 for") == 1
        assert (await service.api.get(f"/api/v1/links/{link['code']}")).status_code == 200


async def test_who_has_guessed_is_let_in_again(make_service: ServiceMaker) -> None:
    """When the window ends in which a client has guessed too many codes, it gets existing links again."""
    async with make_service(SNAPURL_LIMIT_MISSING="2/5second") as service:
        link = await service.shorten()
        anybody = service.client()

        async def follow() -> int:
            return (await anybody.get(f"/{link['code']}")).status_code

        async def guess() -> bool:
            """At once, so that the window does not end between the guesses on a busy machine."""
            guesses = (anybody.get(f"/{uuid.uuid4().hex[:7]}") for _ in range(5))
            found = await asyncio.gather(*guesses, *(follow() for _ in range(5)))
            return 429 in found[5:]

        async def let_in() -> bool:
            return await follow() == 302

        await until(guess)
        await until(let_in)


async def test_a_page_cannot_block_its_readers(make_service: ServiceMaker) -> None:
    """What a page makes a browser fetch counts apart: nothing that its user opens is refused for it."""
    async with make_service(SNAPURL_LIMIT_MISSING="2/hour") as service:
        link = await service.shorten()
        user = service.client()
        for number in range(40):
            kind = ("image", "script", "style", "iframe", "empty")[number % 5]
            answer = await user.get(f"/{uuid.uuid4().hex[:7]}", headers={"Sec-Fetch-Dest": kind})
            assert answer.status_code == (404 if number < 2 else 429)
        assert (await user.get(f"/{link['code']}", headers={"Sec-Fetch-Dest": "image"})).status_code == 429
        for headers in ({}, {"Sec-Fetch-Dest": "document"}):
            assert (await user.get(f"/{link['code']}", headers=headers)).status_code == 302
            assert (await user.get(f"/{uuid.uuid4().hex[:7]}", headers=headers)).status_code == 404


async def test_limits_go_on_without_redis(make_service: ServiceMaker, cluster: LocalCluster) -> None:
    """While Redis is down limits are counted per worker; nothing else changes for the client."""
    async with make_service(SNAPURL_LIMIT_CREATE="3/hour") as service:
        client = service.client()
        assert (await client.post("/api/v1/links", json=BODY)).status_code == 201
        await cluster.redis.stop()
        statuses = [(await client.post("/api/v1/links", json=BODY)).status_code for _ in range(5)]
        assert statuses == [201] * 3 + [429] * 2
        for _ in range(2):
            await asyncio.sleep(RETRY_S)  # then Redis is tried again, and has not come back
            assert (await client.post("/api/v1/links", json=BODY)).status_code == 429
        ready = await client.get("/health/ready")
        assert ready.status_code == 200
        assert ready.json()["status"] == "degraded"
        assert not (await service.details())["redis"]["ok"]
        await cluster.redis.start()

        async def well() -> bool:
            return bool((await client.get("/health/ready")).json()["status"] == "ok")

        await until(well)
        log = service.workers[0].log.read_text()
        assert log.count("limits are counted per worker") == log.count("without its own cache") == 1


@pytest.mark.parametrize("path", ["/api/v1/links", "/api/v1/links/bulk"])
async def test_the_headers_come_with_good_answers_only_where_a_limit_applies(
    service: Service, path: str
) -> None:
    """Successful responses have rate-limit headers only where a limit applies."""
    body = BODY if path.endswith("links") else {"links": [BODY]}
    answer = await service.api.post(path, json=body)
    assert answer.is_success and "ratelimit" not in answer.headers
