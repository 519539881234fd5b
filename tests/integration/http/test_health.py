"""Health checks, metrics and the pages."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ring.slots import slot_of
from snapurl.local.cluster import LocalCluster
from snapurl.redis_client import redis_client
from snapurl.store.cluster.shards import Shards
from tests.integration.http.conftest import ServiceMaker
from tests.integration.http.service import Service
from tests.support.waits import until


async def test_a_healthy_service_says_so(make_service: ServiceMaker) -> None:
    """A healthy service reports that it is live and ready to GET and HEAD without a key."""
    async with make_service() as service:
        anybody = service.client()
        assert (await anybody.get("/health/live")).json() == {"status": "ok"}

        async def well() -> Any:  # as soon as it has subscribed to invalidations
            ready = (await anybody.get("/health/ready")).json()
            return ready if ready["status"] == "ok" else None

        ready = await until(well)
        assert ready["reasons"] == []
        details = await service.details()
        assert details["redis"] == {"ok": True, "detail": "works"}
        assert [(shard["name"], shard["ok"]) for shard in details["shards"]] == [
            (f"db{n}", True) for n in range(4)
        ]
        assert ready["cluster_id"] == details["cluster_id"]
        for path in ("/health/live", "/health/ready", "/", "/docs", "/openapi.json"):
            answer = await anybody.head(path)
            assert (answer.status_code, answer.content) == (200, b"")


async def test_a_redis_that_is_full_is_named_and_nothing_waits_for_it(make_service: ServiceMaker) -> None:
    """A Redis that refuses writes is reported as degraded; creates and redirects keep working."""
    async with make_service() as service, redis_client(service.settings) as redis:
        try:
            await redis.config_set("maxmemory", 1)
            ready = (await service.api.get("/health/ready")).json()
            assert (ready["status"], ready["reasons"]) == ("degraded", ["the shared cache does not work"])
            details = await service.details()
            assert details["redis"] == {"ok": False, "detail": "is full: it has come to its maxmemory"}
            link = await service.shorten()
            assert (await service.api.get(f"/{link['code']}")).status_code == 302
        finally:
            await redis.config_set("maxmemory", 0)


async def test_a_shard_that_is_down_is_named_and_costs_only_its_own_links(
    make_service: ServiceMaker, cluster: LocalCluster
) -> None:
    """A shard that is down is named and fails only its own links; the service recovers when it is back."""
    async with make_service(workers=2) as service:
        shards = await Shards.connect(service.settings)
        links = [await service.shorten(alias=f"link-{number}") for number in range(40)]
        homes = {link["code"]: shards.map.owner(slot_of(link["code"])) for link in links}
        await shards.close()
        cached = next(code for code, home in homes.items() if home == "db1")
        assert (await service.api.get(f"/{cached}")).status_code == 302
        await cluster.shard("db1").stop()

        ready = await service.api.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (200, "degraded")
        assert ready.json()["reasons"] == ["some links are temporarily unavailable"]
        details = await service.details()
        assert [shard["name"] for shard in details["shards"] if not shard["ok"]] == ["db1"]
        assert "127.0.0.1" not in str(details) and "@" not in str(details)

        for code, home in homes.items():
            answer = await service.api.get(f"/api/v1/links/{code}")
            assert answer.status_code == (503 if home == "db1" else 200)
            if home == "db1":
                assert int(answer.headers["retry-after"]) >= 1
            else:
                assert (await service.clients[1].get(f"/{code}")).status_code == 302
        assert (await service.api.get(f"/{cached}")).status_code == 302

        await cluster.shard("db1").start()

        async def well() -> bool:
            answers = [
                await client.get(f"/api/v1/links/{code}") for code in homes for client in service.clients[:2]
            ]
            return all(answer.status_code == 200 for answer in answers)

        await until(well)

        async def is_ready() -> bool:
            return bool((await service.api.get("/health/ready")).json()["status"] == "ok")

        await until(is_ready)


async def test_with_no_shard_at_all_the_service_is_not_ready(
    make_service: ServiceMaker, cluster: LocalCluster
) -> None:
    """Without any shard the service is live but not ready (503), and recovers when the shards are back."""
    async with make_service() as service:
        for name in cluster.dsns:
            await cluster.shard(name).stop()
        ready = await service.api.get("/health/ready")
        assert (ready.status_code, ready.json()["status"]) == (503, "down")
        assert (await service.inside().get("/health/ready")).status_code == 503
        assert ready.headers["content-type"] == "application/json"
        assert (await service.api.get("/health/live")).status_code == 200
        for name in cluster.dsns:
            await cluster.shard(name).start()

        async def well() -> bool:
            return (await service.api.get("/health/ready")).status_code == 200

        await until(well)  # four servers have to start


async def test_metrics_count_what_happened(service: Service) -> None:
    """The metrics count requests by route and status, redirects by outcome, and problems by type."""
    link = await service.shorten()
    await service.api.get(f"/{link['code']}")
    await service.api.get(f"/{link['code']}", headers={"Connection": "close"})  # answered by Sanic
    await service.api.get("/api/v1/links/nobody-has-this")
    text = (await service.inside().get("/metrics")).text
    for pattern in (
        r'snapurl_http_requests_total\{method="POST",route="/api/v1/links",status="201"\} [1-9]',
        r'snapurl_redirects_total\{outcome="redirected"\} [1-9]',
        r'snapurl_problems_total\{slug="not-found"\} [1-9]',
        r'snapurl_http_request_seconds_count\{route="/api/v1/links",status="2xx"\} [1-9]',
        r'snapurl_redirect_seconds_count\{path="sanic"\} [1-9]',
        r'snapurl_pool_wait_seconds_count\{shard="db[0-3]"\} [1-9]',
        r'snapurl_statement_seconds_count\{shard="db[0-3]"\} [1-9]',
    ):
        assert re.search(pattern, text), pattern


async def test_metrics_add_up_over_workers(make_service: ServiceMaker, tmp_path: Path) -> None:
    """With a shared directory each worker exports the metrics of all workers."""
    directory = tmp_path / "metrics"
    directory.mkdir()
    async with make_service(workers=2, PROMETHEUS_MULTIPROC_DIR=str(directory)) as service:
        for number in range(6):
            await service.clients[number % 2].get("/nobody-has-this")
        text = (await service.inside().get("/metrics")).text
        assert 'snapurl_redirects_total{outcome="missing"} 6.0' in text


async def test_the_pages(service: Service) -> None:
    """The start page, docs and schema are served, and so are the files that browsers and crawlers request."""
    anybody = service.client()
    home = await anybody.get("/")
    assert home.json()["name"] == "SnapURL" and 'rel="service-desc"' in home.headers["link"]
    in_browser = await anybody.get("/", headers={"Accept": "text/html"})
    assert (in_browser.status_code, in_browser.headers["location"]) == (303, "/ui")
    assert "content-type" not in in_browser.headers
    docs = await anybody.get("/docs")
    assert docs.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in docs.headers["content-security-policy"]
    for name in re.findall(r'src="([^"]+)"', docs.text):
        script = await anybody.get(f"/{name}")
        assert script.headers["content-type"].startswith("text/javascript")
        assert script.headers["content-encoding"] == "gzip"
        again = await anybody.get(f"/{name}", headers={"If-None-Match": script.headers["etag"]})
        assert again.status_code == 304
    schema = (await anybody.get("/openapi.json")).json()
    assert schema["openapi"].startswith("3.1") and "/{code}" in schema["paths"]
    assert (await anybody.get("/robots.txt")).text.startswith("User-agent: *")
    icon = await anybody.get("/favicon.ico")
    assert icon.headers["content-type"] == "image/svg+xml" and icon.text.startswith("<svg")
