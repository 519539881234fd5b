"""What a short URL forwards to its target: merged queries, appended paths, and nothing that leads elsewhere."""

from __future__ import annotations

from urllib.parse import urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.errors import BadRequest, TooLarge
from snapurl.forwarded import FORWARDED_BYTES_MAX, forwarded

BASE = "https://example.org/docs?a=1&b=2#end"


@pytest.mark.parametrize(
    ("url", "rest", "query", "leads"),
    [
        (BASE, b"", b"", BASE),
        (BASE, b"x/y", b"", "https://example.org/docs/x/y?a=1&b=2#end"),
        ("https://example.org/docs/", b"x/", b"", "https://example.org/docs/x/"),
        ("https://example.org/", b"x", b"q", "https://example.org/x?q"),
        (BASE, b"", b"c=3", "https://example.org/docs?a=1&b=2&c=3#end"),
        (BASE, b"", b"a=3", "https://example.org/docs?b=2&a=3#end"),
        (BASE, b"", b"a=3&a=4", "https://example.org/docs?b=2&a=3&a=4#end"),
        (BASE, b"", b"%61=3", "https://example.org/docs?b=2&%61=3#end"),
        (BASE, b"", b"&&", BASE),
        (BASE, b"", b"qr", BASE),
        (BASE, b"", b"qr=1&qr", "https://example.org/docs?a=1&b=2&qr=1#end"),
        ("https://example.org/?a+b=1", b"", b"a%20b=2", "https://example.org/?a%20b=2"),
        ("https://example.org/", b"", b"x=y?z/&w=%zz\xc3\xbc\"<", "https://example.org/?x=y?z/&w=%25zz%C3%BC%22%3C"),
        ("https://example.org/a", b"/evil.example/", b"", "https://example.org/a//evil.example/"),
        ("https://example.org/", b"/evil.example", b"", "https://example.org//evil.example"),
        ("https://example.org/", b"@evil.example:80", b"", "https://example.org/@evil.example:80"),
        ("https://example.org/a", b"b%2Fc%2e\\d%", b"", "https://example.org/a/b%2Fc%2e%5Cd%25"),
        ("https://example.org/a", b"\xff", b"\xff", "https://example.org/a/%FF?%FF"),
    ],
)  # fmt: skip
def test_path_and_query_reach_the_target(url: str, rest: bytes, query: bytes, leads: str) -> None:
    """The path goes behind the target's, a parameter replaces those of its name, and fragments stay last."""
    assert forwarded(url, rest, query) == leads


@pytest.mark.parametrize(
    "rest", [b"..", b"a/../b", b"./a", b"%2e%2E/a", b"a/.%2e", b"a\\..\\b", b"a/..%2Fb", b"%2e%2Fb"]
)
def test_no_path_leads_upwards(rest: bytes) -> None:
    """A segment that would lead out of the target's path is refused, however it is spelled."""
    with pytest.raises(BadRequest):
        forwarded(BASE, rest, b"")


def test_what_is_forwarded_is_bounded() -> None:
    """Path and query together have at most FORWARDED_BYTES_MAX bytes."""
    half = b"x" * (FORWARDED_BYTES_MAX // 2)
    assert len(forwarded(BASE, half, half)) > FORWARDED_BYTES_MAX
    with pytest.raises(TooLarge):
        forwarded(BASE, half, half + b"x")


@given(rest=st.binary(max_size=40), query=st.binary(max_size=40))
def test_whatever_is_forwarded_the_host_stays(rest: bytes, query: bytes) -> None:
    """No path or query changes scheme, host or port of the target, or brings a character that no URL has."""
    try:
        url = forwarded("https://example.org:8443/a", rest, query)
    except BadRequest:
        return
    parts = urlsplit(url)
    assert (parts.scheme, parts.netloc) == ("https", "example.org:8443")
    assert parts.path.startswith("/a")
    assert url.isascii() and url.isprintable() and not set(url) & set(' "<>\\^`{|}')
