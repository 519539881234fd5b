"""How fast the migrator may go: a limit in rows per second, a size of batch, and giving way by itself. Pure.

The size of a batch follows the pause that batches of that size cause: it doubles while they are short, and
halves when a batch with many rows makes a long one (the pause of a small one is not the fault of its rows).
The pace gives way when the shards or the service get slow or a standby lags: the wait between batches doubles with
each look that finds them so, up to WAIT_S_MAX, and halves with each that does not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

PAUSE_MS_SHORT = 12.0
PAUSE_MS_LONG = 25.0
SLOTS_MAX = 256
ROWS_MAX = 10_000
ROWS_FEW = 1_000
WAIT_S_MIN = 0.05
WAIT_S_MAX = 1.0
LOOKS_KEPT = 30  # those of the last few seconds: what was slow before is over


@dataclass(frozen=True, slots=True)
class Look:
    """One look at how they fare: ms of a trivial statement on the slowest shard and of a request that the service
    answers from memory (None: nobody asked), the lag of the slowest standby in s."""

    shards_ms: float
    lag_s: float = 0.0
    service_ms: float | None = None


@dataclass(slots=True)
class Throttle:
    """`rows_per_s_max` 0 is no limit. `p99_ms_max` is of a trivial statement on any shard, `service_p99_ms_max`
    of a trivial request: of the last LOOKS_KEPT looks."""

    rows_per_s_max: float = 0.0
    p99_ms_max: float = 100.0
    lag_s_max: float = 10.0
    service_p99_ms_max: float = 100.0
    slots: int = 16
    _wait_s: float = 0.0
    _why: str = ""
    _looks: deque[Look] = field(default_factory=lambda: deque(maxlen=LOOKS_KEPT))

    def after_batch(self, rows: int, pause_ms: float) -> None:
        """Fits the size of the next batch to what the last one did."""
        if rows > 2 * ROWS_MAX or (pause_ms > PAUSE_MS_LONG and rows > ROWS_FEW):
            self.slots = max(1, self.slots // 2)
        elif rows < ROWS_FEW or (pause_ms < PAUSE_MS_SHORT and rows < ROWS_MAX):
            self.slots = min(SLOTS_MAX, self.slots * 2)

    def wait_s(self, rows: int, took_s: float) -> float:
        """How long to rest after a batch of `rows` that took `took_s`."""
        by_limit = rows / self.rows_per_s_max - took_s if self.rows_per_s_max else 0.0
        return max(0.0, by_limit, self._wait_s)

    def look(self, look: Look) -> None:
        """Gives way or goes on, after one more look."""
        self._looks.append(look)
        why = self._too_much(look.lag_s)
        if why:
            self._why = why
            self._wait_s = min(WAIT_S_MAX, max(WAIT_S_MIN, self._wait_s * 2))
            return
        self._wait_s = self._wait_s / 2 if self._wait_s > WAIT_S_MIN else 0.0
        if not self._wait_s:
            self._why = ""

    def _too_much(self, lag_s: float) -> str:
        shards = _p99([look.shards_ms for look in self._looks])
        if shards > self.p99_ms_max:
            return f"p99 of the shards is {shards:.0f} ms"
        service = _p99([look.service_ms for look in self._looks if look.service_ms is not None])
        if service > self.service_p99_ms_max:
            return f"p99 of the service is {service:.0f} ms"
        return f"a standby lags by {lag_s:.0f} s" if lag_s > self.lag_s_max else ""

    @property
    def state(self) -> str:
        """What holds the migrator back now, in words; empty if nothing does."""
        if self._why:
            return self._why
        return f"at most {self.rows_per_s_max:g} rows/s" if self.rows_per_s_max else ""


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else 0.0
