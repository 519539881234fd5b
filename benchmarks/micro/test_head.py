"""The fast path: matching a request head, and a redirect from the bytes received to the bytes sent."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import httptools
import pytest
from pytest_benchmark.fixture import BenchmarkFixture
from sanic import HTTPResponse

from snapurl.addresses import Clients
from snapurl.cache.local import Entry, LocalCache
from snapurl.clicks.origins import Origins
from snapurl.clicks.tally import Tally
from snapurl.http.fastpath.create import WholeRequest
from snapurl.http.fastpath.plain_heads import REDIRECT_HEAD
from snapurl.http.fastpath.protocol import FastPath
from snapurl.http.wire.dates import DateClock
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.http.wire.heads import UNAMBIGUOUS_HEAD
from snapurl.limits import Blocklist
from snapurl.model import CachedLink

LINK = CachedLink("https://www.example.org/articles/2026/n0000000", 302, 1, None, deleted=False)
SHORT = b"GET /n0000000 HTTP/1.1\r\nHost: 127.0.0.1:8000\r\n\r\n"
BROWSER = (
    b"GET /n0000000?utm_source=mail HTTP/1.1\r\nHost: s.example.org\r\n"
    b"User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n"
    b"Accept: text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8\r\n"
    b"Accept-Language: de,en-US;q=0.7,en;q=0.3\r\nAccept-Encoding: gzip, deflate, br, zstd\r\n"
    b"Referer: https://www.example.com/a?b=c\r\nConnection: keep-alive\r\nCookie: a=b; c=d\r\n"
    b"Upgrade-Insecure-Requests: 1\r\nSec-Fetch-Dest: document\r\nPriority: u=0, i\r\n\r\n"
)
HEADS = pytest.mark.parametrize("head", [SHORT, BROWSER], ids=["short", "browser"])


class IgnoredEvents:
    """The callbacks of a parser of the whole head; they store nothing."""

    def on_url(self, url: bytes) -> None: ...

    def on_header(self, name: bytes, value: bytes) -> None: ...


@dataclass
class Known:
    """A cache in which every link is found, so that nothing is looked up."""

    entry: Callable[[str], Entry | None]

    def lookup(self, code: str) -> asyncio.Future[CachedLink]:
        raise AssertionError(code)


async def no_create(request: WholeRequest) -> HTTPResponse:
    raise AssertionError(request)


@pytest.fixture
def fast() -> Iterator[FastPath]:
    """A fast path with one link in L1."""
    local = LocalCache(100, 2**20, 3_600.0, 2.0, time.monotonic)
    local.enable()
    local.put("n0000000", LINK, local.generation)
    loop = asyncio.new_event_loop()
    yield FastPath(
        Known(local.entry),
        FairQueue(),
        Tally(100, 100),
        Blocklist(),
        clients := Clients((), pytest.fail),
        Origins(clients, ""),
        lambda: time.time_ns() // 1_000_000,
        no_create,
        loop,
        DateClock(),
        head_bytes_max=16_384,
    )
    loop.close()


@pytest.mark.benchmark(group="head")
@HEADS
def test_plain_head(benchmark: BenchmarkFixture, head: bytes) -> None:
    """Matches a head that the fast path may answer."""
    found = benchmark(REDIRECT_HEAD.match, head, 0, 16_387)
    assert found is not None and found[1] == b"n0000000"


@pytest.mark.benchmark(group="head")
@HEADS
def test_head_read_one_way(benchmark: BenchmarkFixture, head: bytes) -> None:
    """Runs the check that requests pass before Sanic parses them."""
    assert benchmark(UNAMBIGUOUS_HEAD.fullmatch, head.removesuffix(b"\r\n\r\n"))


@pytest.mark.benchmark(group="head")
@HEADS
def test_httptools(benchmark: BenchmarkFixture, head: bytes) -> None:
    """Runs, for comparison, a parser in C that calls back for each header."""

    def parse() -> bytes:
        parser = httptools.HttpRequestParser(IgnoredEvents())
        parser.feed_data(head)
        method: bytes = parser.get_method()
        return method

    assert benchmark(parse) == b"GET"


@pytest.mark.benchmark(group="redirect")
@HEADS
def test_redirect(benchmark: BenchmarkFixture, fast: FastPath, head: bytes) -> None:
    """Answers a redirect without the socket: head, L1, expiry, click, response."""

    def redirect() -> bytes | None:
        found = REDIRECT_HEAD.match(head, 0, fast.match_bytes_max)
        assert found is not None
        return fast.redirect_from_l1(found, "127.0.0.1")

    answer = benchmark(redirect)
    assert answer is not None and answer.startswith(b"HTTP/1.1 302 Found\r\n")
