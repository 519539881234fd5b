"""The totals and the time left that the migrator reports of a change."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tools.migrator.progress import Progress

BEFORE, AFTER, OTHER = ("db0", "db0"), ("db0", "db1"), ("db1", "db1")


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_totals_are_of_the_change_under_way() -> None:
    """After a cancel, and after a further change, totals and rows count from the newer goal."""
    for goal, word in ((BEFORE, "cancels"), (OTHER, "replaces")):
        progress = Progress(Clock())
        assert progress.observe(1, BEFORE, 0) == []
        assert progress.observe(2, AFTER, 3_273) == ["topology 2: 3273 slots begin to move"]
        progress.add_slots(57)
        progress.add_rows(1_000)
        lines = progress.observe(3, goal, 57)
        assert f"topology 3 {word} the change of topology 2" in lines[0]
        assert lines[1] == "topology 3: 57 slots begin to move"
        assert (progress.slots_total, progress.slots_left, progress.rows_copied) == (57, 57, 0)
        (line,) = progress.observe(3, goal, 0)
        assert line.startswith("topology 3: every slot is where the ring wants it")


def test_a_pause_does_not_begin_a_change_anew() -> None:
    """A topology that places every slot as before, such as that of `pause`, keeps the totals."""
    progress = Progress(Clock())
    progress.observe(2, AFTER, 100)
    progress.add_slots(40)
    assert progress.observe(3, AFTER, 60) == []
    assert (progress.slots_total, progress.slots_left) == (100, 60)


def test_the_time_left_is_right_once_it_is_shown() -> None:
    """Small first batches and uneven ones do not mislead: each time shown is within a third of the truth, and none
    is three times the one before it."""
    clock = Clock()
    progress = Progress(clock)
    progress.observe(2, AFTER, 3_001)
    clock.now += 0.4
    progress.add_slots(1)
    shown: list[tuple[float, float]] = []
    # 100 slots per second: batches of 80 that take 0.4 or 1.2 s
    for number in range(37):
        clock.now += 1.2 if number % 2 else 0.4
        progress.add_slots(80)
        if (eta_s := progress.eta_s()) is not None:
            shown.append((eta_s, progress.slots_left / 100))
    assert len(shown) > 30
    for eta_s, truth_s in shown:
        assert eta_s == pytest.approx(truth_s, rel=0.34, abs=2.0)
    for (one, _), (other, _) in pairwise(shown):
        assert other < 3 * one


def test_the_pace_of_the_last_change_is_kept() -> None:
    """When a change has ended its pace stays known, for the estimate of the next one."""
    clock = Clock()
    progress = Progress(clock)
    progress.observe(2, AFTER, 1_001)
    progress.add_slots(1)
    assert progress.slots_per_s == 0.0
    for _ in range(10):
        clock.now += 1.0
        progress.add_slots(100)
    progress.observe(2, AFTER, 0)
    clock.now += 3_600
    assert progress.slots_per_s == pytest.approx(100)
    assert progress.eta_s() is None
