"""What is refused before a head is complete, and queries with bytes outside ASCII."""

from __future__ import annotations

from time import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.http.wire.dates import DateClock
from snapurl.http.wire.heads import REQUEST_LINE, UNAMBIGUOUS_HEAD
from snapurl.http.wire.prompt import IMPOSSIBLE, encode_query

HEAD = b"GET /a?b HTTP/1.1\r\nHost: x\r\nx:\t\xc3\xbc y"


@given(st.integers(0, len(HEAD)))
def test_no_part_of_a_good_head_is_refused(end: int) -> None:
    """A head that is accepted when it is complete is not refused while it arrives."""
    assert UNAMBIGUOUS_HEAD.fullmatch(HEAD)
    assert not IMPOSSIBLE.search(HEAD[: max(1, end)])
    assert REQUEST_LINE.fullmatch(HEAD.partition(b"\r\n")[0])


@given(st.lists(st.sampled_from([*b"GET /a\r\n\t:\0\x16\x7f\xff"]), min_size=1, max_size=20).map(bytes))
def test_only_what_cannot_become_a_head_is_refused(beginning: bytes) -> None:
    """Bytes that are refused early begin no head that is accepted when it is complete."""
    if IMPOSSIBLE.search(beginning):
        for rest in (b"", b"\n", b" / HTTP/1.1", b"\nx: y", b": y"):
            assert not UNAMBIGUOUS_HEAD.fullmatch(beginning + rest)


@pytest.mark.parametrize(
    ("line", "encoded"),
    [
        (b"GET /a?q=\xc3\xa9&\xff HTTP/1.1", b"GET /a?q=%C3%A9&%FF HTTP/1.1"),
        (b"GET /a?b?%41 HTTP/1.1", b"GET /a?b?%41 HTTP/1.1"),
        (b"GET /\xc3\xa9?\xe9 HTTP/1.1", b"GET /\xc3\xa9?%E9 HTTP/1.1"),
        (b"GET /\xc3\xa9 HTTP/1.1", b"GET /\xc3\xa9 HTTP/1.1"),
    ],
)
def test_only_the_query_is_encoded(line: bytes, encoded: bytes) -> None:
    """Each byte outside ASCII in the query is percent-encoded; everything else stays as it is."""
    assert encode_query(line) == encoded


def test_a_date_is_kept_for_its_second() -> None:
    """Date is an IMF-fixdate in GMT, valid until the next second begins."""
    clock = DateClock()
    before = time()
    text = clock.at(7.0)
    assert text.endswith(" GMT") and len(text) == 29
    assert 7.0 < clock.until_s <= 8.0
    assert clock.until_s - 7.0 <= 1.0 - before % 1 + (time() - before) + 1e-6 or time() // 1 > before // 1
    clock.text = "kept"
    assert clock.at(clock.until_s - 0.001) == "kept"
    assert clock.at(clock.until_s) != "kept"
