"""Readiness says when clicks are counted late."""

from __future__ import annotations

import time
from functools import partial

import httpx
from redis.asyncio import Redis

from snapurl.clicks.stream import name_key
from snapurl.model import CLICKS_LATE_S
from snapurl.store.cluster.shards import read_topology
from tests.integration.http.conftest import ServiceMaker, make_service
from tests.integration.http.test_clicks import consuming
from tests.support.waits import until

__all__ = ["make_service"]


async def status(client: httpx.AsyncClient) -> str:
    answer = await client.get("/health/ready")
    assert answer.status_code == 200
    return str(answer.json()["status"])


async def is_status(client: httpx.AsyncClient, expected: str) -> bool:
    return await status(client) == expected


async def test_readiness_is_degraded_while_clicks_are_late(make_service: ServiceMaker) -> None:
    """A click that has waited for longer than the bound makes the service `degraded`, still with 200; once it is
    counted the service is `ok` again."""
    async with make_service() as service:
        await until(partial(is_status, service.api, "ok"))
        namespace = (await read_topology(service.settings)).cluster_id
        async with Redis.from_url(service.settings.redis_url.get_secret_value()) as redis:
            await redis.set(name_key(namespace), "late")
            old_ms = int((time.time() - CLICKS_LATE_S - 10) * 1000)
            await redis.xadd("late", {"clicks": '{"2026-05-01":{"a":1}}'}, id=f"{old_ms}-0")
        await until(partial(is_status, service.api, "degraded"))
        async with consuming(service):
            await until(partial(is_status, service.api, "ok"))
