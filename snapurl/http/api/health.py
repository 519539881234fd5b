"""Handlers of liveness, readiness and metrics."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

from prometheus_client import CONTENT_TYPE_LATEST, REGISTRY, generate_latest
from sanic import HTTPResponse

from snapurl.errors import NotFound, Unavailable
from snapurl.http.context import RequestContext
from snapurl.http.rate_limits import FORWARDED, FORWARDED_FOR
from snapurl.http.schema.responses import ready_body
from snapurl.telemetry.metrics import flush_timings
from snapurl.telemetry.multiprocess import collect


async def health_live(call: RequestContext) -> HTTPResponse:
    """Answers as long as the process runs; contacts nothing else. 503 when the service is about to stop."""
    _refuse_if_leaving(call)
    return call.json_response({"status": "ok"})


async def health_ready(call: RequestContext) -> HTTPResponse:
    """Checks every shard and Redis. Answers 503 only if no shard does: with one shard up, some links still work."""
    _refuse_if_leaving(call)
    shards, redis = await asyncio.gather(call.services.shard_health(), call.services.redis_fault())
    body = ready_body(shards, redis)
    return call.json_response(body, 503 if body["status"] == "down" else 200)


def _refuse_if_leaving(call: RequestContext) -> None:
    if call.request.app.ctx.is_leaving:
        raise Unavailable("this replica is about to stop")


async def metrics(call: RequestContext) -> HTTPResponse:
    """Returns the metrics of all workers if they share a directory for them, else those of this worker.

    They are not public: a request that came through a trusted proxy gets 404.
    """
    headers, clients = call.request.headers, call.request.app.ctx.clients
    if (FORWARDED_FOR in headers or FORWARDED in headers) and clients.is_proxy(call.request.ip):
        raise NotFound("there is nothing at this address")
    call.request.app.ctx.fast_path.flush()
    flush_timings()
    shared = os.environ.get("PROMETHEUS_MULTIPROC_DIR")
    if shared:
        text = await asyncio.to_thread(collect, Path(shared))
    else:
        text = generate_latest(REGISTRY)
    return HTTPResponse(text, 200, call.headers, CONTENT_TYPE_LATEST)
