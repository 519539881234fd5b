"""Addresses that ask every shard: many who ask at once cost one question, and nobody outside reads names."""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from ring.slots import slot_of
from snapurl.http.routes import ROUTES
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.pool import CLUSTER
from snapurl.store.cluster.shards import Shards
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service
from tests.support.databases import Databases
from tests.support.roles import connected, run_program
from tests.support.waits import HANG_S, until

CLIENTS = 100  # fewer than one client may have requests in work
WAITING = "SELECT count(*) FROM pg_stat_activity WHERE query = $1 AND wait_event_type = 'Lock'"


@asynccontextmanager
async def held(service: Service, table: str) -> AsyncIterator[None]:
    """Holds a table of every shard for the block, so that no question about it is answered."""
    async with AsyncExitStack() as stack:
        for item in service.settings.shard_dsns:
            owner = await stack.enter_async_context(connected(item.dsn))
            await stack.enter_async_context(owner.transaction())
            await owner.execute(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE")
        yield


async def waiting(service: Service, query: str) -> list[int]:
    """Returns how often each shard is being asked `query` at the moment."""
    found = []
    for item in service.settings.shard_dsns:
        async with connected(item.dsn) as owner:
            found.append(await owner.fetchval(WAITING, query))
    return found


@pytest.mark.parametrize(
    ("path", "table", "query"),
    [
        ("/health/ready", "cluster", CLUSTER["attested"]),
        ("/api/v1/ring", "migrator", CLUSTER["migrator"]),
    ],
)
async def test_many_who_ask_at_once_cost_one_question(
    make_service: ServiceMaker, path: str, table: str, query: str
) -> None:
    """However many clients wait for readiness or the ring, each shard is asked once, and all get the answer."""
    async with (
        make_service() as service,
        httpx.AsyncClient(
            base_url=service.workers[0].url,
            headers={"X-Api-Key": service.admin_key},
            limits=httpx.Limits(max_connections=None),
            timeout=HANG_S,
        ) as many,
    ):
        await service.api.get("/api/v1/links")  # the key is looked up before a table is held
        async with held(service, table):
            asked = [asyncio.create_task(many.get(path)) for _ in range(CLIENTS)]

            async def is_asked() -> bool:
                return min(await waiting(service, query)) > 0

            await until(is_asked)
            live = [many.get("/health/live") for _ in range(CLIENTS)]
            assert {answer.status_code for answer in await asyncio.gather(*live)} == {200}
            assert await waiting(service, query) == [1] * 4
        answers = await asyncio.gather(*asked)
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.text for answer in answers}) == 1


async def test_creates_go_on_while_the_probes_are_flooded(make_service: ServiceMaker) -> None:
    """While one address asks for readiness over many connections without pause, creates of another all succeed."""
    async with make_service() as service:
        url = service.workers[0].url
        done = asyncio.Event()

        async def flood() -> int:
            async with httpx.AsyncClient(base_url=url, timeout=HANG_S) as client:
                count = 0
                while not done.is_set():
                    assert (await client.get("/health/ready")).status_code == 200
                    count += 1
                return count

        floods = [asyncio.create_task(flood()) for _ in range(20)]
        transport = httpx.AsyncHTTPTransport(local_address="127.0.0.2")
        async with httpx.AsyncClient(base_url=url, transport=transport, timeout=HANG_S) as modest:
            for number in range(20):
                body = {"url": f"https://example.org/{number}"}
                assert (await modest.post("/api/v1/links", json=body)).status_code == 201
        done.set()
        assert min(await asyncio.gather(*floods)) > 0


def names_in(answer: httpx.Response, inside: re.Pattern[str]) -> list[str]:
    """Returns the names and addresses of the inside that the answer shows."""
    return inside.findall(answer.text + str(answer.headers))


async def test_no_public_answer_names_a_part_of_the_inside(
    make_service: ServiceMaker, cluster: LocalCluster
) -> None:
    """While a shard and Redis are down, no answer without an admin key has a name, host or port of either."""
    ports = [str(server.port) for server in cluster.servers()]
    inside = re.compile(rf"\bdb\d\b|127\.0\.0\.1|\bpostgres|redis\b|\b(?:{'|'.join(ports)})\b", re.IGNORECASE)
    async with make_service(workers=2, SNAPURL_LIMIT_CREATE="none") as service:
        shards = await Shards.connect(service.settings)
        codes = [f"link-{number}" for number in range(400)]
        homes = {code: shards.map.owner(slot_of(code)) for code in codes}
        await shards.close()
        keys = [await service.key("create", "read", "change") for _ in range(8)]
        there = [code for code in codes if homes[code] == "db1"][:6]
        elsewhere = [code for code in codes if homes[code] != "db1"][:3]
        for code in (*there[:3], *elsewhere):
            await service.shorten(alias=code)
        await cluster.shard("db1").stop()
        await cluster.redis.stop()

        for client in (service.client(), *(service.client(key, worker=1) for key in keys)):
            answers = []
            for accept in ("*/*", "text/html"):
                get = [route.path for route in ROUTES if route.method == "GET" and "{" not in route.path]
                get += [f"/{code}" for code in (*there, *elsewhere)]
                get += [f"/api/v1/links/{code}{more}" for code in there for more in ("", "/stats")]
                get += ["/metrics", "/none-such", "/a/b"]
                get = [path for path in get if not path.endswith((".js", ".css"))]
                answers += [await client.get(path, headers={"Accept": accept}) for path in get]
            for code in there[3:]:
                body = {"url": "https://example.org/", "alias": code}
                answers.append(await client.post("/api/v1/links", json=body))
                answers.append(await client.patch(f"/api/v1/links/{code}", json={"title": "t"}))
                answers.append(await client.delete(f"/api/v1/links/{code}"))
            bulk = {"links": [{"url": "https://example.org/", "alias": f"{code}-2"} for code in codes[:50]]}
            answers.append(await client.post("/api/v1/links/bulk", json=bulk))
            answers.append(
                await client.post("/api/v1/links/bulk", json=bulk, headers={"Idempotency-Key": "once"})
            )
            assert any(answer.status_code == 503 for answer in answers)
            assert not [
                (str(answer.request.url), found, answer.text[:300])
                for answer in answers
                if (found := names_in(answer, inside))
            ]
        details = await service.details()
        assert [shard["name"] for shard in details["shards"] if not shard["ok"]] == ["db1"]
        assert not details["redis"]["ok"]
        assert "db1" in service.workers[0].log.read_text()


async def test_the_service_of_another_cluster_is_not_taken_for_ours(
    make_service: ServiceMaker, databases: Databases
) -> None:
    """`snapurl health` is not content with a service that answers on our port for the shards of somebody else."""
    name = f"other_{os.getpid()}"
    await databases.clone_initialised(name)
    try:
        other = databases.settings(name)
        async with make_service() as service:
            port = str(service.workers[0].port)
            ours = await run_program(service.settings, "snapurl", "health", SNAPURL_PORT=port)
            assert (ours.code, ours.text) == (0, "ready\n")
            said = await run_program(other, "snapurl", "health", SNAPURL_PORT=port)
            assert said.code == 1 and "is the service of another cluster" in said.text
            assert said.text.count("\n") == 1
    finally:
        await databases.drop(name)
