"""`python -m benchmarks.peers.sanic_plain PORT [REDIS_URL]`: the minimum that Sanic needs for a redirect.

Without Redis the response is constant. With it, each request sends one GET of `plain:CODE`. Nothing is counted,
checked or logged.
"""

from __future__ import annotations

import sys
from typing import Any

from redis.asyncio import Redis
from sanic import HTTPResponse, Request, Sanic
from sanic.response import empty, redirect

PREFIX = "plain:"
TARGET = "https://www.example.org/articles/2026/n0000000?utm_source=benchmark"


def make_app(redis_url: str | None) -> Any:
    """Returns a Sanic app for one process."""
    app: Any = Sanic("plain", configure_logging=False)
    app.config.ACCESS_LOG = False

    async def from_memory(request: Request, code: str) -> HTTPResponse:
        return redirect(TARGET)

    async def from_redis(request: Request, code: str) -> HTTPResponse:
        url = await app.ctx.redis.get(PREFIX + code)
        return redirect(url) if url else empty(404)

    async def connect(app: Any) -> None:
        app.ctx.redis = Redis.from_url(str(redis_url), decode_responses=True)

    if redis_url:
        app.before_server_start(connect)
    app.add_route(from_redis if redis_url else from_memory, "/<code:str>")
    return app


if __name__ == "__main__":
    make_app(sys.argv[2] if len(sys.argv) > 2 else None).run(
        host="127.0.0.1", port=int(sys.argv[1]), single_process=True, access_log=False, motd=False
    )
