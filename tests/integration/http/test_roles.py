"""The HTTP service and the click consumer, connected as a user with the service's role."""

from __future__ import annotations

import asyncio
import signal
import sys
import uuid
from pathlib import Path

import httpx
import pytest

from snapurl.config import Settings
from snapurl.local.free_ports import free_port
from snapurl.run.healthcheck import http_status, own_address
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.integration.http.service import running
from tests.integration.http.test_clicks import clicks_of, consuming
from tests.support.roles import environ_of, make_login, run_program
from tests.support.waits import until


@pytest.fixture
async def as_service(settings: Settings) -> Settings:
    """Returns settings of an initialised cluster for a user with only the rights of the service."""
    await migrate_all(settings)
    await ensure_cluster(settings)
    return await make_login(settings, "service_login", "snapurl_service")


async def test_everything_that_the_service_does(as_service: Settings, tmp_path: Path) -> None:
    """The service's role is sufficient for its start, for keys, links, bulk, retries, redirects and clicks."""
    async with running(as_service, tmp_path) as service, consuming(service):
        api = service.api
        link = await service.shorten(title="one", tags=["x"])
        alias = f"alias-{uuid.uuid4().hex[:8]}"
        await service.shorten(alias=alias)
        items = [{"url": f"https://example.org/{n}"} for n in range(50)]
        results = (await api.post("/api/v1/links/bulk", json={"links": items})).json()["results"]
        assert {result["status"] for result in results} == {201}
        headers = {"Idempotency-Key": f"key-{uuid.uuid4()}"}
        answers = [
            await api.post("/api/v1/links", json={"url": "https://example.org/"}, headers=headers)
            for _ in range(2)
        ]
        assert answers[0].status_code == 201 and answers[0].text == answers[1].text
        bulk = [
            await api.post("/api/v1/links/bulk", json={"links": items[:3]}, headers=headers) for _ in range(2)
        ]
        assert bulk[0].status_code == 200 and bulk[0].text == bulk[1].text

        path = f"/api/v1/links/{link['code']}"
        assert (await api.patch(path, json={"title": "two"})).json()["title"] == "two"
        assert (await api.get(f"/{link['code']}")).status_code == 302
        assert await until(lambda: clicks_of(service, link["code"])) == 1
        assert (await api.delete(f"/api/v1/links/{alias}")).status_code == 204
        assert (await api.get(f"/{alias}")).status_code == 410
        assert len((await api.get("/api/v1/links?limit=100")).json()["links"]) == 55
        assert (await api.get("/health/ready")).json()["status"] == "ok"

        listed = await run_program(as_service, "snapurl", "keys", "list")
        assert listed.code == 0 and "admin" in listed.text
        revoked = await run_program(as_service, "snapurl", "keys", "revoke", service.admin_key.split("_")[1])
        assert revoked.code == 0, revoked.text


async def test_serve_starts_on_current_tables_without_rights_to_them(as_service: Settings) -> None:
    """SNAPURL_MIGRATE_ON_START needs no rights on the schema while no migration is missing."""
    port = free_port(set())
    found = as_service.model_copy(update={"port": port})
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "snapurl", "serve"),
        env=environ_of(as_service, SNAPURL_PORT=str(port), SNAPURL_WORKERS="1"),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )

    async def ready_or_ended() -> bool:
        return process.returncode is not None or await http_status(own_address(found), "/health/ready") == 200

    try:
        await until(ready_or_ended)
        assert process.returncode is None
        async with httpx.AsyncClient() as client:

            async def is_ok() -> bool:  # as soon as it has subscribed to invalidations
                answer = await client.get(f"http://127.0.0.1:{port}/health/ready")
                return bool(answer.json()["status"] == "ok")

            await until(is_ok)
        assert (await run_program(found, "snapurl", "health", SNAPURL_PORT=str(port))).text == "ready\n"
    finally:
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()
