"""The migrator's throttle: when it pauses, and the size of its batches."""

from __future__ import annotations

import pytest

from tools.migrator.throttle import (
    FAST,
    LANES,
    PAUSES_WEIGHED,
    ROWS_OF_SLOT,
    SAMPLES_KEPT,
    SPARING,
    WAIT_S_MAX,
    Sample,
    Throttle,
)

CALM = Sample(shards_ms=1.0, lag_s=0.0, service_ms=1.0)


@pytest.mark.parametrize(
    ("sample", "why"),
    [
        (Sample(shards_ms=150.0), "p99 of the shards is 150 ms"),
        (Sample(shards_ms=1.0, lag_s=12.0), "a standby lags by 12 s"),
        (Sample(shards_ms=1.0, service_ms=300.0), "p99 of the service is 300 ms"),
    ],
)
def test_it_rests_while_something_suffers_and_goes_on_after(sample: Sample, why: str) -> None:
    """Slow shards, a slow service or a lagging standby make it pause longer and longer until they recover."""
    throttle = Throttle()
    for _ in range(5):
        throttle.observe(CALM)
    assert throttle.wait_s(1_000, 0.1) == 0.0
    throttle.observe(sample)
    assert throttle.wait_s(1_000, 0.1) == 0.0 or sample.lag_s, "one slow answer is no reason"
    waits = []
    for _ in range(10):
        throttle.observe(sample)
        waits.append(throttle.wait_s(1_000, 0.1))
    assert throttle.state == why
    assert waits[1] > waits[0] > 0.0
    assert waits[-1] == WAIT_S_MAX
    for _ in range(2 * SAMPLES_KEPT):
        throttle.observe(CALM)
    assert throttle.wait_s(1_000, 0.1) == 0.0
    assert throttle.state == ""


def test_a_service_that_is_not_asked_holds_nothing_back() -> None:
    """Without an address of the service, only the shards throttle the migrator."""
    throttle = Throttle(service_p99_ms_max=1.0)
    throttle.observe(Sample(shards_ms=50.0))
    assert throttle.wait_s(1_000, 0.1) == 0.0


def test_the_limit_of_rows_is_kept() -> None:
    """With a limit of 1,000 rows/s, 500 rows that took 0.1 s are followed by 0.9 s of rest in each of two lanes."""
    throttle = Throttle(rows_per_s_max=1_000)
    assert throttle.wait_s(500, 0.1) == pytest.approx(LANES * 0.5 - 0.1)
    assert throttle.state == "at most 1000 rows/s"


def test_a_batch_has_as_many_slots_as_fit_its_size() -> None:
    """Batches have few slots if these are full and many if they are empty, judged by the first slot."""
    throttle = Throttle()
    assert throttle.slots == 1
    throttle.after_batch(slots=1, rows=100, pause_ms=20.0)
    assert throttle.slots == FAST.size_first // (100 + ROWS_OF_SLOT)
    throttle.after_batch(slots=40, rows=40 * FAST.size_first, pause_ms=20.0)
    assert throttle.slots == 1
    throttle.after_batch(slots=1, rows=0, pause_ms=20.0)
    assert throttle.slots == FAST.size_first // ROWS_OF_SLOT


def test_batches_grow_while_pauses_are_short() -> None:
    """The size of a batch doubles while pauses are short, up to its bound."""
    throttle = Throttle()
    sizes = []
    for _ in range(4 * PAUSES_WEIGHED):
        throttle.after_batch(slots=10, rows=1_000, pause_ms=3.0)
        sizes.append(throttle.slots)
    assert sizes == sorted(sizes)
    assert sizes[0] == FAST.size_first // (100 + ROWS_OF_SLOT)
    assert sizes[-1] == FAST.size_max // (100 + ROWS_OF_SLOT)


def test_batches_shrink_while_pauses_are_long() -> None:
    """Several long pauses halve the batches; a single one, or long pauses of small batches, do not."""
    throttle = Throttle()
    for pause_ms in (20.0, 400.0, 20.0, 20.0, 400.0, 20.0):
        throttle.after_batch(slots=40, rows=4_000, pause_ms=pause_ms)
    assert throttle.slots == FAST.size_first // (100 + ROWS_OF_SLOT)
    for _ in range(PAUSES_WEIGHED):
        throttle.after_batch(slots=40, rows=4_000, pause_ms=400.0)
    assert throttle.slots == FAST.size_first // 2 // (100 + ROWS_OF_SLOT)
    throttle = Throttle()
    for _ in range(9 * PAUSES_WEIGHED):
        throttle.after_batch(slots=throttle.slots, rows=0, pause_ms=400.0)
    assert throttle.slots == FAST.size_min // ROWS_OF_SLOT


def test_a_single_lane_spares_visitors() -> None:
    """With one lane, batches stay small however short their pauses are, and a rest follows each."""
    throttle = Throttle(lanes=1)
    for _ in range(4 * PAUSES_WEIGHED):
        throttle.after_batch(slots=10, rows=1_000, pause_ms=3.0)
    assert throttle.slots == SPARING.size_max // (100 + ROWS_OF_SLOT)
    assert throttle.wait_s(1_000, 0.2) == pytest.approx(SPARING.rest * 0.2)
    for _ in range(9 * PAUSES_WEIGHED):
        throttle.after_batch(slots=throttle.slots, rows=0, pause_ms=400.0)
    assert throttle.slots == SPARING.size_min // ROWS_OF_SLOT
