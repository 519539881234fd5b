"""Counting clicks in memory, and the encoding of stream entries."""

from __future__ import annotations

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.clicks.shipper import ENTRY_BYTES_MAX, codes_of_entry
from snapurl.clicks.stream import decode_entry, encode_entry, encode_sources, entry_id_of, entry_place
from snapurl.clicks.tally import VALUES_MAX, Tally

DAY = date(2026, 5, 1)


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
    tally = Tally(2, 3)
    for code, referrer in (("a", "x"), ("a", "y"), ("b", "x"), ("a", "y"), ("c", "x")):
        tally.record(code, referrer, "firefox")
    assert tally.sources() == {"a": ({"x": 1, "y": 2}, {"firefox": 3}), "b": ({}, {})}
    assert tally.sources_dropped == 2
    assert tally.take() == {"a": 3, "b": 1}
    tally.record("b", "x", "firefox")
    assert tally.sources() == {"b": ({"x": 1}, {"firefox": 1})}


def test_made_up_referrers_of_one_code_take_bounded_space() -> None:
    """A code has at most 100 referrers; clicks of further ones count under `*`, so that no click is missing."""
    tally = Tally(2, 10_000)
    for number in range(5_000):
        tally.record("a", f"{number}.example", "firefox")
    tally.record("b", "x", "firefox")
    referrers, browsers = tally.sources()["a"]
    assert len(referrers) == VALUES_MAX + 1
    assert (referrers["*"], sum(referrers.values()), browsers) == (4_900, 5_000, {"firefox": 5_000})
    assert tally.sources()["b"] == ({"x": 1}, {"firefox": 1})
    assert tally.take() == {"a": 5_000, "b": 1}


def test_a_request_that_says_nothing_takes_no_room_for_its_source() -> None:
    """A request without referrer and browser takes no space for its source."""
    tally = Tally(9, 1)
    tally.record("a")
    tally.record("a", "", "firefox")
    assert tally.sources() == {"a": ({}, {"firefox": 1})}
    assert tally.take() == {"a": 2}


def test_sources_that_are_turned_off_are_not_counted_as_dropped() -> None:
    """With a budget of 0 from the start no source is kept, and none is reported as dropped."""
    tally = Tally(9, 0)
    tally.record("a", "x", "firefox")
    assert (tally.sources(), tally.sources_dropped, tally.take()) == ({}, 0, {"a": 1})


def test_sources_come_back_by_kind() -> None:
    """Each click counts once for its referrer and once for its browser, if its request has them."""
    day = date(2026, 5, 1)
    entry = {b"clicks": encode_entry(day, {"a": 5, "b": 1}).encode()}
    sources = encode_sources(day, {"a": ({"x": 3}, {"firefox": 2, "edge": 2})})
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


@pytest.mark.parametrize("values", [0, 1, 7, 300])
@pytest.mark.parametrize("chars", [1, 255])
@pytest.mark.parametrize("codes", [1, 2_500])
def test_an_entry_is_bounded_in_bytes(values: int, chars: int, codes: int) -> None:
    """No entry is longer than its bound, whatever sources the clicks have; all codes are sent, in their order."""
    tally = Tally(codes, 10_000)
    for number in range(codes):
        tally.record(f"code{number:060d}", f"{number % (values + 1):0{chars}d}"[:chars], "samsung")
    for value in range(values):
        tally.record("code" + "0" * 60, f"{value:0{chars}d}"[:chars], "samsung")
    sources, counts = tally.sources(), tally.take()
    sent: list[str] = []
    while left := {code: counts[code] for code in counts if code not in set(sent)}:
        part = codes_of_entry(left, sources)
        payload = encode_entry(DAY, {code: counts[code] for code in part})
        payload += encode_sources(DAY, {code: sources[code] for code in part if code in sources})
        assert len(payload) <= ENTRY_BYTES_MAX
        sent += part
    assert sent == list(counts)


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
