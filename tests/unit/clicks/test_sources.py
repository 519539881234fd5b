"""The referrer and the browser of a click, from the headers of its request."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.clicks.sources import BROWSERS, browser_of, is_prefetch, referrer_of
from snapurl.clicks.stream import VALUE_CHARS_MAX


@pytest.mark.parametrize(
    ("header", "host"),
    [
        (None, ""),
        (b"", ""),
        (b" \t", ""),
        (b"https://www.example.com/a?b=c", "www.example.com"),
        (b"HTTP://Example.COM", "example.com"),
        (b"http://user:secret@example.com:8080?x", "example.com"),
        (b"https://example.com.#x", "example.com"),
        (b"https://192.0.2.1/", "192.0.2.1"),
        (b"https://example.com/@evil.example/", "example.com"),
        (b"android-app://com.example/", "*"),
        (b"https://", "*"),
        (b"https:///a", "*"),
        (b"https://[2001:db8::1]/", "*"),
        (b"https://" + b"a" * 254 + b"/", "*"),
        ("https://b\u00fccher.example/".encode(), "*"),
        (b"example.com", "*"),
    ],
)
def test_the_referrer_is_a_host_and_no_more(header: bytes | None, host: str) -> None:
    """The referrer is stored as a host in lower case, without path, port, user and password."""
    assert referrer_of(header) == host


@pytest.mark.parametrize(
    ("header", "family"),
    [
        (None, ""),
        (b"", ""),
        (b"Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0", "firefox"),
        (b"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0.0.0 Safari/537.36", "chrome"),
        (b"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36 Edg/140.0", "edge"),
        (b"Mozilla/5.0 AppleWebKit/537.36 (KHTML, like Gecko) Chrome/140.0 Safari/537.36 OPR/120.0", "opera"),
        (b"Mozilla/5.0 (Linux; Android 14) SamsungBrowser/28.0 Chrome/130.0 Mobile Safari/537.36", "samsung"),
        (b"Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 Version/18.0 Mobile/15E148 Safari/604.1", "safari"),
        (b"Mozilla/5.0 (iPhone) AppleWebKit/605.1.15 CriOS/140.0 Mobile/15E148 Safari/604.1", "chrome"),
        (b"Mozilla/5.0 (compatible; Googlebot/2.1; +http://www.google.com/bot.html)", "bot"),
        (b"facebookexternalhit/1.1", "bot"),
        (b"curl/8.5.0", "program"),
        (b"python-requests/2.32", "program"),
        (b"WhatsApp/2.23.20.0", "bot"),
        (b"http.rb/5.1.1 (Mastodon/4.2.1; +https://social.example/)", "bot"),
        (b"Iframely/1.3.1 (+https://iframely.com/docs/about)", "bot"),
        (b"Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36 HeadlessChrome/140.0 Safari/537.36", "bot"),
        (
            b"Mozilla/5.0 (Linux; Android 9; CUBOT X19) AppleWebKit/537.36 Chrome/140.0 Safari/537.36",
            "chrome",
        ),
        (b"node-fetch/1.0 (+https://github.com/bitinn/node-fetch)", "program"),
        (b"axios/1.7.2", "program"),
        (b"node", "program"),
        (b"Some-Library/0.1 (linux)", "program"),
        (b"something else", "*"),
    ],
)
def test_the_browser_is_a_family(header: bytes | None, family: str) -> None:
    """The browser is stored as a family; a browser that also names others is stored as what it is."""
    assert browser_of(header) == family
    assert family in BROWSERS


@pytest.mark.parametrize(
    ("purposes", "is_one"),
    [
        ([], False),
        (["prefetch"], True),
        (["prefetch;prerender"], True),
        (["", "Preview"], True),
        (["prefetching"], False),
    ],
)
def test_a_page_that_is_loaded_in_advance_is_told_apart(purposes: list[str], is_one: bool) -> None:
    """A request whose Sec-Purpose, Purpose or X-Moz says that nobody has clicked yet is a prefetch."""
    assert is_prefetch(purposes) == is_one


@given(st.binary(max_size=400))
def test_whatever_is_said_fits(header: bytes) -> None:
    """Whatever the header contains, the stored value is printable and short enough for the shards."""
    for prefix in (b"", b"http://", b"https://a."):
        host = referrer_of(prefix + header)
        assert len(host) <= VALUE_CHARS_MAX
        assert host in ("", "*") or (host.isascii() and host.isprintable())
    assert browser_of(header) in BROWSERS
