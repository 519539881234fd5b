"""The clicks that a consumer holds, and what one call takes of them."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from snapurl.clicks import backlog as module
from snapurl.clicks.backlog import Backlog, Size
from snapurl.model import ClickRow, SourceKind, Sources

DAY = date(2026, 5, 1)


def row(slot: int, entry: int, sources: int = 0, code: str = "a") -> ClickRow:
    told: Sources = (
        {SourceKind.REFERRER: {f"{number}.example": 1 for number in range(sources)}} if sources else {}
    )
    return ClickRow(slot, entry, code, DAY, sources or 1, told)


@pytest.fixture
def low_bounds(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(module, "ROWS_PER_CALL", 4)
    monkeypatch.setattr(module, "SOURCES_PER_CALL", 6)
    monkeypatch.setattr(module, "BYTES_PER_CALL", 1_000)
    yield


ROWS = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8)), max_size=40)


@pytest.mark.usefixtures("low_bounds")
@pytest.mark.parametrize("entries_max", [None, 1, 3])
def test_calls_carry_every_row_once_in_order_and_within_the_bounds(entries_max: int | None) -> None:
    """Calls carry each row once and each slot in order; only a single entry may exceed the bounds."""

    @given(ROWS)
    def check(given_rows: list[tuple[int, int]]) -> None:
        waiting = Backlog("s")
        rows = [row(slot, number // 3, sources) for number, (slot, sources) in enumerate(given_rows)]
        waiting.add(rows)
        taken: dict[int, list[ClickRow]] = {}
        while call := waiting.take(list(waiting.waiting), entries_max):
            flat = [item for found in call.values() for item in found]
            entries = {(item.slot, item.entry) for item in flat}
            size = Size()
            for item in flat:
                size.add(item)
            assert size.fits or len(entries) == 1
            assert entries_max is None or all(
                len({item.entry for item in found}) <= entries_max for found in call.values()
            )
            for slot, found in call.items():
                assert not entries & {(item.slot, item.entry) for item in taken.get(slot, ())}
                taken.setdefault(slot, []).extend(found)
            assert waiting.drop(call) == sum(item.clicks for item in flat)
        assert (waiting.rows, waiting.sources, waiting.waiting) == (0, 0, {})
        assert taken == {
            slot: [item for item in rows if item.slot == slot] for slot in {item.slot for item in rows}
        }

    check()


@pytest.mark.usefixtures("low_bounds")
def test_a_slot_with_many_clicks_gives_way_to_the_others() -> None:
    """A slot that has more than one call carries takes its next turn behind the other slots."""
    waiting = Backlog("s")
    waiting.add([row(1, entry) for entry in range(20)])
    waiting.add([row(2, 20)])
    first = waiting.take(list(waiting.waiting))
    assert first.keys() == {1}
    waiting.drop(first)
    assert next(iter(waiting.take(list(waiting.waiting)))) == 2
    assert waiting.applied_to == 3


def test_rows_that_were_dropped_already_are_not_dropped_twice() -> None:
    """What another call has counted meanwhile is not counted again in the backlog."""
    waiting = Backlog("s")
    waiting.add([row(1, 1), row(1, 2)])
    call = waiting.take([1], 1)
    assert (waiting.drop(call), waiting.drop(call), waiting.rows) == (1, 0, 1)


def test_made_up_sources_of_many_entries_do_not_fill_a_call() -> None:
    """A call carries at most 100 values per code, day and kind from any number of entries, and all clicks."""
    waiting = Backlog("s")
    for entry in range(50):
        made_up = {f"{entry}-{number}.example": 2 for number in range(100)}
        told = {SourceKind.REFERRER: made_up, SourceKind.BROWSER: {"firefox": 200}}
        waiting.add([ClickRow(1, entry, "a", DAY, 200, told)])
    (rows,) = waiting.take([1]).values()
    assert [item.entry for item in rows] == list(range(50))
    referrers = [item.sources[SourceKind.REFERRER] for item in rows]
    assert len({value for values in referrers for value in values} - {"*"}) == 100
    assert sum(item.values for item in rows) == 100 + 49 + 50
    assert {sum(values.values()) for values in referrers} == {200}
    assert waiting.drop({1: rows}) == 50 * 200
    assert (waiting.rows, waiting.sources) == (0, 0)
