"""Creates on both paths: the fair queue, limits, clients that disconnect, a worker that shuts down.

Each test runs once per path.
"""

from __future__ import annotations

import asyncio
import json

from snapurl.http.wire import fair_queue
from snapurl.telemetry.metrics import CREATES_FAST_PATH
from snapurl.telemetry.metrics_port import metrics
from tests.integration.http.conversations import CREATE, URL, A, post
from tests.integration.http.paths import Side, connected, count, read_all
from tests.integration.http.test_fast_states import (
    BOTH,
    KEEPING,
    Open,
    loop,
    on_loop,
    open_side,
    ready,
    receive,
    send,
)
from tests.support.clicks import taken
from tests.support.waits import HANG_S, until

__all__ = ["loop", "open_side"]  # fixtures

CLIENT = "127.0.0.1"


def take_all_permits(service: Side) -> None:
    """Acquires all permits of this client, so that its creates wait."""
    for _ in range(fair_queue.CLIENT_PERMITS_MAX):
        assert service.app.ctx.fair_queue.try_acquire(CLIENT)


def release_permit(service: Side) -> None:
    service.app.ctx.fair_queue.release(CLIENT)


def waits(service: Side) -> bool:
    return CLIENT in service.app.ctx.fair_queue._waiters


@BOTH
@on_loop
async def test_what_comes_while_a_link_is_created_is_answered_after_it(
    open_side: Open, is_fast: bool
) -> None:
    """Requests that arrive during a create are answered after it, in order; reading is paused meanwhile."""
    async with open_side(is_fast, anonymous_creation=True) as service, connected(service.port) as connection:
        await ready(service)
        take_all_permits(service)
        await send(connection, CREATE + A)
        await until(lambda: waits(service))
        await send(connection, A + CREATE)
        await asyncio.sleep(0.05)
        assert taken(service.app.ctx.services.tally) == {}
        release_permit(service)
        assert (await receive(connection, 12)) == b"HTTP/1.1 201"
        await send(connection, b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        rest = await read_all(connection)
        assert [part[:3] for part in rest.split(b"HTTP/1.1 ")[1:]] == [b"302", b"302", b"201", b"200"]


@BOTH
@on_loop
async def test_a_create_that_waits_too_long_for_its_turn_is_503(open_side: Open, is_fast: bool) -> None:
    """A create that waits too long in the fair queue gets 503 with Retry-After; the connection stays open."""
    async with open_side(is_fast, anonymous_creation=True) as service:
        await ready(service)
        take_all_permits(service)
        async with asyncio.timeout(HANG_S):
            exchange = await service.converse([CREATE, A])
        assert [part[:3] for part in exchange.answers.split(b"HTTP/1.1 ")[1:]] == [b"503", b"302", b"200"]
        assert b"\r\nretry-after: 1\r\n" in exchange.answers
        assert not waits(service)


@BOTH
@on_loop
async def test_a_client_that_goes_away_leaves_no_create_behind(open_side: Open, is_fast: bool) -> None:
    """When its client disconnects, a create in the fair queue is cancelled, and counted as on Sanic's path."""
    async with open_side(is_fast, anonymous_creation=True) as service:
        await ready(service)
        before = service.counted()
        take_all_permits(service)
        async with connected(service.port) as connection:
            await send(connection, CREATE + A)
            await until(lambda: waits(service))
        await until(lambda: not service.server.connections and not waits(service))
        for _ in range(fair_queue.CLIENT_PERMITS_MAX):
            release_permit(service)
        assert service.app.ctx.fair_queue.try_acquire(CLIENT)
        release_permit(service)
        counted = {name: now - before.get(name, 0) for name, now in service.counted().items()}
        assert {name: more for name, more in counted.items() if more} == {
            "snapurl_http_requests_total[('method', 'POST'), ('route', 'other'), ('status', '408')]": 1,
            "snapurl_problems_total[('slug', 'request-timeout')]": 1,
        }
        assert taken(service.app.ctx.services.tally) == {}


@BOTH
@on_loop
async def test_a_worker_that_ends_answers_the_create_in_hand(open_side: Open, is_fast: bool) -> None:
    """A worker that shuts down answers a create in progress with `Connection: close`, then disconnects."""
    async with open_side(is_fast, anonymous_creation=True) as service, connected(service.port) as connection:
        await ready(service)
        take_all_permits(service)
        await send(connection, CREATE + A)
        await until(lambda: waits(service))
        ending = asyncio.create_task(service.finish())
        await asyncio.sleep(0.1)
        release_permit(service)
        answer = await read_all(connection)
        assert answer.startswith(b"HTTP/1.1 201 Created\r\n")
        assert b"\r\nconnection: close\r\n" in answer
        assert answer.count(b"HTTP/1.1 ") == 1
        await ending


@BOTH
@on_loop
async def test_creates_are_limited_alike(open_side: Open, is_fast: bool) -> None:
    """Each response to a create has the remaining limit; a create above the limit gets 429."""
    limits = {"anonymous_creation": True, "limit_create": "2/hour"}
    async with open_side(is_fast, **limits) as service:
        await ready(service)
        exchange = await service.converse([CREATE, CREATE + CREATE + A])
        answers = exchange.answers.split(b"HTTP/1.1 ")[1:]
        assert [part[:3] for part in answers] == [b"201", b"201", b"429", b"302", b"200"]
        assert [
            b'\r\nratelimit: "create";r=%d;' % left in answers[n] for n, left in enumerate((1, 0, 0))
        ] == [True] * 3
        assert b"\r\nretry-after: " in answers[2]
        assert exchange.fast_answers == (4 if is_fast else 0)


@BOTH
@on_loop
async def test_bodies_take_room_alike(open_side: Open, is_fast: bool) -> None:
    """When the memory for bodies is used up, a create gets 503, and its reservation is released."""
    async with open_side(is_fast, anonymous_creation=True, body_bytes_max=len(URL)) as service:
        await ready(service)
        budget = service.app.ctx.body_budget
        left = budget._left
        assert budget.reserve(left - len(URL) + 1)
        full = await service.converse([CREATE, A])
        assert [part[:3] for part in full.answers.split(b"HTTP/1.1 ")[1:]] == [b"503", b"302", b"200"]
        budget.release(1)
        exchange = await service.converse([CREATE, CREATE, post(URL + b" "), A])
        assert [part[:3] for part in exchange.answers.split(b"HTTP/1.1 ")[1:]] == [
            b"201",
            b"201",
            b"413",
            b"302",
            b"200",
        ]
        assert budget._left == len(URL)


@on_loop
async def test_creates_on_the_fast_path_are_counted(open_side: Open) -> None:
    """A scrape of the metrics includes all creates that the fast path has answered."""
    async with open_side(anonymous_creation=True) as service:
        await ready(service)
        service.app.ctx.fast_path.flush()
        before = count(CREATES_FAST_PATH)
        async with connected(service.port) as connection:
            await send(
                connection, CREATE + b"GET /health/live HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
            )
            text = await read_all(connection)
        scraped = await metrics(service.app.ctx.fast_path.flush)
        assert (
            json.loads(text.split(b"\r\n\r\n")[1].split(b"HTTP/1.1")[0])["url"] == "https://example.org/a?b=c"
        )
        assert f"\nsnapurl_creates_ahead_total {before + 1:.1f}\n".encode() in scraped.body
        assert KEEPING not in text
