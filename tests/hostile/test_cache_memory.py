"""Links with long targets against the memory of the workers and of Redis."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest
from redis.asyncio import Redis

from snapurl.config import Settings
from snapurl.local.access import LoopbackAccess
from snapurl.local.cluster import LocalCluster
from snapurl.local.free_ports import free_port
from snapurl.local.redis_server import RedisServer
from tests.integration.http.paths import LAST
from tests.integration.http.service import Service, running
from tests.integration.http.test_clicks import clicks_of, consuming
from tests.support.waits import until

MIB = 2**20
MAXMEMORY = 12 * MIB
L1_BYTES = MIB
LARGE, SMALL = (500, 8_000), (5_000, 1_800)  # links, characters of their targets
CLIENTS = 16


@pytest.fixture
async def small_redis(cluster: LocalCluster, tmp_path: Path) -> AsyncIterator[Redis]:
    """A Redis of its own that may use MAXMEMORY and evicts nothing."""
    server = RedisServer(
        tmp_path / "redis",
        binary=cluster.redis.binary,
        access=LoopbackAccess("x"),
        port=free_port(set()),
        durable=False,
    )
    await server.start()
    async with Redis.from_url(server.url()) as client:
        await client.config_set("maxmemory", MAXMEMORY)
        yield client
    await server.stop()


async def make_links(service: Service, count: int, chars: int) -> list[str]:
    """Creates links whose targets are that long. Returns their codes."""
    made: list[str] = []
    for first in range(0, count, 250):
        links = [{"url": f"https://example.org/{first + n}/".ljust(chars, "x")} for n in range(250)]
        answer = await service.api.post("/api/v1/links/bulk", json={"links": links})
        assert answer.status_code == 200
        made += [each["link"]["code"] for each in answer.json()["results"]]
    return made


async def visit(service: Service, codes: list[str]) -> None:
    """Follows each link once, from several clients at a time, each of which sends all of its requests at once."""

    async def follow(own: list[str]) -> None:
        asked = [f"GET /{code} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for code in own]
        answers = await service.workers[0].say(b"".join(asked), LAST)
        assert answers.count(b"HTTP/1.1 302 ") == len(own)

    await asyncio.gather(*(follow(codes[first::CLIENTS]) for first in range(CLIENTS)))


async def metric(service: Service, name: str) -> float:
    text = (await service.inside().get("/metrics")).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def test_long_links_fill_neither_the_workers_nor_redis(
    small_redis: Redis, make_settings: Callable[..., Settings], tmp_path: Path
) -> None:
    """Visits to thousands of links with long targets leave the worker's cache within its bytes and half of Redis
    free; every visit is counted, and an edit is seen."""
    url = "redis://:x@127.0.0.1:{}/0".format(small_redis.connection_pool.connection_kwargs["port"])
    settings = make_settings(redis_url=url)
    async with running(settings, tmp_path, SNAPURL_L1_BYTES=str(L1_BYTES)) as service, consuming(service):
        codes = [code for kind in (LARGE, SMALL) for code in await make_links(service, *kind)]
        await visit(service, codes)
        assert (await small_redis.info("memory"))["used_memory"] < 0.6 * MAXMEMORY
        await until(lambda: metric(service, 'snapurl_l2_left_out_total{reason="full"}'))
        assert await metric(service, 'snapurl_l2_left_out_total{reason="large"}') >= LARGE[0]
        assert 0 < await metric(service, "snapurl_l1_bytes") <= L1_BYTES

        for code in codes[:3] + codes[-3:]:
            edited = await service.api.patch(f"/api/v1/links/{code}", json={"url": "https://new.example/"})
            assert edited.status_code == 200
            assert (await service.client().get(f"/{code}")).headers["location"] == "https://new.example/"

        async def all_counted() -> bool:
            first_and_last = [await clicks_of(service, code) for code in (*codes[:3], *codes[-3:])]
            return first_and_last == [2] * 6 and await metric(service, "snapurl_clicks_held") == 0

        await until(all_counted)
        assert await metric(service, "snapurl_clicks_shipped_total") == len(codes) + 6
