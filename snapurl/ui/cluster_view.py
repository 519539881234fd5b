"""What the cluster page shows: one headline, the shards, the move, clicks, caches, findings. Pure.

A `ClusterSample` is what one worker knows at one moment. `view_of` turns it into a `ClusterView`, which has every
number that the page shows and every decision that it takes, but no HTML.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from itertools import pairwise
from typing import Any

from ring.arcs import Arc
from ring.slots import SLOT_COUNT
from snapurl.model import (
    CLICKS_LATE_S,
    MIGRATOR_SILENT_S,
    ClusterChange,
    Lag,
    OwnCounts,
    RingView,
    ShardShare,
    ShardState,
)

RECENT_CHANGES = 6

DOCTOR = "snapurl-reshard doctor"
NO_MIGRATOR = "no migrator runs"
RESTARTED = "restarted, serves nothing yet"


class Level(StrEnum):
    """How much a headline or a shard needs somebody: not at all, it works on something, soon, now."""

    WELL = "well"
    BUSY = "busy"
    WARNING = "warning"
    BAD = "bad"


@dataclass(frozen=True, slots=True)
class ClusterSample:
    """What one worker knows of the cluster at one moment.

    `reshard` is the migrator's status document with its `age_s`, None if no migrator ever ran. `lag` is None while
    Redis does not answer; `redis_fault` says why. `held` are the clicks that this worker holds. `counts_before`
    were read some seconds before `counts`, and are the same for the first sample.
    """

    at: datetime
    ring: RingView
    arcs: Sequence[Arc]
    shards: Sequence[ShardState]
    reshard: Mapping[str, Any] | None
    lag: Lag | None
    redis_fault: str | None
    held: int
    l1_links: int
    l1_bytes: int
    changes: Sequence[ClusterChange]
    counts: OwnCounts
    counts_before: OwnCounts


@dataclass(frozen=True, slots=True)
class ShardRow:
    """One shard. `share` is its part of all slots, 0 to 1; the last four are of this worker in the last seconds.

    `p50_ms` and `p99_ms` are None without a statement.
    """

    name: str
    weight: float
    level: Level
    state: str
    slots: int
    target_slots: int
    share: float
    statements_per_s: float
    p50_ms: float | None
    p99_ms: float | None
    errors: int


@dataclass(frozen=True, slots=True)
class BatchRow:
    """A batch of slots on its way: `what` is its first slot and direction."""

    what: str
    state: str
    age_s: float


@dataclass(frozen=True, slots=True)
class PauseSummary:
    """For how long writes to slots were refused, of the newest moves."""

    count: int
    p50_ms: float
    p99_ms: float
    max_ms: float


@dataclass(frozen=True, slots=True)
class MoveView:
    """The change under way, or the last one if no slots are left.

    `is_reported` is whether a migrator of this version has said something of this change; if not, only the slots
    are known. `state` is what the migrator does, "no migrator runs" if none does.
    """

    what: str
    state: str
    slots_total: int
    slots_left: int
    in_hand_off: int
    is_reported: bool
    rows_copied: int = 0
    rows_per_s: float = 0.0
    eta_s: float | None = None
    lag_rows: int = 0
    throttle: str = ""
    batches: tuple[BatchRow, ...] = ()
    pauses: PauseSummary | None = None

    @property
    def slots_moved(self) -> int:
        return self.slots_total - self.slots_left

    @property
    def percent(self) -> int:
        """How much of it is done, rounded down: 100 only when nothing is left."""
        return 100 * self.slots_moved // self.slots_total if self.slots_total else 100


@dataclass(frozen=True, slots=True)
class Clicks:
    """`lag_s` and `waiting` (entries of the stream) are None while Redis does not answer."""

    lag_s: float | None
    waiting: int | None
    held: int


@dataclass(frozen=True, slots=True)
class Caches:
    """Of this worker: the parts of look-ups by where the link was found, None without look-ups, and what L1 has."""

    lookups_per_s: float
    l1: float | None
    l2: float | None
    shard: float | None
    l1_links: int
    l1_bytes: int
    redis_fault: str | None


@dataclass(frozen=True, slots=True)
class Finding:
    """What is wrong, and the command that deals with it."""

    problem: str
    command: str


@dataclass(frozen=True, slots=True)
class ClusterView:
    """All that the page shows. `dark` are the names of shards that serve nothing now."""

    at: datetime
    level: Level
    headline: str
    topology_version: int
    shards: tuple[ShardRow, ...]
    arcs: tuple[Arc, ...]
    dark: frozenset[str]
    slots_unknown: int
    move: MoveView | None
    clicks: Clicks
    caches: Caches
    findings: tuple[Finding, ...]
    changes: tuple[ClusterChange, ...]

    @property
    def is_moving(self) -> bool:
        """Whether slots are on their way, or have yet to go."""
        return self.move is not None and bool(self.move.slots_left or self.move.in_hand_off)

    @property
    def free_name(self) -> str:
        """A name for one more shard, like those of a local cluster."""
        taken = {shard.name for shard in self.shards}
        return next(name for number in range(len(taken) + 1) if (name := f"db{number}") not in taken)


def view_of(sample: ClusterSample) -> ClusterView:
    """Returns what the page shows of a sample."""
    move = _move(sample)
    rows = tuple(_shard_row(sample, shard) for shard in sorted(sample.ring.shards, key=_natural))
    level, headline = _headline(sample, rows, move)
    return ClusterView(
        at=sample.at,
        level=level,
        headline=headline,
        topology_version=sample.ring.topology_version,
        shards=rows,
        arcs=tuple(sample.arcs),
        dark=frozenset(row.name for row in rows if row.level is Level.BAD),
        slots_unknown=sample.ring.slots_unknown,
        move=move,
        clicks=Clicks(
            sample.lag.seconds if sample.lag else None,
            sample.lag.entries if sample.lag else None,
            sample.held,
        ),
        caches=_caches(sample),
        findings=tuple(_findings(sample, rows, move)),
        changes=tuple(sample.changes[:RECENT_CHANGES]),
    )


# -- the headline ------------------------------------------------------------------------------------------------


def _headline(sample: ClusterSample, rows: Sequence[ShardRow], move: MoveView | None) -> tuple[Level, str]:
    """Returns what matters most, in one sentence: what is lost comes before what is under way."""
    dark = [row for row in rows if row.level is Level.BAD]
    if dark:
        share = sum(row.share for row in dark)
        state = dark[0].state if len(dark) == 1 else "serve nothing"
        cost = f"{parts(share)} of links from caches only" if share else "no slots are there"
        return Level.BAD, f"{_listed([row.name for row in dark])} {state}: {cost}."
    if sample.redis_fault:
        return (
            Level.BAD,
            f"Redis {sample.redis_fault}: links come from the shards, clicks wait in the workers.",
        )
    if sample.lag is not None and sample.lag.is_late:
        return Level.WARNING, f"Clicks are counted {short_duration(sample.lag.seconds)} late."
    if move is not None and (move.slots_left or move.in_hand_off):
        return _headline_of_move(sample, move)
    if sample.ring.slots_unknown:
        return Level.WARNING, f"{sample.ring.slots_unknown:,} slots have no owner that answers."
    return Level.WELL, "All well."


def _headline_of_move(sample: ClusterSample, move: MoveView) -> tuple[Level, str]:
    done = f"{move.what}: {move.percent} %"
    if sample.ring.paused:
        return Level.WARNING, f"{done}, paused."
    if move.state == NO_MIGRATOR:
        return Level.WARNING, f"{done}, and no migrator runs."
    left = f", {short_duration(move.eta_s)} left" if move.eta_s is not None else ""
    return Level.BUSY, f"{done}{left}."


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def parts(share: float) -> str:
    """Returns a part of a whole in percent: `25 %`, `less than 1 %`."""
    return "less than 1 %" if 0 < share < 0.01 else f"{100 * share:.0f} %"


def short_duration(seconds: float) -> str:
    """Returns a time in the two largest units that matter: `8 s`, `2 min`, `1 h 05 min`."""
    whole = max(1, round(seconds))
    if whole < 90:
        return f"{whole} s"
    minutes = round(whole / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


# -- shards ------------------------------------------------------------------------------------------------------


def _natural(shard: ShardShare) -> tuple[int, str]:
    """Sorts db10 behind db9, so that a shard that is added later changes no colour."""
    return len(shard.name), shard.name


def _shard_row(sample: ClusterSample, shard: ShardShare) -> ShardRow:
    known = next((each for each in sample.shards if each.name == shard.name), None)
    level, state = _state(known, draining=shard.draining)
    now, before = sample.counts, sample.counts_before
    buckets = _since(now.statements.get(shard.name, ()), before.statements.get(shard.name, ()))
    p50_s, p99_s = at_most(buckets, 0.5), at_most(buckets, 0.99)
    return ShardRow(
        name=shard.name,
        weight=shard.weight,
        level=level,
        state=state,
        slots=shard.slots,
        target_slots=shard.target_slots,
        share=shard.slots / SLOT_COUNT,
        statements_per_s=_per_s(sample, buckets[-1][1] if buckets else 0.0),
        p50_ms=None if p50_s is None else 1000 * p50_s,
        p99_ms=None if p99_s is None else 1000 * p99_s,
        errors=int(now.errors.get(shard.name, 0.0) - before.errors.get(shard.name, 0.0)),
    )


def _state(known: ShardState | None, *, draining: bool) -> tuple[Level, str]:
    if known is None or not known.fault:
        return (Level.BUSY, "draining") if draining else (Level.WELL, "serves")
    if known.is_restarted:
        return Level.BAD, RESTARTED
    if known.silent_s is None:
        return Level.BAD, "silent since this worker began"
    return Level.BAD, f"silent for {short_duration(known.silent_s)}"


def _since(
    now: tuple[tuple[float, float], ...], before: tuple[tuple[float, float], ...]
) -> tuple[tuple[float, float], ...]:
    """Returns the observations between two readings of one histogram."""
    counted = dict(before)
    return tuple((bound, count - counted.get(bound, 0.0)) for bound, count in now)


def at_most(buckets: tuple[tuple[float, float], ...], part: float) -> float | None:
    """Returns the time in s within which `part` of the calls ended, from buckets as in `OwnCounts`.

    Inside a bucket they count as evenly spread. None without calls; beyond the last finite bound, that bound.
    """
    total = buckets[-1][1] if buckets else 0.0
    if not total:
        return None
    low_s = below = 0.0
    for bound_s, count in buckets:
        if count >= part * total:
            if bound_s == float("inf"):
                return low_s
            return low_s + (bound_s - low_s) * (part * total - below) / (count - below)
        low_s, below = bound_s, count
    return low_s


def _per_s(sample: ClusterSample, count: float) -> float:
    passed_s = sample.counts.at_s - sample.counts_before.at_s
    return count / passed_s if passed_s > 0 else 0.0


# -- the move ----------------------------------------------------------------------------------------------------


def _move(sample: ClusterSample) -> MoveView | None:
    """Returns the change under way, or what a migrator says of the last one. None if there never was one."""
    left = sum(arc.misplaced for arc in sample.arcs)
    ring, report = sample.ring, sample.reshard
    what = describe_change(sample.changes) or "Moving slots"
    if report is None:
        return (
            MoveView(what, NO_MIGRATOR, left, left, ring.slots_in_hand_off, is_reported=False)
            if left
            else None
        )
    is_alive = report["age_s"] < MIGRATOR_SILENT_S
    state = str(report.get("state", "")) if is_alive else NO_MIGRATOR
    try:
        is_current = report["topology_version"] == ring.topology_version
        # A migrator reads the shards themselves, of which this worker hears a moment later.
        is_done = is_alive and is_current and report["slots_total"] == 0
        left = 0 if is_done else left
        is_of_this = is_current and report["slots_total"] >= left
        return MoveView(
            what=what,
            state=state,
            slots_total=report["slots_total"] if is_of_this else left,
            slots_left=left,
            in_hand_off=0 if is_done else ring.slots_in_hand_off,
            is_reported=is_of_this,
            rows_copied=report["rows_copied"] if is_of_this else 0,
            rows_per_s=report["rows_per_s"] if is_alive and is_of_this else 0.0,
            eta_s=report["eta_s"] if is_alive and is_of_this else None,
            lag_rows=report["lag_rows"],
            throttle=report["throttle"] if is_alive else "",
            batches=tuple(BatchRow(**batch) for batch in report["moves"]) if is_alive else (),
            pauses=PauseSummary(**report["pauses"]) if report["pauses"]["count"] else None,
        )
    except (KeyError, TypeError):  # a migrator of another version
        return MoveView(what, state, left, left, ring.slots_in_hand_off, is_reported=False)


_DOING = {"add": "Adding", "drain": "Draining", "weight": "Changing the weight of"}


def describe_change(changes: Sequence[ClusterChange]) -> str:
    """Returns what the newest published change does: `Adding db4`, `Adding db4, draining db0`; "" if unknown."""
    what = next((each.what for each in changes if each.outcome.startswith("published")), "")
    words = what.split()
    if words[:1] == ["cancel"]:
        return "Undoing the last change"
    steps: list[str] = []
    for command, name in pairwise(words):
        if command in _DOING and not name.startswith("-"):
            steps.append(f"{_DOING[command]} {name}")
    return ", ".join(step if not number else step[0].lower() + step[1:] for number, step in enumerate(steps))


# -- clicks, caches, findings ------------------------------------------------------------------------------------


def _caches(sample: ClusterSample) -> Caches:
    now, before = sample.counts.lookups, sample.counts_before.lookups
    made = {level: count - before.get(level, 0.0) for level, count in now.items()}
    found = {level: made.get(level, 0.0) for level in ("l1", "l2")}
    total = sum(made.values())
    return Caches(
        lookups_per_s=_per_s(sample, total),
        l1=found["l1"] / total if total else None,
        l2=found["l2"] / total if total else None,
        shard=1 - (found["l1"] + found["l2"]) / total if total else None,
        l1_links=sample.l1_links,
        l1_bytes=sample.l1_bytes,
        redis_fault=sample.redis_fault,
    )


def _findings(sample: ClusterSample, rows: Sequence[ShardRow], move: MoveView | None) -> list[Finding]:
    """Returns what the service itself can know to be wrong; the doctor knows more."""
    faults = {each.name: each.fault for each in sample.shards}
    found = [
        Finding(f"{row.name} {faults.get(row.name) or row.state}", _remedy(row))
        for row in rows
        if row.level is Level.BAD
    ]
    if sample.redis_fault:
        found.append(Finding(f"Redis {sample.redis_fault}", DOCTOR))
    if sample.lag is not None and sample.lag.is_late:
        late = f"Clicks wait for more than {short_duration(CLICKS_LATE_S)}: is a click consumer running?"
        found.append(Finding(late, "snapurl clicks"))
    if move is not None and (move.slots_left or move.in_hand_off):
        if sample.ring.paused:
            found.append(Finding("Resharding is paused", "snapurl-reshard resume"))
        if move.state == NO_MIGRATOR:
            problem = f"{move.slots_left:,} slots have to move, and no migrator runs"
            found.append(Finding(problem, "snapurl-reshard run"))
    if sample.ring.slots_unknown and not any(row.level is Level.BAD for row in rows):
        found.append(Finding(f"{sample.ring.slots_unknown:,} slots have no owner that answers", DOCTOR))
    return found


def _remedy(row: ShardRow) -> str:
    return f"{DOCTOR} --fix" if row.state == RESTARTED else DOCTOR
