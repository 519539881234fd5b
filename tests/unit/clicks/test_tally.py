"""Counting clicks in memory, and the encoding of stream entries."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.clicks.stream import decode_entry, encode_entry, encode_sources, entry_id_of, entry_place
from snapurl.clicks.tally import Tally


def test_a_full_tally_goes_on_counting_the_codes_it_has() -> None:
    """A full tally drops and reports clicks of further codes, and still counts those of the codes it holds."""
    tally = Tally(2)
    for code in "abcacb":
        tally.record(code)
    assert tally.dropped == 2
    assert tally.take() == {"a": 2, "b": 2}
    assert tally.take() == {}


def test_a_tally_without_room_for_a_source_counts_the_click() -> None:
    """Click sources have a separate bound over all codes; at the bound, known sources are still counted."""
    tally = Tally(2, 2)
    for code, referrer in (("a", "x"), ("a", "y"), ("b", "x"), ("a", "y"), ("c", "x")):
        tally.record(code, referrer, "firefox")
    assert tally.sources() == {"a": {("x", "firefox"): 1, ("y", "firefox"): 2}}
    assert tally.take() == {"a": 3, "b": 1}
    tally.record("b", "x", "firefox")
    assert tally.sources() == {"b": {("x", "firefox"): 1}}


def test_a_request_that_says_nothing_takes_no_room_for_its_source() -> None:
    """A request without referrer and browser takes no space for its source; one with either takes half."""
    tally = Tally(9, 1)
    tally.record("a")
    tally.record("a", "", "firefox")
    assert tally.sources() == {"a": {("", "firefox"): 1}}
    assert tally.take() == {"a": 2}


def test_sources_come_back_by_kind() -> None:
    """Each click counts once for its referrer and once for its browser, if its request has them."""
    day = date(2026, 5, 1)
    entry = {b"clicks": encode_entry(day, {"a": 5, "b": 1}).encode()}
    sources = encode_sources(day, {"a": {("x", "firefox"): 2, ("x", "edge"): 1, ("", "edge"): 1}})
    with_sources, without = decode_entry(b"7-1", {**entry, b"sources": sources.encode()})
    assert {(item.kind.value, item.value, item.clicks) for item in with_sources.sources} == {
        ("referrer", "x", 3),
        ("browser", "firefox", 2),
        ("browser", "edge", 2),
    }
    assert (with_sources.clicks, without.sources) == (5, ())
    assert [row.sources for row in decode_entry(b"7-1", entry)] == [(), ()]


def test_an_entry_comes_back_as_it_went_in() -> None:
    """What a worker encodes is what the consumer counts."""
    rows = decode_entry(b"7-1", {b"clicks": encode_entry(date(2026, 5, 1), {"a": 2, "b": 1}).encode()})
    assert [(row.code, row.clicks, row.day) for row in rows] == [
        ("a", 2, date(2026, 5, 1)),
        ("b", 1, date(2026, 5, 1)),
    ]
    assert {row.entry for row in rows} == {entry_place(b"7-1")}


@pytest.mark.parametrize("payload", [b"", b"{", b"[]", b'{"x":{"a":1}}', b'{"2026-05-01":{"a":-1}}', b"3"])
def test_a_malformed_entry_is_told_apart(payload: bytes) -> None:
    """A malformed entry raises one of the errors for which the consumer skips it."""
    with pytest.raises((ValueError, KeyError, TypeError, AttributeError)):
        decode_entry(b"7-1", {b"clicks": payload})


@given(
    st.lists(st.tuples(st.integers(0, 2**42), st.integers(0, 2**20 - 1)), min_size=2, max_size=2, unique=True)
)
def test_places_sort_as_ids_do(ids: list[tuple[int, int]]) -> None:
    """The number of an entry sorts like its id, fits a bigint, and converts back to the id."""
    places = [entry_place(f"{ms}-{sequence}".encode()) for ms, sequence in ids]
    assert (places[0] < places[1]) == (ids[0] < ids[1])
    assert max(places) < 2**63
    assert [entry_id_of(place) for place in places] == [f"{ms}-{sequence}" for ms, sequence in ids]
