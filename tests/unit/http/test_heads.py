"""Heads that are refused because two servers could parse them differently."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.http.fastpath.plain_heads import REDIRECT_HEAD
from snapurl.http.wire.heads import UNAMBIGUOUS_HEAD

GOOD = (
    b"GET / HTTP/1.1",
    b"POST /api/v1/links HTTP/1.0\r\nHost: x\r\nContent-Length: 12",
    b"GET /a HTTP/1.1\r\ncontent-length: \t12 \r\nhost: x",
    b"BREW http://x/a?b#c HTTP/1.1\r\nX-Empty:\r\nx_y: \xc3\xbc \xff",
    b"GET /a HTTP/1.1\r\ncontent-lengths: x",
)
BAD = (
    b"GET / HTTP/1.2",
    b"GET / HTTP/1.1\r\n",
    b"GET / HTTP/1.1 ",
    b"GET  / HTTP/1.1",
    b"GET /a b HTTP/1.1",
    b"GET /\x00 HTTP/1.1",
    b"G@T / HTTP/1.1",
    b"GET / HTTP/1.1\nx: y",
    b"GET / HTTP/1.1\r\nx: y\nz: a",
    b"GET / HTTP/1.1\r\nx: y\r",
    b"GET / HTTP/1.1\r\nx: y\x00",
    b"GET / HTTP/1.1\r\nx : y",
    b"GET / HTTP/1.1\r\nx: y\r\n z",
    b"GET / HTTP/1.1\r\n: y",
    b"GET / HTTP/1.1\r\nx",
    b"GET / HTTP/1.1\r\nx\xa0: y",
    b"GET / HTTP/1.1\r\ncontent-length:",
    b"GET / HTTP/1.1\r\ncontent-length: \xd9\xa5",
    b"GET / HTTP/1.1\r\nContent-Length: +5\r\nx: y",
    b"GET / HTTP/1.1\r\nContent-Length: 5, 5",
)


@pytest.mark.parametrize("head", GOOD)
def test_what_can_be_read_in_one_way_passes(head: bytes) -> None:
    """Heads that real clients send are accepted, including non-ASCII bytes in values."""
    assert UNAMBIGUOUS_HEAD.fullmatch(head)


@pytest.mark.parametrize("head", BAD)
def test_what_can_be_read_in_two_ways_does_not(head: bytes) -> None:
    """Heads that RFC 9112 requires or allows servers to refuse are refused."""
    assert not UNAMBIGUOUS_HEAD.fullmatch(head)


@given(st.lists(st.sampled_from([*b"GET /a HTTP/1.1:\r\n \t\0\xff", 0x0D, 0x0A]), max_size=40).map(bytes))
def test_what_the_fast_path_takes_passes(tail: bytes) -> None:
    """The fast path answers no head that Sanic would refuse."""
    found = REDIRECT_HEAD.match(b"GET /a HTTP/1.1\r\nHost: x\r\nx:" + tail + b"\r\n\r\n")
    assert found is None or UNAMBIGUOUS_HEAD.fullmatch(found[0].removesuffix(b"\r\n\r\n"))
