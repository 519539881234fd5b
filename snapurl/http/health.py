"""Whether the service lives, whether it can work, and its metrics."""

from __future__ import annotations

import asyncio
import os

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, CollectorRegistry, generate_latest
from prometheus_client.multiprocess import MultiProcessCollector
from sanic import HTTPResponse

from snapurl.http.answers import ready_body
from snapurl.http.call import Call


async def health_live(call: Call) -> HTTPResponse:
    """The process answers; nothing else is asked."""
    return call.answer({"status": "ok"})


async def health_ready(call: Call) -> HTTPResponse:
    """Every shard and Redis are asked now. 503 only if no shard answers: with one, some links still work."""
    shards, redis = await asyncio.gather(call.services.shard_health(), call.services.redis_fault())
    body = ready_body(shards, redis)
    return call.answer(body, 503 if body["status"] == "down" else 200)


async def metrics(call: Call) -> HTTPResponse:
    """The metrics of all workers where they share a directory for them, else of this one."""
    call.request.app.ctx.fast_path.settle()
    registry = REGISTRY
    if os.environ.get("PROMETHEUS_MULTIPROC_DIR"):
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return HTTPResponse(generate_latest(registry), 200, call.headers, CONTENT_TYPE_LATEST)
