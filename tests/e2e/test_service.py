"""End-to-end guarantees of the service while parts of it are stopped and killed."""

from __future__ import annotations

import asyncio
import random
import signal
from collections import Counter
from functools import partial

import httpx

from ring.slots import slot_of
from snapurl.local.cluster import LocalCluster
from snapurl.model import NewLink
from tests.integration.clicks.test_clicks import consumer, seed, start_consumer, until_counted
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service, Worker
from tests.integration.store.conftest import NewLinkMaker, Store, new_link
from tests.support.waits import until

__all__ = ["new_link", "seed"]

CODES = [f"link{n}" for n in range(200)]


class Visitor:
    """A browser with one keep-alive connection, which reconnects when a worker ends."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._streams: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None

    async def follow(self, code: str) -> None:
        """Follows a link once, with retries: a request without a response has not counted a click."""
        for _ in range(200):
            try:
                if self._streams is None:
                    self._streams = await asyncio.open_connection("127.0.0.1", self._worker.port)
                reader, writer = self._streams
                writer.write(f"GET /{code} HTTP/1.1\r\nHost: s\r\n\r\n".encode())
                head = await reader.readuntil(b"\r\n\r\n")
            except (OSError, asyncio.IncompleteReadError):
                self._streams = None
                await asyncio.sleep(0.02)
                continue
            assert head.startswith(b"HTTP/1.1 302 "), head
            if b"connection: close" in head.lower():
                self._streams = None
            return
        raise AssertionError("no worker answers")


async def links(store: Store, make: NewLinkMaker) -> None:
    made: list[NewLink] = [make(code) for code in CODES]
    await store.links.create_many(made)


async def test_20_000_clicks_over_http_count_exactly(
    make_service: ServiceMaker,
    store: Store,
    cluster: LocalCluster,
    new_link: NewLinkMaker,
    seed: int,
) -> None:
    """20,000 redirects count as 20,000 clicks although a worker, the consumer and Redis restart."""
    rng = random.Random(seed)
    await links(store, new_link)
    expected: Counter[str] = Counter()
    async with make_service(workers=2) as service:
        process = await start_consumer(service.settings)
        visitors = [Visitor(worker) for worker in service.workers for _ in range(4)]

        async def visit(visitor: Visitor, codes: list[str]) -> None:
            for code in codes:
                await visitor.follow(code)
                expected[code] += 1

        for round_ in range(4):
            work = [visit(visitor, rng.choices(CODES, k=625)) for visitor in visitors]
            visiting = asyncio.gather(*work)
            await asyncio.sleep(0.2)
            if round_ == 1:
                await service.workers[0].stop(signal.SIGTERM)
                await service.workers[0].start()
            if round_ == 2:
                process.kill()
                await process.wait()
                process = await start_consumer(service.settings)
            if round_ == 3:
                await cluster.redis.kill()
                await asyncio.sleep(0.2)
                await cluster.redis.start()
            await visiting
        assert expected.total() == 20_000
        await until_counted(store, expected)
        process.terminate()
        await process.wait()


async def test_an_edit_is_seen_by_every_worker(make_service: ServiceMaker) -> None:
    """Right after an edit, every worker that has cached the link redirects to its new address."""
    async with make_service(workers=3) as service:
        link = await service.shorten("https://old.example/", alias="edited")
        for number in range(20):
            for client in service.clients:
                await client.get("/edited")
            address = f"https://new.example/{number}"
            answer = await service.api.patch(f"/api/v1/links/{link['code']}", json={"url": address})
            assert answer.status_code == 200
            for client in service.clients:
                await until(partial(_leads_to, client, address))


async def _leads_to(client: httpx.AsyncClient, address: str) -> bool:
    return (await client.get("/edited")).headers["location"] == address


async def test_a_stopped_shard_costs_only_what_is_in_no_cache(
    make_service: ServiceMaker, store: Store, cluster: LocalCluster, new_link: NewLinkMaker
) -> None:
    """With db2 stopped, its cached and all other links redirect, the metrics port names it, and it recovers."""
    await links(store, new_link)
    at_db2 = [code for code in CODES if store.shards.map.owner(slot_of(code)) == "db2"]
    elsewhere = next(code for code in CODES if code not in at_db2)
    cached, cold = at_db2[:2]
    async with make_service(workers=1) as service, consumer(service.settings):
        while store.shards.map.owner(slot_of(str(service.admin_key).split("_")[1])) == "db2":
            service.admin_key = await service.key("admin")  # it could not be looked up while db2 is down
        service.api.headers["X-Api-Key"] = str(service.admin_key)
        assert (await service.api.get(f"/{cached}")).status_code == 302
        await cluster.shard("db2").kill()
        try:
            ready = (await service.api.get("/health/ready")).json()
            assert (ready["status"], len(ready["reasons"])) == ("degraded", 1)
            shards = (await service.details())["shards"]
            assert [shard["name"] for shard in shards if not shard["ok"]] == ["db2"]
            assert (await service.api.get(f"/{cached}")).status_code == 302
            refused = await service.api.get(f"/{cold}")
            assert refused.status_code == 503
            assert refused.headers["retry-after"]
            assert (await service.api.get(f"/{elsewhere}")).status_code == 302
            assert (await service.api.get(f"/api/v1/links/{elsewhere}")).status_code == 200
            statuses = {await _create(service, f"new{n}") for n in range(20)}
            assert statuses == {201, 503}
        finally:
            await cluster.shard("db2").start()
        await until(lambda: _is_ready(service))
        assert (await service.api.get(f"/{cold}")).status_code == 302
        assert await _create(service, "after") == 201
        await until_counted(store, Counter({cached: 2, elsewhere: 1, cold: 1}))


async def _create(service: Service, alias: str) -> int:
    answer = await service.api.post("/api/v1/links", json={"url": "https://example.org/", "alias": alias})
    if answer.status_code == 503:
        assert "db2" not in answer.text
    return answer.status_code


async def _is_ready(service: Service) -> bool:
    ready = (await service.api.get("/health/ready")).json()
    return bool(ready["status"] == "ok")
