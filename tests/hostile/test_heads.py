"""Any bytes on a connection get an answer of the documented set, or its end: never a 500, never a hang."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import settings as trying
from hypothesis import strategies as st

from snapurl.config import Settings
from tests.integration.http.paths import Pair, paired

EXAMPLES = 60
REQUEST_S_MAX = 1.0  # what is incomplete is given up after this time
STATUSES = {200, 204, 302, 400, 401, 404, 405, 408, 413, 415, 422}
FIRST_LINE = re.compile(rb"HTTP/1\.1 (\d{3}) [A-Za-z -]+\r\n")

TOKENS = st.sampled_from(
    [b"GET", b"HEAD", b"POST", b"OPTIONS", b"DELETE", b"PRI", b"get", b"\x16\x03\x01", b""]
)
TARGETS = st.sampled_from(
    [
        b"/fp-a", b"/", b"*", b"/api/v1/links", b"/api/v1/ring?x=\xff", b"http://x/fp-a", b"/\xc3\xa9", b"//",
        b"/%",        b"/fp-a?\xe9", b"/fp-a#", b"/" + b"a" * 9_000, b"",
    ]
)  # fmt: skip
VERSIONS = st.sampled_from(
    [b"HTTP/1.1"] * 6 + [b"HTTP/1.0", b"HTTP/2.0", b"HTTP/1.10", b"http/1.1", b"RTSP/1.0", b""]
)
LINE_ENDS = st.sampled_from([b"\r\n"] * 12 + [b"\n", b"\r", b"\r\r\n", b"\n\r", b""])
NAMES = st.sampled_from(
    [
        b"Host", b"host ", b" host", b"Content-Length", b"Transfer-Encoding", b"Connection", b"Expect", b"Upgrade",
        b"Accept", b"Origin", b"Content-Type", b"X-Api-Key", b"Authorization", b"X-Forwarded-For", b"Cookie", b"",
        b"x\x00", b"x" * 300, b"\xff",
    ]
)  # fmt: skip
VALUES = st.sampled_from(
    [
        b"x", b"", b"0", b"5", b"-1", b"chunked", b"Chunked", b"gzip, chunked", b"close", b"keep-alive",
        b"websocket", b"100-continue", b"application/json", b"a b", b"[::1]:80", b"\xff", b"\x00", b"y" * 9_000,
        b"text/html,*/*;q=x",
    ]
) | st.binary(max_size=12)  # fmt: skip
BODIES = st.sampled_from([b"", b"hello", b"{}", b"5\r\nhello\r\n0\r\n\r\n", b"0\r\n\r\n", b"\r\n", b"zz\r\n"])


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """Draws what could be a request: its parts in order, each of them good or bad, with good or bad line ends."""
    line = draw(st.sampled_from([b" "] * 8 + [b"  ", b"\t"])).join(
        [draw(TOKENS), draw(TARGETS), draw(VERSIONS)]
    )
    lines = [line, *([b"Host: x"] if draw(st.booleans()) else [])]
    lines += [draw(NAMES) + b":" + draw(VALUES) for _ in range(draw(st.integers(0, 4)))]
    return b"".join(each + draw(LINE_ENDS) for each in [*lines, b""]) + draw(BODIES)


@pytest.fixture(scope="module")
def pair(shared_settings: Settings) -> Iterator[Pair]:
    """Yields a service with the fast path and one without."""
    unlimited = {"limit_missing": "none", "limit_create": "none"}
    with paired(
        shared_settings.model_copy(update=unlimited),
        REQUEST_TIMEOUT=REQUEST_S_MAX,
        RESPONSE_TIMEOUT=REQUEST_S_MAX,
    ) as pair:
        yield pair


@trying(max_examples=EXAMPLES)
@given(st.lists(requests() | st.binary(min_size=1, max_size=60), min_size=1, max_size=3))
def test_any_bytes_get_a_documented_answer_or_the_end(pair: Pair, parts: list[bytes]) -> None:
    """Whatever bytes arrive, on either path: only answers that are documented, all with a Date, then the end."""
    for exchange in pair.converse(*parts):
        statuses = [int(status) for status in FIRST_LINE.findall(exchange.answers)]
        assert set(statuses) <= STATUSES | {100, 503}
        assert not [name for name in exchange.counted if "'internal'" in name]
        assert exchange.answers.count(b"\r\ndate: ") == len([status for status in statuses if status >= 200])
