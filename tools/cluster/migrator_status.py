"""The status of a migrator: one document that `status`, metrics and the HTTP API show. Pure."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from typing import Any

PAUSES_KEPT = 10_000  # the newest pauses, of which the percentiles are computed
RATE_S = 5.0
AMOUNTS_KEPT = 4_096  # of the window of a rate


@dataclass(frozen=True, slots=True)
class Pauses:
    """Write pauses of moves that finished, in ms."""

    count: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


@dataclass(frozen=True, slots=True)
class MoveStatus:
    """A batch that moves now: `what` names it (`slot 3, db0@1 -> db1`), `age_s` is the time since it began."""

    what: str
    state: str
    age_s: float


@dataclass(frozen=True, slots=True)
class MigratorStatus:
    """What the migrator does now. `state` is idle, moving, paused, waiting, cleaning or standby.

    `slots_per_s` is the pace of the change under way or of the last one, 0 if there was none. `is_sparing` says
    whether it spares a service that shares processors with the shards.
    """

    state: str = "idle"
    topology_version: int = 0
    slots_total: int = 0
    slots_left: int = 0
    rows_copied: int = 0
    rows_per_s: float = 0.0
    slots_per_s: float = 0.0
    is_sparing: bool = False
    eta_s: float | None = None
    moves: tuple[MoveStatus, ...] = ()
    pauses: Pauses = field(default_factory=Pauses)
    throttle: str = ""
    lag_rows: int = 0
    orphans: int = 0
    last_error: str = ""

    def to_json(self) -> str:
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> MigratorStatus:
        """Raises ValueError, KeyError or TypeError on anything that `to_json` did not write."""
        raw: dict[str, Any] = json.loads(text)
        raw["moves"] = tuple(MoveStatus(**move) for move in raw["moves"])
        raw["pauses"] = Pauses(**raw["pauses"])
        return cls(**raw)


class PauseLog:
    """The newest pauses, bounded, and their percentiles."""

    def __init__(self, pauses_ms: Iterable[float] = ()) -> None:
        self._kept: deque[float] = deque(pauses_ms, PAUSES_KEPT)
        self._count = len(self._kept)
        self._max_ms = max(self._kept, default=0.0)

    def add(self, pause_ms: float) -> None:
        self._kept.append(pause_ms)
        self._count += 1
        self._max_ms = max(self._max_ms, pause_ms)

    def summary(self) -> Pauses:
        if not self._kept:
            return Pauses()
        ordered = sorted(self._kept)
        return Pauses(self._count, percentile(ordered, 0.5), percentile(ordered, 0.99), self._max_ms)


def percentile(ordered: list[float], part: float) -> float:
    """Returns the value below which `part` of an ascending, non-empty list lies (nearest rank)."""
    return ordered[min(len(ordered) - 1, int(part * len(ordered)))]


class Rate:
    """Measures how much per second, over the last `window_s` or since `start`, whichever is shorter."""

    def __init__(self, clock: Callable[[], float], window_s: float = RATE_S) -> None:
        self._clock = clock
        self._window_s = window_s
        self._amounts: deque[tuple[float, int]] = deque(maxlen=AMOUNTS_KEPT)
        self._began = clock()

    def start(self) -> None:
        self._amounts.clear()
        self._began = self._clock()

    def add(self, amount: int) -> None:
        self._amounts.append((self._clock(), amount))

    def per_s(self) -> float:
        now = self._clock()
        since = max(self._began, now - self._window_s)
        return (
            sum(amount for at, amount in self._amounts if at >= since) / (now - since) if now > since else 0.0
        )
