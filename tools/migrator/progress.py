"""The progress of the change under way: slots, rows, pace and the time that is left. Pure.

A change begins when the goal places a slot elsewhere than the goal before, also while that one is unfinished.
Totals and rates start anew then. The pace is that of the last PACE_S. The first batch is left out of it, since its
single slot only shows how many rows a slot has. The time left follows the pace slowly, so that one batch does not
make it jump.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import exp

from tools.cluster.migrator_status import Rate

PACE_S = 30.0
MEASURED_S_MIN = 2.0  # before that the pace of a change is not known
SMOOTH_S = 5.0


class Progress:
    """`clock` returns seconds. `slots_per_s` is the newest known pace, of this change or of the one before."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._version = 0
        self._placement: Sequence[str] = ()
        self._placement_before: Sequence[str] = ()
        self._began = clock()
        self._measured_since: float | None = None
        self._slots = Rate(clock, PACE_S)
        self._rows = Rate(clock)
        self._eta: tuple[float, float] | None = None  # the time left, and when it was worked out
        self.slots_total = 0
        self.slots_left = 0
        self.rows_copied = 0
        self.slots_per_s = 0.0

    def observe(self, version: int, placement: Sequence[str], slots_left: int) -> list[str]:
        """Notes the goal and the slots that are not where it places them. Returns what to log."""
        lines = []
        if placement != self._placement:
            if self.slots_left:
                what = "cancels" if placement == self._placement_before else "replaces"
                lines.append(
                    f"topology {version} {what} the change of topology {self._version}, "
                    f"of which {self.slots_left} slots had not moved"
                )
            self._placement_before, self._placement = self._placement, placement
            self.slots_total = 0
        if slots_left and not self.slots_total:
            lines.append(f"topology {version}: {slots_left} slots begin to move")
            self._start()
        elif self.slots_total and not slots_left:
            lines.append(
                f"topology {version}: every slot is where the ring wants it; {self.slots_total} slots with "
                f"{self.rows_copied} rows moved in {self._clock() - self._began:.1f} s"
            )
        self._version = version
        self.slots_left = slots_left
        self.slots_total = max(self.slots_total, slots_left) if slots_left else 0
        if not slots_left:
            self.rows_copied = 0
        return lines

    def _start(self) -> None:
        self._began = self._clock()
        self._measured_since = None
        self._eta = None
        self._rows.start()
        self.rows_copied = 0

    def add_slots(self, slots: int) -> None:
        """Counts the slots of a move that has just finished."""
        self.slots_left = max(0, self.slots_left - slots)
        if self._measured_since is None:
            self._measured_since = self._clock()
            self._slots.start()
            return
        self._slots.add(slots)
        if self._clock() - self._measured_since >= MEASURED_S_MIN:
            self.slots_per_s = self._slots.per_s()

    def add_rows(self, rows: int) -> None:
        self._rows.add(rows)
        self.rows_copied += rows

    @property
    def rows_per_s(self) -> float:
        return self._rows.per_s()

    def eta_s(self) -> float | None:
        """Returns how long the rest takes; None while that is not known, or if nothing is left."""
        now = self._clock()
        if not self.slots_left or self._measured_since is None or now - self._measured_since < MEASURED_S_MIN:
            return None
        pace = self._slots.per_s()
        if not pace:
            return None
        measured = self.slots_left / pace
        if self._eta is not None:
            before, at = self._eta
            expected = max(0.0, before - (now - at))
            measured = expected + (measured - expected) * (1 - exp(-(now - at) / SMOOTH_S))
        self._eta = measured, now
        return measured
