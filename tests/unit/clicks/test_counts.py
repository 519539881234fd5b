"""The clicks of an hour as a worker holds them, and how entries are made of them."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.clicks.counts import NOTHING, Classes, Counts, LeftOut
from snapurl.clicks.shipper import ENTRY_BYTES_MAX, codes_of_entry
from snapurl.clicks.stream import decode_entry, encode_counts, encode_sources
from snapurl.model import VALUES_MAX, SourceKind
from tests.support.clicks import plain

HOUR = datetime(2026, 11, 28, 19, tzinfo=UTC)
ROOM = 1_000_000


def counts_with(codes: int = ROOM, values: int = ROOM, visitors: int = ROOM) -> Counts:
    return Counts(codes, values, visitors, LeftOut())


def from_page(host: str) -> Classes:
    return Classes(((SourceKind.REFERRER, host), (SourceKind.CHANNEL, "link")))


def test_clicks_of_codes_beyond_the_room_are_dropped_and_reported() -> None:
    """Clicks of further codes are dropped, those of held codes are counted."""
    counts = counts_with(codes=2)
    for code in "abcacb":
        counts.add(code, 10, NOTHING)
    assert (counts.clicks, counts.left_out.clicks) == ({"a": 20, "b": 20}, 20)


@pytest.mark.parametrize("kind", list(SourceKind))
def test_made_up_values_of_one_code_take_bounded_space(kind: SourceKind) -> None:
    """A code has so many values of a kind and no more; clicks of further ones count under `*`, and are reported."""
    counts = counts_with()
    for number in range(5_000):
        counts.add("a", 2, Classes(((kind, f"v{number}"),)))
    counts.add("b", 1, Classes(((kind, "v1"),)))
    found = counts.sources["a"][kind]
    most = VALUES_MAX[kind]
    assert len(found) == most + 1
    assert (found["*"], sum(found.values())) == (10_000 - 2 * most, 10_000)
    assert counts.left_out.capped == {kind: 10_000 - 2 * most}
    assert counts.sources["b"] == {kind: {"v1": 1}}
    assert counts.values_held == most + 2


def test_values_and_visitors_beyond_the_room_are_left_out_and_clicks_count() -> None:
    """Over all codes values and visitors have bounds; beyond them known ones still count, and so do clicks."""
    counts = counts_with(values=3, visitors=2)
    for host, visitor in (("x", b"1"), ("y", b"2"), ("x", b"1"), ("z", b"3")):
        classes = from_page(host)
        counts.add("a", 1, Classes(classes.values, visitor=visitor))
    counts.add("b", 1, Classes(visitor=b"1"))
    assert counts.clicks == {"a": 4, "b": 1}
    assert plain(counts.sources) == {"a": {"referrer": {"x": 2, "y": 1}, "channel": {"link": 4}}}
    assert counts.visitors == {"a": {b"1", b"2"}}
    assert (counts.left_out.values, counts.left_out.visitors) == (1, 2)


def test_what_is_taken_out_makes_room() -> None:
    """The parts of an entry are taken out with all that belongs to their codes, and leave their room."""
    counts = counts_with()
    for code in "ab":
        counts.add(code, 2, Classes(from_page("x").values, is_bot=True, visitor=b"1"))
    part = counts.pop(["a"])
    for each, code in ((part, "a"), (counts, "b")):
        assert (each.clicks, each.bots, each.visitors) == ({code: 2}, {code: 2}, {code: {b"1"}})
        assert (list(each.sources), each.values_held, each.visitors_held) == ([code], 2, 1)


def test_an_entry_comes_back_as_it_went_in() -> None:
    """What a worker encodes is what the consumer counts: hour, clicks, bots, and values of any script."""
    counts = counts_with()
    counts.add("a", 3, Classes(((SourceKind.UTM_SOURCE, 'b\u00fc"\\cher'), (SourceKind.CHANNEL, "qr"))))
    counts.add("a", 2, Classes(((SourceKind.BOT, "curl"),), is_bot=True))
    counts.add("b", 1, NOTHING)
    fields = {
        b"clicks": encode_counts(HOUR, counts.clicks),
        b"bots": encode_counts(HOUR, counts.bots),
        b"sources": encode_sources(HOUR, counts.sources),
    }
    first, second = decode_entry(b"7-1", fields)
    assert (first.code, first.day, first.hour, first.clicks, first.bots) == ("a", HOUR.date(), 19, 5, 2)
    assert first.sources == {
        SourceKind.UTM_SOURCE: {'b\u00fc"\\cher': 3},
        SourceKind.CHANNEL: {"qr": 3},
        SourceKind.BOT: {"curl": 2},
    }
    assert (second.code, second.clicks, second.bots, second.sources) == ("b", 1, 0, {})


@pytest.mark.parametrize("values", [0, 1, 7, 300])
@pytest.mark.parametrize("value", ["x", "x" * 255, "\u00fc" * 50, '"' * 100])
@pytest.mark.parametrize("codes", [1, 2_500])
def test_an_entry_is_bounded_in_bytes(values: int, value: str, codes: int) -> None:
    """No entry is longer than its bound, whatever the clicks have said; all codes are sent, in their order."""
    counts = counts_with()
    for number in range(codes):
        host = f"{number % (values + 1)}{value}"[:255]
        counts.add(f"code{number:060d}", 1, Classes(((SourceKind.REFERRER, host),), is_bot=True))
    for number in range(values):
        told = tuple((kind, f"{number}{value}"[:255]) for kind in SourceKind)
        counts.add("code" + "0" * 60, 1, Classes(told, visitor=b"%08d" % number))
    expected, sent = list(counts.clicks), []
    while counts.clicks:
        part = counts.pop(codes_of_entry(counts))
        fields = encode_counts(HOUR, part.clicks), encode_counts(HOUR, part.bots)
        payload = b"".join((*fields, encode_sources(HOUR, part.sources)))
        visitors = sum(map(len, b"".join(b"".join(each) for each in part.visitors.values()).split()))
        assert len(payload) + visitors <= ENTRY_BYTES_MAX
        sent += list(part.clicks)
    assert sent == expected


KINDS = st.sampled_from(list(SourceKind))
CLASSES = st.builds(
    Classes,
    st.dictionaries(KINDS, st.sampled_from([f"v{number}" for number in range(9)])).map(
        lambda told: tuple(told.items())
    ),
    st.booleans(),
    st.sampled_from([b"", b"1", b"2"]),
)


@given(
    added=st.lists(st.tuples(st.sampled_from("abc"), st.integers(1, 9), CLASSES), max_size=40),
    values=st.integers(0, 30),
)
def test_clicks_are_exact_and_no_kind_says_more(added: list[tuple[str, int, Classes]], values: int) -> None:
    """Whatever finds no room, clicks are exact, bots a part of them, and the values of a kind sum to no more."""
    counts = counts_with(values=values)
    expected: Counter[str] = Counter()
    for code, count, classes in added:
        counts.add(code, count, classes)
        expected[code] += count
    assert counts.clicks == expected
    assert all(clicks <= expected[code] for code, clicks in counts.bots.items())
    for code, kinds in counts.sources.items():
        assert all(sum(each.values()) <= expected[code] for each in kinds.values())
    held = sum(len(each) for kinds in counts.sources.values() for each in kinds.values())
    assert held == counts.values_held <= values
