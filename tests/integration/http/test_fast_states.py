"""The fast path over time: slow clients, links that change, limits, time-outs, a worker that shuts down.

Tests of behaviour that both paths share run once per path.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
import socket
import time
from collections.abc import Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, suppress
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any

import pytest
from pydantic import SecretStr

from snapurl.config import Settings
from snapurl.http.fastpath import protocol
from snapurl.http.rate_limits import SCAN_FACTOR
from snapurl.http.redirect import redirect_bytes
from snapurl.model import LinkPatch
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from snapurl.telemetry.metrics import REDIRECTS_FAST_PATH
from snapurl.telemetry.metrics_port import metrics
from tests.integration.http.conversations import A, head
from tests.integration.http.paths import DATE, Loop, Side, connected, count, read_all, side, undated
from tests.support.clicks import taken
from tests.support.waits import HANG_S, until

URL = "https://example.org/"
KEEPING, CLOSING = (redirect_bytes(URL, 302, DATE, keep_alive=keep) for keep in (True, False))
NONE = head(target=b"/fs-none")
LONG_URL = URL + "x" * 8_000
LONG = head(target=b"/fs-long")
LONG_ANSWER = redirect_bytes(LONG_URL, 302, DATE, keep_alive=True)

WRITE_BYTES_MAX = 65_536  # the buffer of Sanic's transports, above which they pause writing
PACKET_BYTES_MAX = 262_144  # the most that uvloop reads at once

Open = Callable[..., AbstractAsyncContextManager[Side]]
BOTH = pytest.mark.parametrize("is_fast", [True, False], ids=["fast", "slow"])


@pytest.fixture(scope="module")
def loop(shared_settings: Settings) -> Iterator[Loop]:
    """Yields the kind of loop that workers run on. The shards are initialised."""
    loop = Loop()
    loop.run(migrate_all(shared_settings))
    loop.run(ensure_cluster(shared_settings))
    yield loop
    loop.close()


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Runs a test on `loop`, services and clients together."""

    @wraps(test)
    def run(loop: Loop, **fixtures: Any) -> None:
        loop.run(test(**fixtures))

    own = inspect.signature(test)
    first = inspect.Parameter("loop", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    run.__signature__ = own.replace(parameters=[first, *own.parameters.values()])  # type: ignore[attr-defined]
    return run


@pytest.fixture
def open_side(shared_settings: Settings, redis_url: str) -> Open:
    """Returns a factory of services on shared shards and an empty Redis."""

    def open_side(is_fast: bool = True, sanic: dict[str, Any] | None = None, **settings: Any) -> Any:
        update = {"fast_path": is_fast, "redis_url": SecretStr(redis_url), **settings}
        return side(shared_settings.model_copy(update=update), **(sanic or {}))

    return open_side


async def ready(service: Side) -> Side:
    """Loads the links of these tests into L1, and drops all clicks counted so far."""
    for code, url in (("fp-a", URL), ("fs-long", LONG_URL)):
        if await service.app.ctx.services.cache.resolve(code) is None:
            await service.create(code, url)
    await service.warm("fp-a", "fs-long")
    service.app.ctx.services.tally.take()
    return service


async def send(connection: socket.socket, data: bytes) -> None:
    await asyncio.get_running_loop().sock_sendall(connection, data)


async def receive(connection: socket.socket, length: int) -> bytes:
    """Reads `length` bytes, fewer only if the connection ends."""
    received = bytearray()
    async with asyncio.timeout(HANG_S):
        while len(received) < length:
            chunk = await asyncio.get_running_loop().sock_recv(connection, length - len(received))
            if not chunk:
                break
            received += chunk
    return undated(bytes(received))


async def ask(connection: socket.socket, request: bytes = A, length: int = len(KEEPING)) -> bytes:
    """Sends `request` and reads `length` bytes of the responses."""
    await send(connection, request)
    return await receive(connection, length)


# -- slow clients --------------------------------------------------------------------------------------------


@BOTH
@on_loop
async def test_a_client_that_does_not_read_is_not_read_from(open_side: Open, is_fast: bool) -> None:
    """The buffer for a client that does not read is bounded; once it reads, it gets all responses, all counted."""
    requests = 1_000
    async with open_side(is_fast) as service, connected(service.port, receive_bytes=4_096) as connection:
        await ready(service)
        sending = asyncio.create_task(send(connection, LONG * requests))
        await until(lambda: service.server.connections)
        protocol = next(iter(service.server.connections))
        await until(lambda: not protocol._can_write.is_set())
        await asyncio.sleep(0.1)
        assert protocol.transport.get_write_buffer_size() <= WRITE_BYTES_MAX + len(LONG_ANSWER)
        assert len(protocol.recv_buffer) <= WRITE_BYTES_MAX + PACKET_BYTES_MAX
        clicks = taken(service.app.ctx.services.tally)["fs-long"]
        assert clicks < requests / 2
        assert await receive(connection, requests * len(LONG_ANSWER)) == LONG_ANSWER * requests
        await sending
        assert clicks + taken(service.app.ctx.services.tally)["fs-long"] == requests


@BOTH
@on_loop
async def test_a_client_that_never_reads_is_disconnected(open_side: Open, is_fast: bool) -> None:
    """A client that never reads is disconnected after the response time-out."""
    opened = open_side(is_fast, sanic={"RESPONSE_TIMEOUT": 0.3})
    async with opened as service, connected(service.port, receive_bytes=4_096) as connection:
        await ready(service)
        sending = asyncio.create_task(send(connection, LONG * 500_000))
        await until(lambda: service.server.connections)
        await until(lambda: not service.server.connections)
        sending.cancel()


@BOTH
@on_loop
async def test_a_head_that_stops_half_way_is_408(open_side: Open, is_fast: bool) -> None:
    """An incomplete head gets 408, also after requests that the fast path answered."""
    async with open_side(is_fast, sanic={"REQUEST_TIMEOUT": 0.3}) as service:
        await ready(service)
        async with connected(service.port) as connection:
            await send(connection, A + A + A[:9])
            answers = await read_all(connection)
    assert answers.startswith(KEEPING * 2 + b"HTTP/1.1 408 Request Timeout\r\n")


@BOTH
@on_loop
async def test_a_connection_ends_when_nothing_is_asked_on_it(open_side: Open, is_fast: bool) -> None:
    """A connection without requests is closed when the keep-alive time-out since the last response is over."""
    keep_alive_s = 2.0
    async with open_side(is_fast, sanic={"KEEP_ALIVE_TIMEOUT": keep_alive_s}) as service:
        await ready(service)
        async with connected(service.port) as connection:
            for _ in range(14):
                assert await ask(connection) == KEEPING
                await asyncio.sleep(keep_alive_s / 8)
            assert await read_all(connection) == b""


@BOTH
@on_loop
async def test_clients_that_go_away_leave_nothing_in_the_log(
    open_side: Open, is_fast: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Clients that disconnect before or during a response cause no log lines."""
    with caplog.at_level(logging.WARNING):
        async with open_side(is_fast) as service:
            await ready(service)
            for pause_s in (0.0, 0.0, 0.001, 0.01):
                async with connected(service.port, receive_bytes=4_096) as connection:
                    await send(connection, LONG * 200)
                    await asyncio.sleep(pause_s)
            await until(lambda: not service.server.connections)
    assert not caplog.records


# -- links that change ---------------------------------------------------------------------------------------


@BOTH
@on_loop
async def test_a_link_expires_while_it_is_cached(open_side: Open, is_fast: bool) -> None:
    """A cached link gets 410 from its expiry on, also on open connections."""
    async with open_side(is_fast) as service:
        await ready(service)
        expires_at = datetime.now(UTC) + timedelta(seconds=1)
        expires_at -= timedelta(microseconds=expires_at.microsecond % 1_000)  # workers count in milliseconds
        code = f"fs-{time.time_ns()}"
        await service.create(code, expires_at=expires_at)
        await service.warm(code)
        seen = set()
        async with connected(service.port) as connection, asyncio.timeout(HANG_S):
            while b"410" not in seen:
                asked_at = datetime.now(UTC)
                answer = await ask(connection, head(target=f"/{code}".encode()), len(KEEPING))
                seen.add(answer[9:12])
                assert answer == KEEPING or (answer[9:12] == b"410" and datetime.now(UTC) >= expires_at)
                assert answer != KEEPING or asked_at < expires_at
                await asyncio.sleep(0.02)


@on_loop
async def test_a_change_elsewhere_is_seen_on_an_open_connection(open_side: Open) -> None:
    """The fast path follows an edit and a delete by another worker on an open connection."""
    async with open_side() as service, open_side() as other, connected(service.port) as connection:
        await ready(service)
        code = f"fs-{time.time_ns()}"
        request = head(target=f"/{code}".encode())
        await service.create(code)
        await service.warm(code)
        fast_answers = count(REDIRECTS_FAST_PATH)
        assert await ask(connection, request) == KEEPING
        links = other.app.ctx.services.links
        await links.change(code, LinkPatch(url="https://example.com/"), if_match=None, owner=None)
        changed = KEEPING.replace(b"example.org", b"example.com")
        async with asyncio.timeout(HANG_S):
            while await ask(connection, request) != changed:
                await asyncio.sleep(0.01)
        await service.warm(code)
        assert await ask(connection, request) == changed
        service.app.ctx.fast_path.flush()
        assert count(REDIRECTS_FAST_PATH) >= fast_answers + 2
        await links.delete(code, if_match=None, owner=None)
        async with asyncio.timeout(HANG_S):
            while (await ask(connection, request))[9:12] != b"410":
                await asyncio.sleep(0.01)


# -- loops ---------------------------------------------------------------------------------------------------


@BOTH
@on_loop
async def test_a_loop_through_an_unknown_name_is_cut_where_it_closes(open_side: Open, is_fast: bool) -> None:
    """A link to another name of the service is followed once, and counted once: back at that name it is refused."""
    async with open_side(is_fast, base_url="https://s.example.org", own_domains="t.example.org") as service:
        await ready(service)
        code, other = f"fl-{time.time_ns()}", f"fm-{time.time_ns()}"
        target, elsewhere = f"/{code}".encode(), f"/{other}".encode()
        await service.create(code)
        await service.create(other)
        links = service.app.ctx.services.links
        url = f"http://go.internal:8000/{code}"
        await links.change(code, LinkPatch(url=url), if_match=None, owner=None)
        await links.change(other, LinkPatch(url="https://s.example.org:8443/x"), if_match=None, owner=None)
        for path in (code, other):
            await service.warm(path)
        hosts = (
            b"s.example.org",
            b"go.internal:8000",
            b"go.internal:8000",
            b"go.internal",
            b"go.internal:80",
        )
        exchange = await service.converse([head(b"Host: " + host, target=target) for host in hosts])
        statuses = [answer[:3] for answer in exchange.answers.split(b"HTTP/1.1 ")[1:-1]]
        assert statuses == [b"302", b"403", b"403", b"302", b"302"]
        assert b"urn:snapurl:problem:redirect-loop" in exchange.answers
        assert exchange.clicks == {code: 3} and exchange.outcomes["loop"] == 2
        # Of a host in the settings the port is known: a proxy may have dropped it.
        names = (b"s.example.org:8443", b"s.example.org", b"s.example")
        exchange = await service.converse([head(b"Host: " + name, target=elsewhere) for name in names])
        statuses = [answer[:3] for answer in exchange.answers.split(b"HTTP/1.1 ")[1:-1]]
        assert statuses == [b"302"] * 3 and exchange.clicks == {other: 3}


@BOTH
@on_loop
async def test_a_link_to_a_name_that_became_own_is_refused(open_side: Open, is_fast: bool) -> None:
    """A link made before its target became a domain of the service is refused at that domain."""
    async with open_side(is_fast, base_url="https://s.example.org", own_domains="example.org") as service:
        await ready(service)
        exchange = await service.converse([head(b"Host: example.org")])
        assert exchange.answers.startswith(b"HTTP/1.1 403 ") and exchange.clicks == {}


# -- limits --------------------------------------------------------------------------------------------------


@BOTH
@on_loop
async def test_a_blocked_client_gets_no_cached_link(open_side: Open, is_fast: bool) -> None:
    """A blocked client gets 429 for existing and missing links, also on open connections, until the block ends."""
    async with open_side(is_fast, limit_missing="1/3 seconds") as service, connected(service.port) as early:
        await ready(service)
        assert await ask(early) == KEEPING
        refused = SCAN_FACTOR + 1  # the last of these blocks the client
        exchange = await service.converse([A + NONE * (1 + refused) + A, A])
        statuses = [answer[:3] for answer in exchange.answers.split(b"HTTP/1.1 ")[1:-1]]
        assert statuses == [b"302", b"404", *[b"429"] * (refused + 2)]
        counted = {name: number for name, number in exchange.outcomes.items() if number}
        assert counted == {"redirected": 1, "missing": 1, "shut-out": refused + 2}
        assert (exchange.clicks, exchange.fast_answers) == ({"fp-a": 1}, int(is_fast))
        async with connected(service.port) as later:
            assert (await ask(later))[9:12] == b"429"
        async with asyncio.timeout(HANG_S):
            while (await service.converse([A])).fast_answers != is_fast or not (
                await service.converse([A])
            ).clicks:
                await asyncio.sleep(0.1)


@BOTH
@on_loop
async def test_behind_a_proxy_only_the_client_in_question_is_shut_out(open_side: Open, is_fast: bool) -> None:
    """Behind a proxy, the client that the proxy names is blocked; the fast path goes on for all others."""
    bad, good = b"x-forwarded-for: 192.0.2.1", b"x-forwarded-for: 192.0.2.2:4711"
    async with open_side(is_fast, limit_missing="1/minute", proxies="127.0.0.1") as service:
        await ready(service)
        none, refused = head(bad, target=b"/fs-none"), SCAN_FACTOR + 1
        exchange = await service.converse([none * (1 + refused) + head(bad) + head(good) + head(bad)])
        statuses = [answer[:3] for answer in exchange.answers.split(b"HTTP/1.1 ")[1:-1]]
        assert statuses == [b"404", *[b"429"] * (refused + 1), b"302", b"429"]
        assert exchange.clicks == {"fp-a": 1}
        exchange = await service.converse([head(good), head(bad)])
        assert (exchange.clicks, exchange.fast_answers) == ({"fp-a": 1}, int(is_fast))


# -- metrics, and the end ------------------------------------------------------------------------------------


@on_loop
async def test_the_metrics_are_up_to_date_when_they_are_read(
    open_side: Open, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A scrape includes all redirects of the fast path, and so do the counters after a worker's shutdown."""
    monkeypatch.setattr(protocol, "FLUSH_S", 3_600)
    async with open_side() as service:
        await ready(service)
        service.app.ctx.fast_path.flush()
        before = count(REDIRECTS_FAST_PATH)
        async with connected(service.port) as connection:
            await ask(connection)
            scraped = await metrics(service.app.ctx.fast_path.flush)
            assert f"\nsnapurl_redirects_ahead_total {before + 1:.1f}\n".encode() in scraped.body
        async with connected(service.port) as connection:
            await ask(connection)
    assert count(REDIRECTS_FAST_PATH) == before + 2


@BOTH
@on_loop
async def test_a_worker_ends_with_connections_open(open_side: Open, is_fast: bool) -> None:
    """A worker that shuts down closes idle connections, but waits for an incomplete head and answers it."""
    async with (
        open_side(is_fast) as service,
        connected(service.port) as idle,
        connected(service.port) as half,
    ):
        await ready(service)
        before = service.outcomes()["redirected"]
        assert await ask(idle) == KEEPING
        assert await ask(half, A + A[:9]) == KEEPING
        await until(lambda: any(protocol.recv_buffer for protocol in service.server.connections))
        ending = asyncio.create_task(service.finish())
        assert await read_all(idle) == b""
        await send(half, A[9:])
        assert await read_all(half) in (KEEPING, CLOSING)
        await ending
        assert service.outcomes()["redirected"] == before + 3


@BOTH
@on_loop
async def test_no_click_is_counted_that_is_not_answered_as_a_worker_ends(
    open_side: Open, is_fast: bool
) -> None:
    """During a shutdown, clients that send without a pause get a response to each counted request."""
    async with open_side(is_fast) as service:
        await ready(service)
        before = service.outcomes()["redirected"]
        clients = [asyncio.create_task(_ask_till_the_end(service.port)) for _ in range(20)]
        await until(lambda: service.outcomes()["redirected"] > before + len(clients))
        await service.finish()
        answered = sum(await asyncio.gather(*clients))
        assert answered > len(clients)
        assert service.outcomes()["redirected"] == before + answered


async def _ask_till_the_end(port: int) -> int:
    answered = 0
    with suppress(ConnectionError):
        async with connected(port) as connection:
            while (answer := await ask(connection)).startswith(b"HTTP/1.1 302 "):
                answered += 1
                if answer != KEEPING:  # the last response, which announces the close
                    break
    return answered
