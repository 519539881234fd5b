"""Counting clicks in memory: all that a redirect does for its click."""

from __future__ import annotations

from snapurl.clicks.tally import SAID_MAX, Tally
from tests.support.clicks import said, taken


def test_a_full_tally_goes_on_counting_the_codes_it_has() -> None:
    """A full tally drops and reports clicks of further codes, and still counts those of the codes it holds."""
    tally = Tally(2)
    for code in "abcacb":
        tally.record(code)
    assert tally.dropped == 2
    assert taken(tally) == {"a": 2, "b": 2}
    assert taken(tally) == {}


def test_clicks_that_say_the_same_are_one() -> None:
    """Clicks of a link that say the same, from the same address to the same target, take the space of one."""
    tally = Tally(2)
    for _ in range(3):
        tally.record("a", said("x.example"), "192.0.2.1", b"https://example.org/")
    tally.record("a", said("x.example"), "192.0.2.2", b"https://example.org/")
    assert (len(tally), tally.clicks) == (2, 4)
    assert sorted(tally.take().values()) == [1, 3]
    assert (len(tally), tally.clicks) == (0, 0)


def test_the_first_click_since_a_flush_is_told() -> None:
    """Who ships the clicks can rest until there is one: the first of each kind is told, and none that follows."""
    tally, told = Tally(10), list[int]()
    tally.on_first = lambda: told.append(tally.clicks)
    for _ in range(2):
        for code in "aab":
            tally.record(code, said("x.example"))
        assert told.pop() == 0
        tally.record("a")
        assert told.pop() == 3
        tally.record("b")
        assert not told
        tally.take()


def test_made_up_headers_take_bounded_space_and_cost_no_click() -> None:
    """Beyond a number of different clicks, further ones count without what they said, and are reported."""
    tally = Tally(10)
    for number in range(SAID_MAX + 1_000):
        tally.record("a", said(f"{number}.example"))
    tally.record("a", said("0.example"))
    assert len(tally) == SAID_MAX + 1
    assert tally.unsaid == 1_000
    assert taken(tally) == {"a": SAID_MAX + 1_001}


def test_a_tally_that_keeps_nothing_of_what_is_said_counts_clicks() -> None:
    """Where statistics are turned off nothing that a request says is kept, and nothing is reported as left out."""
    tally = Tally(10, 0)
    tally.record("a", said("x.example"), "192.0.2.1")
    assert tally.take() == {("a", None, "", b""): 1}
    assert tally.unsaid == 0
