"""Handlers of liveness and readiness."""

from __future__ import annotations

from sanic import HTTPResponse

from snapurl.errors import Unavailable
from snapurl.http.context import RequestContext
from snapurl.http.schema.responses import ready_body


async def health_live(call: RequestContext) -> HTTPResponse:
    """Answers as long as the process runs; contacts nothing else. 503 when the service is about to stop."""
    _refuse_if_leaving(call)
    return call.json_response({"status": "ok"})


async def health_ready(call: RequestContext) -> HTTPResponse:
    """Says whether shards and Redis answer. 503 only if no shard does: with one shard up, some links still work."""
    _refuse_if_leaving(call)
    body = ready_body(await call.services.readiness())
    return call.json_response(body, 503 if body["status"] == "down" else 200)


def _refuse_if_leaving(call: RequestContext) -> None:
    if call.request.app.ctx.is_leaving:
        raise Unavailable("this replica is about to stop", is_public=True)
