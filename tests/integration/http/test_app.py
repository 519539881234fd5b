"""The app in the test's process: several at once, time-outs, and what the response to a bug reveals."""

from __future__ import annotations

import asyncio
import json
import logging
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import Any, cast

import httpx
import pytest

from snapurl.app import App, create_app
from snapurl.config import Settings
from snapurl.run.worker import finish, start
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.support.waits import HANG_S


@asynccontextmanager
async def served(settings: Settings, **config: object) -> AsyncIterator[tuple[App, httpx.AsyncClient]]:
    """Yields the app, started as a worker starts it, and a client."""
    await migrate_all(settings)
    await ensure_cluster(settings)
    app = create_app(settings)
    app.config.update(config)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = await start(app, listener)
        try:
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            async with httpx.AsyncClient(base_url=url) as client:
                yield app, client
        finally:
            await finish(app, server)


async def test_several_apps_can_live_in_one_process(make_settings: Callable[..., Settings]) -> None:
    """Two services with different settings work in one process: no state is in module globals."""
    one = make_settings(base_url="https://one.example", anonymous_creation=True)
    two = make_settings(base_url="https://two.example", anonymous_creation=False)
    body = {"url": "https://example.org/"}
    async with served(one) as (_, first), served(two) as (_, second):
        created = await first.post("/api/v1/links", json=body)
        assert created.json()["short_url"].startswith("https://one.example/")
        assert (await second.post("/api/v1/links", json=body)).status_code == 401
        assert (await second.get("/openapi.json")).json()["servers"] == [{"url": "https://two.example"}]


async def test_a_bug_is_a_500_that_tells_nothing_but_is_logged_with_its_request(
    settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug is a 500 that reveals nothing; its stack trace is logged with the request id of the response."""
    async with served(settings) as (app, client):
        # No bug is known, so a missing attribute causes the error.
        app.ctx.services = replace(app.ctx.services, limiter=cast(Any, None), readiness=cast(Any, None))
        for path in ("/health/ready", "/some-code"):
            with caplog.at_level(logging.ERROR, "snapurl.http"):
                answer = await client.get(path, headers={"X-Request-Id": "bug-1"})
            assert answer.status_code == 500
            assert answer.json() == {
                "type": "urn:snapurl:problem:internal",
                "title": "Something went wrong on our side",
                "status": 500,
                "detail": "Something went wrong on our side",
                "request_id": "bug-1",
            }
            record = caplog.records[-1]
            assert record.exc_info and record.__dict__["request_id"] == "bug-1"
        page = await client.get("/some-code", headers={"Accept": "text/html"})
        assert page.status_code == 500 and "NoneType" not in page.text


async def test_a_request_that_arrives_as_the_worker_stops_is_answered(settings: Settings) -> None:
    """A request received before the worker stops is answered before its connection is closed."""
    await migrate_all(settings)
    await ensure_cluster(settings)
    app = create_app(settings)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        server = await start(app, listener)
        reader, writer = await asyncio.open_connection(*listener.getsockname())
        writer.write(b"GET /health/live HTTP/1.1\r\nhost: s\r\n\r\n")
        await reader.readuntil(b'"ok"}')
        (connection,) = server.connections
        connection.data_received(b"GET /health/live HTTP/1.1\r\nhost: s\r\n\r\n")
        await finish(app, server)
        answer = await asyncio.wait_for(reader.read(), HANG_S)
        assert answer.startswith(b"HTTP/1.1 200 ")
        writer.close()


async def test_a_head_that_does_not_arrive_is_408(settings: Settings) -> None:
    """A head that does not arrive in time gets a 408 problem, and the connection is closed."""
    async with served(settings, REQUEST_TIMEOUT=0.2) as (_, client):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(b"GET /health/live HTTP/1.1\r\nhost:")
        answer = await asyncio.wait_for(reader.read(), HANG_S)
        assert answer.startswith(b"HTTP/1.1 408 ") and b"connection: close" in answer
        problem = json.loads(answer.partition(b"\r\n\r\n")[2])
        assert problem["type"] == "urn:snapurl:problem:request-timeout"
        writer.close()


async def test_a_body_that_does_not_arrive_is_503(settings: Settings) -> None:
    """A body that does not arrive in time gets 503, and nothing is created."""
    async with served(settings.model_copy(update={"anonymous_creation": True}), RESPONSE_TIMEOUT=0.2) as (
        _,
        client,
    ):
        reader, writer = await asyncio.open_connection("127.0.0.1", client.base_url.port)
        writer.write(
            b"POST /api/v1/links HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
            b'content-length: 99\r\n\r\n{"url"'
        )
        answer = await asyncio.wait_for(reader.read(), HANG_S)
        assert answer.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in answer
        writer.close()
