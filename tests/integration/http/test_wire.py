"""What RFC 9110 and 9112 ask of a server: Host, empty lines, Date, and an answer to what is no request."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from time import time

import pytest

from snapurl.config import Settings
from tests.integration.http.conversations import HOST, bare_head, head, post
from tests.integration.http.paths import Pair, connected, paired
from tests.integration.http.service import Service
from tests.support.waits import HANG_S

NEVER_S = 86_400.0
TLS_HELLO = bytes.fromhex("1603010200010001fc0303") + bytes(501)


@pytest.mark.parametrize(
    ("data", "detail"),
    [
        (TLS_HELLO, "this port takes HTTP and not TLS"),
        (TLS_HELLO[:1], "this port takes HTTP and not TLS"),
        (b"GET / HTTP/1.1\nHost: x\n\n", "lines end with CRLF"),
        (b"GET / HTTP/1.1\n", "lines end with CRLF"),
        (b"GET / HTTP/1.1\r\nHost: x\n", "lines end with CRLF"),
        (b"\n", "lines end with CRLF"),
        (b"\r\n\r\n", "lines end with CRLF"),
        (b"GET /\r\n", "not a request of HTTP/1.1"),
        (b"EHLO mail.example\r\n", "not a request of HTTP/1.1"),
        (b"\x00\x00\x00\x17", "not a request of HTTP/1.1"),
        (b"GET /a\rb", "not a request of HTTP/1.1"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "not a request of HTTP/1.1"),
        (b'{"url": 1}GET / HTTP/1.1\r\nHost: x\r\n\r\n', "not a request of HTTP/1.1"),
        (b"GET /\r\nHost: x\r\n\r\n", "not a request of HTTP/1.1"),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: \x0b\r\n\r\n", "not a request of HTTP/1.1"),
    ],
)
@pytest.mark.parametrize("in_bytes", [False, True], ids=["one packet", "byte by byte"])
def test_what_is_no_request_is_answered_at_once(
    endless: Pair, data: bytes, detail: str, in_bytes: bool
) -> None:
    """Bytes that can no longer become a request get 400 and the end of the connection, without any time-out."""
    parts = [data[at : at + 1] for at in range(len(data))] if in_bytes else [data]
    exchange = endless.agree(*parts)
    assert exchange.answers.startswith(b"HTTP/1.1 400 Bad Request\r\n")
    assert exchange.answers.count(b"HTTP/1.1 4") == 1
    assert b"connection: close" in exchange.answers
    assert detail in json.loads(exchange.answers.partition(b"\r\n\r\n")[2])["detail"]


@pytest.fixture(scope="module")
def endless(shared_settings: Settings) -> Iterator[Pair]:
    """Yields both services with time-outs that no test reaches."""
    with paired(shared_settings, REQUEST_TIMEOUT=NEVER_S, KEEP_ALIVE_TIMEOUT=NEVER_S) as pair:
        yield pair


@pytest.mark.parametrize(
    ("host", "detail"),
    [
        ((), "missing"),
        ((HOST, HOST), "more than one"),
        ((HOST, b"host: b"), "more than one"),
        ((b"Host: a b",), "malformed"),
        ((b"Host: a/b",), "malformed"),
        ((b"Host: user@a",), "malformed"),
        ((b"Host: a:b",), "malformed"),
    ],
)
@pytest.mark.parametrize("target", [b"/health/live", b"/nobody-has-this", b"/api/v1/ring"])
async def test_a_request_without_one_good_host_is_400(
    service: Service, host: tuple[bytes, ...], detail: str, target: bytes
) -> None:
    """No Host, two, or an ill-formed one is 400 at every address, in words that say which it is."""
    answer = await service.workers[0].say(bare_head(*host, target=target))
    assert answer.startswith(b"HTTP/1.1 400 ") and b"connection: close" in answer
    assert detail in json.loads(answer.partition(b"\r\n\r\n")[2])["detail"]


@pytest.mark.parametrize(
    "request_head",
    [
        bare_head(b"Host: localhost:80", b"connection: close", target=b"/health/live"),
        bare_head(b"Host: [::1]:8000", b"connection: close", target=b"/health/live"),
        bare_head(b"Host:", b"connection: close", target=b"/health/live"),
        bare_head(b"Host: a%20b.example", b"connection: close", target=b"/health/live"),
        bare_head(target=b"/health/live", version=b"HTTP/1.0"),
    ],
)
async def test_a_well_formed_host_is_accepted(service: Service, request_head: bytes) -> None:
    """Any Host that RFC 9110 allows is accepted; HTTP/1.0 needs none."""
    assert (await service.workers[0].say(request_head)).startswith(b"HTTP/1.1 200 ")


def test_one_empty_line_before_a_request_is_skipped(endless: Pair) -> None:
    """A request may follow an empty line, as some clients send after a body; the response is the same."""
    live = head(target=b"/health/live")
    plain = endless.agree(live, live).answers
    for parts in (
        (b"\r\n" + live, live),
        (live, b"\r\n" + live),
        (live, b"\r\n", live),
        (live, b"\r", b"\n", live),
    ):
        assert endless.agree(*parts).answers == plain


def test_a_connection_with_an_empty_line_is_idle(shared_settings: Settings) -> None:
    """After an empty line the keep-alive time-out applies, and not that of a head: the connection ends silently."""
    with paired(shared_settings, REQUEST_TIMEOUT=NEVER_S, KEEP_ALIVE_TIMEOUT=0.3) as pair:

        async def answer_to_an_empty_line(port: int) -> bytes:
            async with connected(port) as connection:
                loop = asyncio.get_running_loop()
                await loop.sock_sendall(connection, b"\r\n")
                return await asyncio.wait_for(loop.sock_recv(connection, 1), HANG_S)

        for side in (pair.fast, pair.slow):
            assert pair.loop.run(answer_to_an_empty_line(side.port)) == b""


async def test_every_response_has_a_date(service: Service) -> None:
    """Redirects, creates, pages and problems of each kind say when they were made, to the second."""
    link = await service.shorten()
    last = head(b"connection: close", target=b"/health/live")
    redirect = head(target=b"/" + link["code"].encode())
    requests = [
        redirect, redirect, head(target=b"/nobody-has-this"), head(target=b"/docs"), head(target=b"/a/b"),
        head(target=b"/", method=b"PUT"), post(b'{"url": "https://example.org/"}'), post(b"{}"), last,
    ]  # fmt: skip
    before = time() // 1
    answers = await service.workers[0].say(*requests, pause_s=0.001)
    answers += await service.workers[0].say(b"nonsense\r\n\r\n")
    heads = answers.split(b"HTTP/1.1 ")[1:]
    assert len(heads) == len(requests) + 1
    for each in heads:
        (date,) = [
            line[6:] for line in each.partition(b"\r\n\r\n")[0].split(b"\r\n") if line.startswith(b"date: ")
        ]
        assert date.endswith(b" GMT")
        assert before <= parsedate_to_datetime(date.decode()).timestamp() <= time()


async def test_a_query_outside_ascii_is_read(service: Service) -> None:
    """Bytes outside ASCII in a query mean the same as when they are percent-encoded."""
    link = await service.shorten()
    close = b"connection: close"
    for query in ("é".encode(), b"\xff\xfe"):
        answer = await service.workers[0].say(
            head(close, target=b"/%b?q=%b" % (link["code"].encode(), query))
        )
        assert answer.startswith(b"HTTP/1.1 302 ")
    key = f"x-api-key: {service.admin_key}".encode()
    answers = [
        await service.workers[0].say(head(close, key, target=b"/api/v1/links?limit=" + value))
        for value in ("é".encode(), b"%C3%A9")
    ]
    assert answers[0].partition(b" ")[2][:3] == b"422"
    assert answers[0].partition(b'"errors"')[2][:40] == answers[1].partition(b'"errors"')[2][:40] != b""


async def test_a_transfer_encoding_may_be_spelled_in_any_letters(service: Service) -> None:
    """`Chunked` is the same coding as `chunked`: a create in chunks is read."""
    body = b'{"url": "https://example.org/"}'
    for coding in (b"chunked", b"Chunked", b"CHUNKED"):
        request = head(
            b"Transfer-Encoding: " + coding,
            b"content-type: application/json",
            b"connection: close",
            target=b"/api/v1/links",
            method=b"POST",
        )
        answer = await service.workers[0].say(request + b"%x\r\n%b\r\n0\r\n\r\n" % (len(body), body))
        assert answer.startswith(b"HTTP/1.1 201 ")


async def test_an_upgrade_is_ignored(service: Service) -> None:
    """A request that offers to upgrade the connection is answered as any other."""
    upgrade = (
        b"connection: upgrade",
        b"upgrade: websocket",
        b"sec-websocket-key: x",
        b"sec-websocket-version: 13",
    )
    answer = await service.workers[0].say(head(*upgrade, target=b"/health/live"))
    assert answer.startswith(b"HTTP/1.1 200 ")
