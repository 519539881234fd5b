"""The bytes of a redirect."""

from __future__ import annotations

import pytest

from snapurl.http.redirect import redirect_bytes, redirect_frame

DATE = "Sun, 06 Nov 1994 08:49:37 GMT"


@pytest.mark.parametrize(
    ("status", "phrase"),
    [(301, "Moved Permanently"), (302, "Found"), (307, "Temporary Redirect"), (308, "Permanent Redirect")],
)
def test_a_redirect_is_these_bytes(status: int, phrase: str) -> None:
    """A redirect has Location, a cache age of zero for every status, a Date, no body, and a Connection header."""
    assert (
        redirect_bytes("https://example.org/", status, DATE, keep_alive=True)
        == (
            f"HTTP/1.1 {status} {phrase}\r\n"
            "location: https://example.org/\r\n"
            "cache-control: private, max-age=0\r\n"
            f"date: {DATE}\r\n"
            "content-length: 0\r\n"
            "connection: keep-alive\r\n"
            "\r\n"
        ).encode()
    )
    assert b"connection: close" in redirect_bytes("https://example.org/", status, DATE, keep_alive=False)


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_the_frame_around_an_address_makes_the_same_answer(status: int) -> None:
    """A URL between the two parts of the frame is, byte for byte, the complete response."""
    before, after = redirect_frame(status, DATE)
    url = "https://example.org/?a=b"
    assert before + url.encode() + after == redirect_bytes(url, status, DATE, keep_alive=True)
