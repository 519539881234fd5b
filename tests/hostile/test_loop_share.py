"""Requests that one client sends at once, over many connections: how many of them others have to wait for."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import pytest

from snapurl.http.wire import pace
from snapurl.keys import PlainKey
from tests.hostile.bodies import posted
from tests.integration.http.paths import Side, connected
from tests.integration.http.test_fast_states import (
    KEEPING,
    Open,
    ask,
    loop,
    on_loop,
    open_side,
    ready,
    send,
)
from tests.support.waits import HANG_S

__all__ = ["loop", "open_side"]  # fixtures

CONNECTIONS, PIPELINED = 200, 2
FEW = CONNECTIONS * PIPELINED // 4
LIVE = b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n"


def answered(service: Side) -> float:
    """Returns how many requests have been answered besides redirects."""
    return sum(
        more for name, more in service.counted().items() if name.startswith("snapurl_http_requests_total")
    )


async def asked_again_and_again(connection: socket.socket) -> None:
    while True:
        assert await ask(connection) == KEEPING


@pytest.mark.parametrize(
    "request_bytes",
    [
        LIVE,
        b"GET /api/v1/ring HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /api/v1/not-there HTTP/1.1\r\nHost: x\r\n\r\n",
        posted("/api/v1/links", b"{}", f"X-Api-Key: {PlainKey.random()}"),
    ],
    ids=["live", "no key", "no address", "made-up key"],
)
@on_loop
async def test_others_wait_for_few_requests_of_a_client(
    open_side: Open, request_bytes: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While a client has 400 requests there, within its pace, the loop turns to others after a quarter at most."""
    monkeypatch.setattr(pace, "ANSWERS_PER_S", 1e9)
    limits = {"limit_create": "1/hour", "limit_unauthorized": "1/hour", "anonymous_creation": True}
    async with open_side(**limits) as service, AsyncExitStack() as stack:
        await ready(service)
        await service.converse([request_bytes] * 3)  # from now on the client is over its limits
        modest = await stack.enter_async_context(connected(service.port))
        greedy = [await stack.enter_async_context(connected(service.port)) for _ in range(CONNECTIONS)]
        for connection in (modest, *greedy):
            assert (await ask(connection)) == KEEPING
        first = before = answered(service)
        for connection in greedy:
            await send(connection, request_bytes * PIPELINED)
        redirects = asyncio.create_task(asked_again_and_again(modest))
        stack.callback(redirects.cancel)
        most = 0.0
        async with asyncio.timeout(HANG_S):
            while before - first < CONNECTIONS * PIPELINED:
                await asyncio.sleep(0)  # one iteration of the loop, on which the service runs, too
                now = answered(service)
                most, before = max(most, now - before), now
        assert not redirects.done()
        assert most <= FEW
