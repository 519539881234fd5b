"""Campaign and channel of a click, from the query of the short URL and of the target."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.clicks.campaigns import FIELDS_MAX, VALUE_BYTES_MAX, campaign_of, channel_of

PLAIN = b"https://example.org/a"


@pytest.mark.parametrize(
    ("query", "target", "campaign"),
    [
        (None, PLAIN, ("", "", "")),
        (
            b"utm_source=Mail&utm_medium=e-mail&utm_campaign=Spring+Sale",
            PLAIN,
            ("mail", "e-mail", "spring sale"),
        ),
        (b"a=b&UTM_Source=x", PLAIN, ("x", "", "")),
        (b"utm%5Fsource=x", PLAIN, ("x", "", "")),
        (b"utm_source=%6dail", PLAIN, ("mail", "", "")),
        (b"utm_source=b%C3%BCcher", PLAIN, ("b\u00fccher", "", "")),
        (b"utm_source=B%C3%9CCHER", PLAIN, ("b\u00fccher", "", "")),
        (b"utm_source=b%FCcher", PLAIN, ("b\ufffdcher", "", "")),
        (b"utm_source=a%00b%0d%0ac", PLAIN, ("abc", "", "")),
        (b"utm_source=%", PLAIN, ("%", "", "")),
        (b"utm_source=%zz", PLAIN, ("%zz", "", "")),
        (b"utm_source=%253A", PLAIN, ("%3a", "", "")),
        (b"utm_source=a=b", PLAIN, ("a=b", "", "")),
        (b"utm_source=%26x", PLAIN, ("&x", "", "")),
        (b"utm_source=+%20x%09+", PLAIN, ("x", "", "")),
        (b"utm_source=%07", PLAIN, ("*", "", "")),
        (b"utm_source", PLAIN, ("", "", "")),
        (b"utm_source=&utm_source=b&utm_source=c", PLAIN, ("b", "", "")),
        (b"xutm_source=a&utm_source_=b&utm_term=c", PLAIN, ("", "", "")),
        (None, PLAIN + b"?utm_source=own&x#utm_medium=no", ("own", "", "")),
        (None, PLAIN + b"?x#?utm_source=no", ("", "", "")),
        (None, PLAIN + b"/utm_source=no", ("", "", "")),
        (b"utm_source=ad", PLAIN + b"?utm_source=own&utm_medium=own", ("ad", "own", "")),
        (b"utm_source=", PLAIN + b"?utm_source=own", ("own", "", "")),
    ],
)
def test_what_the_short_url_says_counts_before_what_the_target_says(
    query: bytes | None, target: bytes, campaign: tuple[str, str, str]
) -> None:
    """A campaign is what the query of the short URL says, each parameter else from the target, as readable text."""
    assert campaign_of(query, target) == campaign


@pytest.mark.parametrize(
    ("query", "channel"),
    [
        (None, "link"),
        (b"", "link"),
        (b"qr", "qr"),
        (b"utm_source=x&qr", "qr"),
        (b"qr=1", "link"),
        (b"xqr", "link"),
        (b"a=qr", "link"),
        (b"&" * FIELDS_MAX + b"qr", "link"),
    ],
)
def test_a_scan_is_told_by_the_mark_of_qr_codes(query: bytes | None, channel: str) -> None:
    """A click counts as a scan if the short URL has the mark that QR codes have."""
    assert channel_of(query) == channel


@given(query=st.binary(max_size=700), value=st.text(max_size=150))
def test_whatever_is_said_fits(query: bytes, value: str) -> None:
    """No query raises an error, and what is kept of one is short and can be printed and stored."""
    encoded = value.encode("utf-8", "surrogatepass")
    for text in (query, b"utm_source=" + query, b"utm_campaign=" + encoded, b"x&utm_medium=" + encoded):
        for found in (*campaign_of(text, PLAIN), *campaign_of(None, PLAIN + b"?" + text)):
            assert len(found.encode()) <= VALUE_BYTES_MAX
            assert not found or found.isprintable()
        assert channel_of(text) in ("link", "qr")
