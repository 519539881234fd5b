"""How fast the migrator may go: a limit in rows per second, a size of batch, and giving way by itself. Pure.

A batch is as many slots as make so much work in a pause, as far as the batch before it tells. The work is counted
in rows: each is looked at, and a slot is worth some, since its own row is written three times. That size follows
the pauses: it doubles while they are short and is halved when they are long. One pause says little on a busy
machine, so it is the median of a few that counts.
One lane spares visitors: where shards and service share processors, what a visitor waits for is the batch that is
being worked on, so batches are small and a rest follows each.
The pace gives way when the shards or the service get slow or a standby lags: the wait between batches doubles with
each look that finds them so, up to WAIT_S_MAX, and halves with each that does not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

PAUSE_MS_SHORT = 12.0
PAUSE_MS_LONG = 25.0
PAUSES_WEIGHED = 3
LANES = 2  # batches at a time, since a target takes rows as fast as one of its processors can
SLOTS_FIRST = 1  # it shows how many rows a slot has: of a large cluster, thousands
SLOTS_MAX = 256
ROWS_OF_SLOT = 50  # what a slot costs in a pause, in rows
WAIT_S_MIN = 0.05
WAIT_S_MAX = 1.0
LOOKS_KEPT = 30  # those of the last few seconds: what was slow before is over


@dataclass(frozen=True, slots=True)
class Pace:
    """Sizes of batches in rows: the first one, and between which it stays. (A pause that is long with `size_min` is
    not the fault of the batch.) `rest` follows a batch, as a part of the time that it took."""

    size_first: int
    size_min: int
    size_max: int
    rest: float


FAST = Pace(size_first=8_000, size_min=4_000, size_max=20_000, rest=0.0)
SPARING = Pace(size_first=4_000, size_min=1_000, size_max=4_000, rest=0.5)


@dataclass(frozen=True, slots=True)
class Sample:
    """One look at how they fare: ms of a trivial statement on the slowest shard and of a request that the service
    answers from memory (None: nobody asked), the lag of the slowest standby in s."""

    shards_ms: float
    lag_s: float = 0.0
    service_ms: float | None = None


@dataclass(slots=True)
class Throttle:
    """`rows_per_s_max` 0 is no limit. `p99_ms_max` is of a trivial statement on any shard, `service_p99_ms_max`
    of a trivial request: of the last LOOKS_KEPT looks. `lanes` batches move at a time, a single one at a sparing
    pace; `slots` is the size of the next batch."""

    rows_per_s_max: float = 0.0
    p99_ms_max: float = 100.0
    lag_s_max: float = 10.0
    service_p99_ms_max: float = 100.0
    lanes: int = LANES
    slots: int = SLOTS_FIRST
    _size: int = field(init=False)
    _wait_s: float = 0.0
    _why: str = ""
    _pauses_ms: deque[float] = field(default_factory=lambda: deque(maxlen=PAUSES_WEIGHED))
    _looks: deque[Sample] = field(default_factory=lambda: deque(maxlen=LOOKS_KEPT))

    def __post_init__(self) -> None:
        self._size = self.pace.size_first

    @property
    def pace(self) -> Pace:
        return SPARING if self.lanes == 1 else FAST

    def after_batch(self, slots: int, rows: int, pause_ms: float) -> None:
        """Fits the size of the next batch to what the last ones did."""
        self._pauses_ms.append(pause_ms)
        if len(self._pauses_ms) == PAUSES_WEIGHED:
            typical_ms = median(self._pauses_ms)
            if typical_ms > PAUSE_MS_LONG and rows + slots * ROWS_OF_SLOT > self.pace.size_min:
                self._size //= 2
                self._pauses_ms.clear()
            elif typical_ms < PAUSE_MS_SHORT and self._size < self.pace.size_max:
                self._size = min(self.pace.size_max, self._size * 2)
                self._pauses_ms.clear()
        size_of_slot = rows / slots + ROWS_OF_SLOT
        self.slots = max(1, min(SLOTS_MAX, int(self._size / size_of_slot)))

    def wait_s(self, rows: int, took_s: float) -> float:
        """How long one lane is to rest after a batch of `rows` that took `took_s`."""
        by_limit = self.lanes * rows / self.rows_per_s_max - took_s if self.rows_per_s_max else 0.0
        return max(by_limit, self._wait_s, took_s * self.pace.rest)

    def look(self, look: Sample) -> None:
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
