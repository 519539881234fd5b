"""The migrator's pace: a limit in rows per second, the size of a batch, and backing off under load. Pure.

A batch has as many slots as fit a target size, estimated from the batch before it. Size is counted in rows:
each row is compared in the pause, and each slot costs some more, since its own row is written three times.
The target size follows the pauses: it doubles while they are short and is halved when they are long. The
median of a few pauses decides, since a single one says little on a busy machine. A single lane spares the
service: where shards and service share processors, requests wait for the batch in progress, so batches are
small and a rest follows each. The migrator backs off when the shards or the service get slow or a standby
lags: the wait between batches doubles with each sample that shows it, up to WAIT_S_MAX, and halves with each
that does not.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from statistics import median

PAUSE_MS_SHORT = 12.0
PAUSE_MS_LONG = 25.0
PAUSES_WEIGHED = 3
LANES = 2  # concurrent batches: one connection writes as fast as one processor of the target can
SLOTS_FIRST = 1  # shows how many rows a slot has: thousands in a large cluster
SLOTS_MAX = 256
ROWS_OF_SLOT = 50  # what a slot costs in a pause, in rows
WAIT_S_MIN = 0.05
WAIT_S_MAX = 1.0
SAMPLES_KEPT = 30  # of the last few seconds


@dataclass(frozen=True, slots=True)
class Pace:
    """Batch sizes in rows: the first, the least and the largest. `rest` follows a batch, in parts of its duration.

    A pause that is long even with `size_min` is not caused by the size of the batch.
    """

    size_first: int
    size_min: int
    size_max: int
    rest: float


FAST = Pace(size_first=8_000, size_min=4_000, size_max=20_000, rest=0.0)
SPARING = Pace(size_first=4_000, size_min=1_000, size_max=4_000, rest=0.5)


@dataclass(frozen=True, slots=True)
class Sample:
    """One measurement: ms of a trivial statement on the slowest shard, lag of the slowest standby in s, and ms of a
    request that the service answers from memory (None if there is no service to measure)."""

    shards_ms: float
    lag_s: float = 0.0
    service_ms: float | None = None


@dataclass(slots=True)
class Throttle:
    """`rows_per_s_max` 0 is no limit. `p99_ms_max` is of a trivial statement on any shard,
    `service_p99_ms_max` of a trivial request, over the last SAMPLES_KEPT samples. `lanes` batches move
    concurrently, a single one at the SPARING pace; `slots` is the size of the next batch."""

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
    _samples: deque[Sample] = field(default_factory=lambda: deque(maxlen=SAMPLES_KEPT))

    def __post_init__(self) -> None:
        self._size = self.pace.size_first

    @property
    def pace(self) -> Pace:
        return SPARING if self.lanes == 1 else FAST

    def after_batch(self, slots: int, rows: int, pause_ms: float) -> None:
        """Adapts the size of the next batch to the last pauses."""
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
        """Returns how long one lane has to wait after a batch of `rows` that took `took_s`."""
        by_limit = self.lanes * rows / self.rows_per_s_max - took_s if self.rows_per_s_max else 0.0
        return max(by_limit, self._wait_s, took_s * self.pace.rest)

    def observe(self, sample: Sample) -> None:
        """Backs off or speeds up after one more sample."""
        self._samples.append(sample)
        why = self._overload(sample.lag_s)
        if why:
            self._why = why
            self._wait_s = min(WAIT_S_MAX, max(WAIT_S_MIN, self._wait_s * 2))
            return
        self._wait_s = self._wait_s / 2 if self._wait_s > WAIT_S_MIN else 0.0
        if not self._wait_s:
            self._why = ""

    def _overload(self, lag_s: float) -> str:
        shards = _p99([sample.shards_ms for sample in self._samples])
        if shards > self.p99_ms_max:
            return f"p99 of the shards is {shards:.0f} ms"
        service = _p99([each.service_ms for each in self._samples if each.service_ms is not None])
        if service > self.service_p99_ms_max:
            return f"p99 of the service is {service:.0f} ms"
        return f"a standby lags by {lag_s:.0f} s" if lag_s > self.lag_s_max else ""

    @property
    def backs_off(self) -> bool:
        """Whether the last samples slow the migrator down."""
        return bool(self._why)

    @property
    def state(self) -> str:
        """Returns what slows the migrator down now; empty if nothing does."""
        if self._why:
            return self._why
        return f"at most {self.rows_per_s_max:g} rows/s" if self.rows_per_s_max else ""


def _p99(values: list[float]) -> float:
    return sorted(values)[int(0.99 * (len(values) - 1))] if values else 0.0
