"""The rate that the migrator reports."""

from __future__ import annotations

import pytest

from tools.cluster.migrator_status import RATE_S, Rate


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_rate_is_right_from_the_first_second_on() -> None:
    """The rate is right from the first second on; later only the last seconds count."""
    clock = Clock()
    rate = Rate(clock)
    clock.now += 60
    rate.start()
    assert rate.per_s() == 0.0
    clock.now += 0.5
    rate.add(100)
    clock.now += 0.5
    assert rate.per_s() == pytest.approx(100)
    clock.now += RATE_S
    rate.add(20)
    assert rate.per_s() == pytest.approx(20 / RATE_S)
    rate.start()
    assert rate.per_s() == 0.0
