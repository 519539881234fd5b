"""Which heads are plain, and which redirects the fast path answers."""

from __future__ import annotations

import asyncio
import re
from dataclasses import replace
from email.utils import parsedate_to_datetime
from time import monotonic, time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sanic import HTTPResponse

from snapurl.addresses import Clients, parse_networks
from snapurl.cache.local import Entry, LocalCache
from snapurl.cache.reader import FROM_L1
from snapurl.clicks.origins import Origins
from snapurl.clicks.sources import HEADER_BYTES_MAX
from snapurl.clicks.tally import Tally
from snapurl.errors import Unavailable
from snapurl.http.fastpath.plain_heads import REDIRECT_HEAD
from snapurl.http.fastpath.protocol import FastPath, Lookup
from snapurl.http.redirect import REDIRECTED, redirect_bytes
from snapurl.http.wire.dates import DateClock
from snapurl.http.wire.fair_queue import FairQueue
from snapurl.limits import Blocklist
from snapurl.model import MISSING, CachedLink, LinkOptions
from snapurl.telemetry.metrics import REDIRECT_SECONDS
from tests.support.clicks import classified, plain, sources, taken
from tests.support.waits import HANG_S

LINK = CachedLink("https://example.org/", 302, 1, None, deleted=False)
HEAD_BYTES_MAX = 1_000


class Worker:
    """The parts of a worker that its fast path uses; the tests set both clocks."""

    def __init__(self, room: int = 100, said_max: int = 100, proxies: str = "") -> None:
        self.now_s = 0.0
        self.now_ms = 1_000
        self.local = LocalCache(100, 2**20, 60.0, 2.0, lambda: self.now_s)
        self.local.enable()
        self.fair_queue = FairQueue(client_permits_max=2)
        self.asked: dict[str, asyncio.Future[CachedLink]] = {}
        self.tally = Tally(room, said_max)
        self.blocked = Blocklist(lambda: self.now_s)
        self.date = DateClock()
        self.fast = FastPath(
            self,
            self.fair_queue,
            self.tally,
            self.blocked,
            clients := Clients(parse_networks(proxies), pytest.fail),
            Origins(clients, "cf-ipcountry" if proxies else ""),
            lambda: self.now_ms,
            self.create,
            asyncio.get_running_loop(),
            self.date,
            head_bytes_max=HEAD_BYTES_MAX,
        )

    def entry(self, code: str) -> Entry | None:
        return self.local.entry(code)

    def lookup(self, code: str) -> asyncio.Future[CachedLink]:
        return self.asked.setdefault(code, asyncio.get_running_loop().create_future())

    async def create(self, request: object) -> HTTPResponse:
        raise AssertionError("no create is asked for")

    def keep(self, link: CachedLink, code: str = "a") -> None:
        self.local.put(code, link, self.local.generation)

    def ask(self, code: str = "a") -> bytes | None:
        answer = self.fast.redirect_from_l1(request(code), "192.0.2.1")
        if answer is not None:
            self.fast.count_redirects(1, 0.00002)
        return answer


def request(code: str = "a", *, method: bytes = b"GET", headers: bytes = b"") -> re.Match[bytes]:
    """Matches a plain head that follows other bytes in the same packet."""
    data = b"GET /z HTTP/1.1\r\nHost: x\r\n\r\n"
    found = REDIRECT_HEAD.match(
        data + method + b" /" + code.encode() + b" HTTP/1.1\r\nHost: x\r\n" + headers + b"\r\n", len(data)
    )
    assert found is not None
    return found


@pytest.mark.parametrize(
    "head",
    [
        b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"HEAD /aZ_-09 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a? HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a?q=%20&x=/?:@!$'()*+,;~. HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nCookie: a=b; c=d\r\nX-Empty:\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nconnection: Keep-Alive\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nCONNECTION:keep-alive\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nUpgrade-Insecure-Requests: 1\r\n"
        b"Content-Type: x\r\nConnections: close\r\n\r\n",
        b"GET /a HTTP/1.1\r\na: b\r\nhOST:\t[::1]:80\r\nc: d\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost:\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: a-b_c.example:8080\r\nHosts: x\r\n\r\n",
    ],
)
def test_a_plain_head_is_recognised_to_its_end(head: bytes) -> None:
    """The match has the code and the end of the head; a head without its last byte does not match."""
    match = REDIRECT_HEAD.match(head + b"GET /b")
    assert match is not None
    assert match.end() == len(head)
    assert match[1] in (b"a", b"aZ_-09")
    assert REDIRECT_HEAD.match(head[:-1]) is None


def test_of_a_long_header_only_its_beginning_is_read() -> None:
    """What a head says is cut before anything looks at it or keeps it, however long it is."""
    long = b"https://x.example/" + b"y" * 15_000
    headers = b"Referer: %b\r\nUser-Agent: %b\r\nAccept-Language: %b\r\n" % (long, long, long)
    head = request("a?" + long.decode(), headers=headers)
    assert head.groups()[1:2] + head.groups()[3:] == (*[long[:HEADER_BYTES_MAX]] * 4, None)
    assert head[0].endswith(b"y\r\n\r\n")


@pytest.mark.parametrize(
    "head",
    [
        b"POST /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"get /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET  /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b" GET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\r\nGET /a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a/ HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET //a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a/b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a.b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /%61 HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a;b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a?b#c HTTP/1.1\r\nHost: x\r\n\r\n",
        b'GET /a?" HTTP/1.1\r\nHost: x\r\n\r\n',
        b"GET /a?\xc3\xbc HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET http://x/a HTTP/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.0\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.2\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1x1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/2.0\r\nHost: x\r\n\r\n",
        b"GET /a http/1.1\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1 \r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\nHost: x\n\n",
        b"GET /a HTTP/1.1\r\nHost: x\n\r\n",
        b"GET /a HTTP/1.1\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\ny: z\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\ry: z\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\x00\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\x7f\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: \xfc\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost : x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n folded: y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\n\tfolded: y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHo(st: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\ncontent-LENGTH:5\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nSec-Purpose: prefetch\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\npurpose: prefetch\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nX-MOZ: prefetch\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection:\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive \r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, close\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive, upgrade\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nConnection: keep-alive\r\nConnection: close\r\n\r\n",
        b"GET /a HTTP/1.1\r\n\r\n",
        b"GET /a HTTP/1.1\r\na: b\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x\r\na: b\r\nhost: y\r\nc: d\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x/y\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: u@x\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x:80:80\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: [::1\r\n\r\n",
        b"GET /a HTTP/1.1\r\nHost: x%20\r\n\r\n",
    ],
)
def test_every_other_head_is_for_sanic(head: bytes) -> None:
    """Heads that close the connection, have a body, or are ambiguous are left to Sanic."""
    assert REDIRECT_HEAD.match(head) is None


@given(st.binary(max_size=200), st.binary(max_size=200))
def test_a_plain_head_ends_at_the_first_empty_line(before: bytes, after: bytes) -> None:
    """The head ends where Sanic finds its end, whatever the headers contain."""
    data = b"GET /a HTTP/1.1\r\nHost: x\r\nx: " + before + b"\r\n\r\n" + after
    match = REDIRECT_HEAD.match(data)
    assert match is None or match.end() == data.index(b"\r\n\r\n") + 4


async def test_a_link_in_l1_is_answered_and_counted() -> None:
    """A GET counts as a click, a HEAD does not; the metrics count both."""
    worker = Worker()
    worker.keep(LINK)
    before, from_l1 = REDIRECTED._value.get(), FROM_L1._value.get()
    for method in (b"GET", b"HEAD", b"GET"):
        head = request(method=method, headers=b"User-Agent: curl/8\r\nReferer: http://x/\r\n")
        assert worker.fast.redirect_from_l1(head, "192.0.2.1") == redirect_bytes(
            LINK.url, 302, worker.date.text, keep_alive=True
        )
    worker.fast.count_redirects(3, 0.00002)
    counts = classified(worker.tally)
    assert (counts.clicks, counts.bots) == ({"a": 2}, {"a": 2})
    assert plain(counts.sources) == {"a": {"bot": {"program": 2}}}
    assert REDIRECTED._value.get() == before
    worker.fast.flush()
    worker.fast.flush()
    assert (REDIRECTED._value.get(), FROM_L1._value.get()) == (before + 3, from_l1 + 3)


async def test_every_answer_is_timed() -> None:
    """Fast redirects are observed as one sum, slow ones in their bucket; all of a packet get its duration."""

    def seen() -> dict[str, float]:
        families = REDIRECT_SECONDS.labels("ahead")._child_samples()
        return {
            sample.name + (sample.labels or {}).get("le", ""): sample.value
            for sample in families
            if sample.name != "_created"
        }

    worker = Worker()
    before = seen()
    worker.fast.count_redirects(1, 0.00001)
    worker.fast.count_redirects(2, 0.00003)
    worker.fast.count_redirects(3, 0.002)
    worker.fast.count_redirects(1, 60.0)
    worker.fast.flush()
    found = {name: value - before[name] for name, value in seen().items()}
    assert (found["_count"], found["_bucket0.0001"], found["_bucket0.001"]) == (7, 3, 3)
    assert (found["_bucket0.0025"], found["_bucket5.0"], found["_bucket+Inf"]) == (6, 6, 7)
    assert found["_sum"] == pytest.approx(60.00607)


async def test_the_date_of_a_response_is_that_of_its_second() -> None:
    """Date is renewed when its second is over, also in responses that were prepared before."""
    worker = Worker()
    worker.keep(LINK)
    worker.date.text, worker.date.until_s = "Sun, 06 Nov 1994 08:49:37 GMT", monotonic() + HANG_S
    for _ in range(2):
        assert worker.ask() == redirect_bytes(LINK.url, 302, "Sun, 06 Nov 1994 08:49:37 GMT", keep_alive=True)
        worker.fast.renew_date(worker.date.until_s - 1.0)
    before = time() // 1
    worker.fast.renew_date(worker.date.until_s)
    answer = worker.ask()
    worker.fast.flush()
    assert answer is not None
    date = answer.partition(b"\r\ndate: ")[2].partition(b"\r\n")[0].decode()
    assert before <= parsedate_to_datetime(date).timestamp() <= time()


async def test_the_metrics_are_told_without_being_asked() -> None:
    """The metrics are current within a fraction of a second after each response."""
    worker = Worker()
    worker.keep(LINK)
    for _ in range(2):
        before = REDIRECTED._value.get()
        worker.ask()
        async with asyncio.timeout(HANG_S):
            while REDIRECTED._value.get() == before:
                await asyncio.sleep(0.01)
        assert REDIRECTED._value.get() == before + 1


@pytest.mark.parametrize(
    "link",
    [
        MISSING,
        replace(LINK, deleted=True),
        replace(LINK, url="https://example.org/ü"),
        replace(LINK, redirect_status=399),
        replace(LINK, options=LinkOptions(expired_url=LINK.url)),
    ],
)
async def test_what_is_no_redirect_is_left_alone(link: CachedLink) -> None:
    """Misses, deleted links, links with options and rows not written by the program are left to Sanic and not
    counted."""
    worker = Worker()
    worker.keep(link)
    assert [worker.ask(), worker.ask(), worker.ask("b")] == [None] * 3
    assert taken(worker.tally) == {}


async def test_a_link_under_a_word_that_was_reserved_later_is_left_alone() -> None:
    """A link whose code has become a reserved word is left to Sanic: the code may be the path of a route."""
    worker = Worker()
    worker.keep(LINK, "Health")
    assert worker.ask("Health") is None


async def test_a_link_expires_while_it_is_cached() -> None:
    """A cached link expires in the same millisecond as on Sanic's path."""
    worker = Worker()
    worker.keep(replace(LINK, expires_at_ms=2_000))
    worker.now_ms = 1_999
    assert worker.ask() is not None
    worker.now_ms = 2_000
    assert worker.ask() is None
    assert taken(worker.tally) == {"a": 1}


async def test_an_answer_goes_with_the_version_that_it_was_made_of() -> None:
    """A prepared response is not used after a newer version, an invalidation, or the cache age of its entry."""
    worker = Worker()
    worker.keep(LINK)
    assert worker.ask() is not None
    worker.keep(replace(LINK, url="https://example.org/2", version=2))
    assert worker.ask() == redirect_bytes("https://example.org/2", 302, worker.date.text, keep_alive=True)
    worker.local.drop("a", 3)
    assert worker.ask() is None
    worker.keep(replace(LINK, version=3))
    assert worker.ask() is not None
    worker.now_s = 61
    assert worker.ask() is None


async def test_a_link_that_is_found_is_answered_whether_l1_keeps_it_or_not() -> None:
    """A looked-up link is answered and its click counted, whether or not L1 keeps it; it is no L1 hit."""
    worker = Worker()
    for is_kept in (False, True):
        asked = worker.fast.start_lookup(request(headers=b"user-agent: curl/8\r\n"), "192.0.2.1")
        assert asked is not None
        worker.asked.pop("a").set_result(LINK)
        if is_kept:
            worker.keep(LINK)
        worker.fast.release_permit(asked)
        assert worker.fast.redirect_from_lookup(asked) == redirect_bytes(
            LINK.url, 302, worker.date.text, keep_alive=True
        )
        worker.fast.count_lookup(0.004)
    assert sources(worker.tally) == {"a": {"bot": {"program": 2}}}
    before, from_l1 = REDIRECTED._value.get(), FROM_L1._value.get()
    worker.fast.flush()
    assert (REDIRECTED._value.get(), FROM_L1._value.get()) == (before + 2, from_l1)


@pytest.mark.parametrize(
    "found", [MISSING, replace(LINK, deleted=True), replace(LINK, expires_at_ms=1), None]
)
async def test_what_is_found_and_is_no_redirect_is_for_sanic(found: CachedLink | None) -> None:
    """A link that does not redirect, or a failed look-up (None), is left to Sanic."""
    worker = Worker()
    asked = worker.fast.start_lookup(request(), "192.0.2.1")
    assert asked is not None
    if found is None:
        worker.asked["a"].set_exception(Unavailable("shard db0 is unreachable", retry_after_s=1.0))
    else:
        worker.asked["a"].set_result(found)
    assert worker.fast.redirect_from_lookup(asked) is None
    assert taken(worker.tally) == {}


@pytest.mark.parametrize("code", ["known", "Health", "x" * 65])
async def test_what_sanic_knows_better_is_not_looked_up(code: str) -> None:
    """Cached misses, reserved words and paths that are not codes are left to Sanic without a look-up."""
    worker = Worker()
    worker.keep(MISSING, "known")
    assert worker.fast.start_lookup(request(code), "192.0.2.1") is None
    assert not worker.asked


@pytest.mark.parametrize("proxies", ["", "192.0.2.0/24"])
async def test_a_client_whose_turn_it_is_not_is_for_sanic(proxies: str) -> None:
    """A client without a permit is left to Sanic; behind a proxy it is the last address in X-Forwarded-For."""
    worker = Worker(proxies=proxies)

    def lookup(peer: str, headers: bytes) -> Lookup | None:
        return worker.fast.start_lookup(request(headers=headers), peer)

    one = b"X-Forwarded-For: 198.51.100.1, 203.0.113.1\r\n"
    same = b"x-forwarded-for: 198.51.100.2\r\nX-Forwarded-For:203.0.113.1\r\n"
    other = b"x-forwarded-for: 203.0.113.2\r\n"
    first = lookup("192.0.2.1", one)
    assert first is not None and lookup("192.0.2.1", same) is not None
    assert lookup("192.0.2.1", same) is None
    assert (lookup("192.0.2.1", other) is None) is (not proxies)
    assert (lookup("192.0.2.2", one) is None) is bool(proxies)
    worker.fast.release_permit(first)
    assert lookup("192.0.2.1", same) is not None


@pytest.mark.parametrize(
    "blocked", ["198.51.100.1", "embedded:198.51.100.1", "2001:db8:7::/64", "2001:db8:7::/48"]
)
@pytest.mark.parametrize(
    "header", [b"X-Forwarded-For: 203.0.113.5, %b\r\n", b'forwarded:for=x, for="%b";proto=https\r\n']
)
async def test_only_the_blocked_client_is_passed_to_sanic(blocked: str, header: bytes) -> None:
    """While a client is blocked, the fast path goes on for all others, also for those behind the same proxy."""
    worker = Worker(proxies="192.0.2.1")
    worker.keep(LINK)
    bad = b"[2001:db8:7::9]:443" if "2001" in blocked else b"198.51.100.1:1234"

    def is_answered(peer: str, client: bytes, code: str = "a") -> bool:
        head = request(code, headers=header % client)
        if code == "a":
            return worker.fast.answer(head, peer) is not None
        lookup = worker.fast.start_lookup(head, peer)
        if lookup is not None:
            worker.fast.release_permit(lookup)
        return lookup is not None

    for code in ("a", "b"):
        assert is_answered("192.0.2.1", bad, code)
        worker.blocked.block(blocked, 5)
        assert not is_answered("192.0.2.1", bad, code)
        assert is_answered("192.0.2.1", b"198.51.100.2", code)
        assert is_answered("192.0.2.9", bad, code)  # not a trusted proxy: nobody else's address counts
        assert not is_answered(
            bad.decode().split("]")[0].strip("[") if b"[" in bad else "198.51.100.1", b"", code
        )
        worker.now_s += 6
        assert is_answered("192.0.2.1", bad, code)


async def test_without_a_block_no_client_is_determined() -> None:
    """While nobody is blocked, a redirect costs nothing more."""
    worker = Worker(proxies="192.0.2.1")
    assert worker.fast.answer == worker.fast.redirect_from_l1


async def test_a_full_tally_does_not_stop_redirects() -> None:
    """With a full tally the redirect is answered, and its click is counted as dropped, as on Sanic's path."""
    worker = Worker(room=1, said_max=0)
    worker.keep(LINK, "a")
    worker.keep(LINK, "b")
    assert worker.ask("a") and worker.ask("b")
    assert (worker.tally.dropped, taken(worker.tally)) == (1, {"a": 1})


async def test_a_head_as_long_as_sanic_takes_is_plain_and_one_more_byte_is_not() -> None:
    """The fast path accepts heads up to the limit of Sanic, which counts up to the start of the empty line."""
    match_bytes_max = Worker().fast.match_bytes_max

    def head(before_the_empty_line: int) -> bytes:
        start = b"GET /a HTTP/1.1\r\nHost: x\r\nx:"
        return start + b"y" * (before_the_empty_line - len(start)) + b"\r\n\r\n"

    for offset in (0, 7):
        assert REDIRECT_HEAD.match(b"z" * offset + head(HEAD_BYTES_MAX - 1), offset, offset + match_bytes_max)
        assert not REDIRECT_HEAD.match(b"z" * offset + head(HEAD_BYTES_MAX), offset, offset + match_bytes_max)
