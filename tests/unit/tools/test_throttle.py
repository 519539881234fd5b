"""The migrator's pace: when it gives way, and how large its batches are."""

from __future__ import annotations

import pytest

from tools.throttle import LOOKS_KEPT, ROWS_MAX, SLOTS_MAX, WAIT_S_MAX, Look, Throttle

CALM = Look(shards_ms=1.0, lag_s=0.0, service_ms=1.0)


@pytest.mark.parametrize(
    ("look", "why"),
    [
        (Look(shards_ms=150.0), "p99 of the shards is 150 ms"),
        (Look(shards_ms=1.0, lag_s=12.0), "a standby lags by 12 s"),
        (Look(shards_ms=1.0, service_ms=300.0), "p99 of the service is 300 ms"),
    ],
)
def test_it_rests_while_something_suffers_and_goes_on_after(look: Look, why: str) -> None:
    """Slow shards, a slow service or a lagging standby make it wait longer and longer, calm makes it go on."""
    throttle = Throttle()
    for _ in range(5):
        throttle.look(CALM)
    assert throttle.wait_s(1_000, 0.1) == 0.0
    throttle.look(look)
    assert throttle.wait_s(1_000, 0.1) == 0.0 or look.lag_s, "one slow answer is no reason"
    waits = []
    for _ in range(10):
        throttle.look(look)
        waits.append(throttle.wait_s(1_000, 0.1))
    assert throttle.state == why
    assert waits[1] > waits[0] > 0.0
    assert waits[-1] == WAIT_S_MAX
    for _ in range(2 * LOOKS_KEPT):
        throttle.look(CALM)
    assert throttle.wait_s(1_000, 0.1) == 0.0
    assert throttle.state == ""


def test_a_service_that_is_not_asked_holds_nothing_back() -> None:
    """Without an address of the service only the shards count."""
    throttle = Throttle(service_p99_ms_max=1.0)
    throttle.look(Look(shards_ms=50.0))
    assert throttle.wait_s(1_000, 0.1) == 0.0


def test_the_limit_of_rows_is_kept() -> None:
    """With a limit of 1,000 rows/s, 500 rows that took 0.1 s are followed by 0.4 s of rest."""
    throttle = Throttle(rows_per_s_max=1_000)
    assert throttle.wait_s(500, 0.1) == pytest.approx(0.4)
    assert throttle.state == "at most 1000 rows/s"


def test_batches_grow_while_pauses_are_short() -> None:
    """The number of slots doubles while rows are few or pauses short, up to its bounds."""
    throttle = Throttle()
    for _ in range(20):
        throttle.after_batch(rows=100, pause_ms=3.0)
    assert throttle.slots == SLOTS_MAX
    throttle = Throttle()
    throttle.after_batch(rows=ROWS_MAX, pause_ms=3.0)
    assert throttle.slots == Throttle().slots, "more rows would make a longer pause"


def test_batches_shrink_when_their_rows_make_long_pauses() -> None:
    """A long pause of many rows halves the batches; that of a small batch is not the fault of its rows."""
    throttle = Throttle()
    throttle.after_batch(rows=5_000, pause_ms=200.0)
    assert throttle.slots == Throttle().slots // 2
    throttle.after_batch(rows=10, pause_ms=200.0)
    assert throttle.slots == Throttle().slots
