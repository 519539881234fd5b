"""The fast path against Sanic's: the same bytes, clicks and outcomes for any conversation."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from snapurl.config import Settings
from snapurl.errors import AliasTaken
from tests.integration.http.conversations import (
    AMBIGUOUS,
    AMBIGUOUS_BODIES,
    BROWSER,
    CODES,
    CREATE,
    CREATES,
    NONE,
    OTHER,
    OTHER_CREATES,
    PLAIN,
    POST,
    SMUGGLED,
    URL,
    A,
    B,
    C,
    Case,
    head,
    post,
)
from tests.integration.http.paths import Pair, paired
from tests.support.waits import HANG_S

OVER_S = 0.2
EXAMPLES = 150
REQUEST_S_MAX = 2.0  # for a head or body that never ends


@pytest.fixture(scope="session")
def links(shared_settings: Settings) -> None:
    """Creates links of all kinds. `test_fast_states` uses the first one too, and may have created it before."""
    over = datetime.now(UTC) + timedelta(seconds=OVER_S)
    with paired(shared_settings) as pair:
        with suppress(AliasTaken):
            pair.create("fp-a")
        pair.create("fp-b", redirect_status=308)
        pair.create(
            "fp-c", redirect_status=301, url="https://example.org/%C3%BC?q=1&utm_source=its&utm_medium=Own#f"
        )
        pair.create("fp-over", expires_at=over)
        pair.create("fp-off", enabled=False)
        pair.create("fp-late", starts_at=datetime.now(UTC) + timedelta(days=1))
        pair.create("fp-else", expires_at=over, expired_url="https://example.org/over")
        pair.create("fp-on", forward_query=True, forward_path=True, url="https://example.org/to?a=1#f")
        pair.create("fp-some", max_clicks=10_000)
        pair.create("fp-used", max_clicks=1)
        pair.loop.run(pair.fast.app.ctx.services.links.use("fp-used", 1, takes=True))
        pair.create("fp-shut", password="open sesame")
        pair.create("fp-fork", rules='[{"if":{"device":["mobile"]},"url":"https://example.org/m"}]')
        pair.create("fp-gone")
        gone = pair.fast.app.ctx.services.links.delete("fp-gone", if_match=None, owner=None)
        pair.loop.run(gone)
        pair.loop.run(asyncio.sleep(OVER_S))


@pytest.fixture(scope="module", params=[100_000, 0], ids=["from L1", "looked up"])
def pair(links: None, shared_settings: Settings, request: pytest.FixtureRequest) -> Iterator[Pair]:
    """Yields both services, with the links of `conversations` in L1 and behind a trusted proxy, or without both."""
    unlimited = {"limit_missing": "none", "limit_create": "none", "limit_password": "none"}
    update = {**unlimited, "anonymous_creation": True, "l1_links": request.param}
    if request.param:
        update |= {"proxies": "127.0.0.1", "geo_header": "cf-ipcountry"}
    settings = shared_settings.model_copy(update=update)
    with paired(settings, REQUEST_TIMEOUT=REQUEST_S_MAX) as pair:
        yield pair


@pytest.fixture(autouse=True)
def warm(pair: Pair) -> None:
    """Loads all links into L1 of both services, if there is one."""
    pair.warm(*CODES)


@pytest.mark.parametrize("case", [*PLAIN, *OTHER, *CREATES, *OTHER_CREATES], ids=lambda case: case.name)
def test_both_paths_answer_and_count_the_same(pair: Pair, case: Case) -> None:
    """Both paths give the same bytes and clicks, and the fast path answers the requests that it should."""
    exchange = pair.agree(*case.parts)
    assert case.fast_answers in (None, exchange.fast_answers)
    assert exchange.outcomes["failed"] == 0


@pytest.mark.parametrize(
    "parts",
    [
        (A,),
        (A + B,),
        (BROWSER, C),
        (POST + A,),
        (A + NONE + B,),
        (A, head(b"connection: close")),
        (CREATE, B),
    ],
    ids=["one", "two", "a browser", "a refused create", "a missing one between", "close", "a create"],
)
def test_packets_may_end_at_every_byte(
    pair: Pair, parts: tuple[bytes, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The responses are the same wherever the bytes are split, also if each byte arrives alone."""
    for side in (pair.fast, pair.slow):
        monkeypatch.setitem(side.app.config, "REQUEST_TIMEOUT", HANG_S)  # hundreds of packets take a while
    data = b"".join(parts)
    whole = pair.agree(data)
    assert whole.clicks
    step = 1 + len(data) // 150
    for end in range(1, len(data), step):
        assert pair.agree(data[:end], data[end:]) == whole, end
    assert pair.agree(*(data[at : at + 1] for at in range(len(data)))) == whole


def test_a_request_that_only_looks_is_no_click(pair: Pair) -> None:
    """Redirects of GET and POST are clicks, those of HEAD and OPTIONS are not."""
    methods = (b"GET", b"POST", b"HEAD", b"OPTIONS")
    exchange = pair.agree(*(head(target=b"/fp-b", method=method) for method in methods))
    assert exchange.answers.count(b"HTTP/1.1 308 ") == len(methods)
    assert exchange.clicks == {"fp-b": 2}


def test_a_redirect_after_the_expiry_is_no_click(pair: Pair) -> None:
    """An expired link that leads elsewhere redirects there without a click; one that does not work is no click."""
    exchange = pair.agree(*(head(target=b"/fp-" + code) for code in (b"else", b"off", b"late")))
    assert b"location: https://example.org/over\r\n" in exchange.answers
    assert exchange.clicks == {}
    found = {name: number for name, number in exchange.outcomes.items() if number}
    assert found == {"expired": 1, "switched-off": 1, "not-yet": 1}


@pytest.mark.parametrize("case", AMBIGUOUS, ids=lambda case: case.name)
def test_an_ambiguous_head_is_refused_on_both_paths(pair: Pair, case: Case) -> None:
    """An ambiguous head gets 400 and ends the connection; bytes after it are not parsed as a request."""
    for parts in ((*case.parts, SMUGGLED), (case.parts[0] + SMUGGLED,), (A + case.parts[0] + SMUGGLED,)):
        exchange = pair.agree(*parts)
        before = parts[0].startswith(A)
        assert exchange.clicks == ({"fp-a": 1} if before else {})
        assert exchange.answers.count(b"HTTP/1.1 400 Bad Request\r\n") == 1
        assert exchange.answers.count(b"HTTP/1.1 ") == 1 + before


@pytest.mark.parametrize("body", AMBIGUOUS_BODIES.values(), ids=AMBIGUOUS_BODIES)
def test_an_ambiguous_body_ends_the_connection_on_both_paths(pair: Pair, body: bytes) -> None:
    """Bytes after an ambiguous body are not parsed as a request, whether it follows a create or a redirect."""
    chunked = head(b"transfer-encoding: chunked")
    create = head(
        b"content-type: application/json",
        b"transfer-encoding: chunked",
        method=b"POST",
        target=b"/api/v1/links",
    )
    for parts in ((create, body, SMUGGLED), (create + body + SMUGGLED,)):
        exchange = pair.agree(*parts)
        assert exchange.answers.startswith(b"HTTP/1.1 400 Bad Request\r\n")
        assert exchange.answers.count(b"HTTP/1.1 ") == 1
        assert exchange.clicks == {}
    for parts in ((chunked, body, SMUGGLED), (chunked + body + SMUGGLED,)):
        exchange = pair.agree(*parts)
        assert exchange.answers.count(b"HTTP/1.1 ") == 1
        assert exchange.clicks == {"fp-a": 1}


HEADERS = st.sampled_from(
    [
        b"Host: s.example.org",
        b"host:",
        b"User-Agent: curl/8.5.0",
        b"user-agent: Mozilla/5.0 Firefox/140.0",
        b"Referer: https://www.example.com/a",
        b"referer:http://EXAMPLE.org",
        b"Accept: text/html",
        b"connection: keep-alive",
        b"Connection:Keep-Alive",
        b"connection: close",
        b"connection: x, close",
        b"content-length: 0",
        b"content-length: 3",
        b"Content-Length : 3",
        b"transfer-encoding: chunked",
        b"expect: 100-continue",
        b"upgrade: websocket",
        b" folded: x",
        b"x: y\nz: a",
        b"x: \xc3\xbc",
        b"x-forwarded-for: 192.0.2.1",
        b"X-Forwarded-For:192.0.2.2 , 2001:db8::1",
        b"CF-IPCountry: DE",
        b"accept-language: en-GB",
        b"dnt: 1",
        b"Sec-GPC:1",
        b"x" * 40 + b": " + b"y" * 400,
    ]
)
TARGETS = st.sampled_from([b"/fp-a", b"/fp-b", b"/fp-c"] * 4 + [
    b"/fp-c?qr&utm_source=x",
    b"/fp-a?q=1", b"/fp-none", b"/fp-gone", b"/fp-over", b"/fp%2Da", b"//fp-a", b"http://x/fp-a", b"/health", b"/",
])  # fmt: skip
BODIES = st.sampled_from([b""] * 8 + [b"abc", b"3\r\nabc\r\n0\r\n\r\n", b"\r\n", B])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draws a request, usually a plain one."""
    method = draw(st.sampled_from([b"GET"] * 6 + [b"HEAD"] * 2 + [b"POST", b"get"]))
    version = draw(st.sampled_from([b"HTTP/1.1"] * 9 + [b"HTTP/1.0"]))
    headers = draw(st.lists(HEADERS, max_size=3))
    return head(*headers, target=draw(TARGETS), method=method, version=version) + draw(BODIES)


@st.composite
def creates(draw: st.DrawFn) -> bytes:
    """Draws a create, usually a plain one."""
    body = draw(st.sampled_from([URL] * 6 + [b"", b"{}", b"\xff", b'{"url": 1}']))
    if draw(st.sampled_from([True] * 4 + [False])):
        return post(body, *draw(st.lists(HEADERS, max_size=2)))
    target = draw(st.sampled_from([b"/api/v1/links", b"/api/v1/links?", b"/api/v1/links/x"]))
    length = draw(st.sampled_from([b"content-length: 3", b"Content-Length: %d " % len(body), b"x: y"]))
    return head(length, b"content-type: application/json", target=target, method=b"POST") + body


@st.composite
def conversations(draw: st.DrawFn) -> list[bytes]:
    """Draws requests with some changed bytes, in packets that end anywhere."""
    case = bytearray(b"".join(draw(st.lists(requests() | creates(), min_size=1, max_size=4))))
    for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
        at = draw(st.integers(0, len(case) - 1))
        case[at : at + draw(st.integers(0, 2))] = draw(
            st.sampled_from([b"", b" ", b"\r", b"\n", b"\0", b":", b"\xff"])
        )
    ends = sorted(draw(st.sets(st.integers(1, max(1, len(case) - 1)), max_size=5)))
    return [
        part
        for begin, end in zip([0, *ends], [*ends, len(case)], strict=True)
        if (part := bytes(case[begin:end]))
    ]


@trying(max_examples=EXAMPLES)
@given(conversations())
def test_both_paths_agree_on_whatever_is_said(pair: Pair, parts: list[bytes]) -> None:
    """Both paths answer random conversations alike, including bytes that are not HTTP."""
    pair.warm(*CODES)
    pair.agree(*parts)
