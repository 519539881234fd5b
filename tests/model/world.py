"""The state of the model: shards, migrators, writers, a reader and a cache, for one key of one slot.

Values are plain and hashable. Shards are numbered from 0. A copy of the key's row is an integer: 0 absent,
`v` live at version v, `-v` deleted at version v. Each kind of tuple has its `kind`, because named tuples of
different classes are equal when their fields are.

A migrator compares tokens only with its own, so the model stores no values. It stores, for each migrator, the
shards whose rows hold its token now. A fresh token on a row replaces the tokens of other migrators. Likewise, a
migrator that is to claim a row stores only whether the row is still as observed.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Final, NamedTuple, TypeVar

from ring.handoff import Desired, Move, Program, SourceState
from ring.ownership import READABLE, WRITABLE, SlotRow, SlotState

SLOT: Final = 0
NAMES: Final = ("db0", "db1", "db2")
Value = TypeVar("Value")


@dataclass(frozen=True, slots=True)
class Scope:
    """The scope of a search; each search is exhaustive in its scope.

    `goals`: the shards on which the ring places the slot, in order; it starts on shard 0. `versions`: how often
    the key is written. `stale`: a migrator may be stopped, replaced, and woken at any later time. `cache`: there
    are a reader and a cache, and a commit and its acknowledgement are two events. `undisturbed`: a whole attempt
    that does not verify is itself a violation; otherwise the search follows its consequences. `crashes`: how often
    a shard may crash.
    """

    goals: tuple[int, ...]
    versions: int
    stale: bool = True
    cache: bool = False
    undisturbed: bool = True
    crashes: int = 0

    @property
    def shards(self) -> int:
        return max(0, *self.goals) + 1


HAND_OFF: Final = Scope(goals=(1, 0), versions=2)
"""There and back, or cancelled on the way."""

RETARGETED: Final = Scope(goals=(1, 2), versions=1)
"""The goal becomes a third shard, wherever the first hand-off is by then."""

CACHED: Final = Scope(goals=(1, 0), versions=2, stale=False, cache=True)
"""There and back, with the cache."""

CONSEQUENCES: Final = Scope(goals=(1, 0), versions=2, undisturbed=False)
"""As HAND_OFF; goes on beyond an attempt that does not verify."""


CRASHING: Final = Scope(goals=(1, 0), versions=1, stale=False, crashes=2)
"""There and back while shards crash, and lose what had not reached the disk."""

CRASHED: Final = Scope(goals=(1, 0), versions=0, crashes=1)
"""As CRASHING, with a migrator that wakes up; no writes, which would bring what is before them to the disk."""


class Row(NamedTuple):
    """A shard's row of `slots`."""

    state: SlotState
    epoch: int
    peer: int | None


Slots = tuple[Row | None, ...]


class Idle(NamedTuple):
    """A migrator that has just started or must observe again; a writer with nothing in progress."""

    kind: str = "idle"


class Snapshot(NamedTuple):
    """A migrator that has observed the source of a move, but not its target yet."""

    goal: Desired
    source: int
    target: int
    epoch: int
    found: SourceState
    unchanged: bool
    kind: str = "seen"


class Busy(NamedTuple):
    """A migrator with steps to do.

    `unchanged`: the source's row is as observed. `mine`: the shards that hold its token. `whole`: this attempt
    filled the target itself, from the purge on. `behind`: the source was written to since this attempt's last
    snapshot of it, so that CATCH_UP has rows to copy. `equal`: CHECK found both sides equal, and nothing was
    written to the source since. `cut`: the shards that have crashed since the attempt began, which ended its
    connections to them.
    """

    steps: Program
    source: int
    target: int
    epoch: int
    unchanged: bool
    mine: tuple[bool, ...]
    whole: bool
    behind: bool
    equal: bool
    cut: tuple[bool, ...]
    kind: str = "busy"


class Writing(NamedTuple):
    """A write that has passed the fence of `shard`, holds the shared lock and has not committed."""

    shard: int
    kind: str = "writing"


class Committed(NamedTuple):
    """A write that has committed `row`, but has neither updated the cache nor answered its client."""

    row: int
    kind: str = "committed"


Migrator = Idle | Snapshot | Busy
Writer = Idle | Writing | Committed


class State(NamedTuple):
    """The state of a shard on disk, current or possible: its row of `slots`, and the key's row."""

    slot: Row | None
    row: int


class World(NamedTuple):
    """`turn`: the index of the current goal in the scope; `wanted`: the shard that it names.

    `migrators`: the active one, and one that was stopped and may wake. `latest`: the row after the last commit on
    any shard. `acked`: the highest version acknowledged to a client. `cached`: None for an empty cache. `loaded`:
    the value that the reader has read and not put into the cache yet. `crashes`: how many may still happen.
    `unflushed`: for each shard, the earlier states that a crash may restore.
    """

    turn: int
    wanted: int
    slots: Slots
    rows: tuple[int, ...]
    migrators: tuple[Migrator, Migrator]
    writers: tuple[Writer, Writer]
    latest: int
    acked: int
    cached: int | None
    loaded: int | None
    crashes: int
    unflushed: tuple[frozenset[State], ...]


IDLE: Final = Idle()


def begin(scope: Scope) -> World:
    """Returns the first world: shard 0 owns the slot, the key does not exist, the first goal is published."""
    return World(
        turn=0,
        wanted=scope.goals[0],
        slots=(Row(SlotState.OWNED, 1, None), *(None,) * (scope.shards - 1)),
        rows=(0,) * scope.shards,
        migrators=(IDLE, IDLE),
        writers=(IDLE, IDLE),
        latest=0,
        acked=0,
        cached=None,
        loaded=None,
        crashes=scope.crashes,
        unflushed=(frozenset(),) * scope.shards,
    )


def readable(world: World) -> list[int]:
    return [shard for shard, row in enumerate(world.slots) if row is not None and row.state in READABLE]


def writable(world: World) -> list[int]:
    return [shard for shard, row in enumerate(world.slots) if row is not None and row.state in WRITABLE]


@cache
def slot_row(row: Row | None) -> SlotRow | None:
    """Returns the row as a value of `ring`."""
    if row is None:
        return None
    return SlotRow(SLOT, row.state, row.epoch, None if row.peer is None else NAMES[row.peer])


def put(values: tuple[Value, ...], shard: int, value: Value) -> tuple[Value, ...]:
    """Returns `values` with that of one shard replaced."""
    return (*values[:shard], value, *values[shard + 1 :])


@cache
def as_move(source: int, epoch: int, target: int) -> Move:
    return Move(SLOT, NAMES[source], epoch, NAMES[target])
