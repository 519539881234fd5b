"""The hand-off: how a slot goes from its source to its target while both serve traffic. Pure data.

Theory
======
`TABLE` says, for every pair of states that can be found on the two shards, which steps follow, in order.
To start a move, to resume one and to recover after a crash is the same look-up; nothing else is remembered.
`RULES` says what each step finds, checks and leaves on a shard; the SQL of a step is its row of `RULES`, and
the legal transitions of a `slots` row are derived from it. A pair that is not in `TABLE` is an error.

Notation. A move is one slot going from `source`, its owner at epoch `e`, to `target`: `db0@7 -> db4`. The
target will own the slot at `e + 1`. A row of `slots` is (state, epoch, peer, move_token).

The way forward                                       source              target
    LEAVE     serve as before; no purge of dead rows  leaving, token t
    IMPORT    record the attempt                                          importing, token t
    PURGE     delete what the target has of the slot
    COPY      all rows, from one snapshot
    CATCH_UP  what was written since; may be repeated
    CHECK     count and checksum, on both sides, as of one snapshot
    FREEZE    wait for writers, then refuse writes    frozen
    CATCH_UP  the last of it
    VERIFY    the same of what was written since CHECK, or of all if this attempt made none
    CLOSE     refuse reads too                        closed
    COMMIT    *the decision*                                              owned, epoch e + 1
    RELEASE   tell stale routers where it went        released, epoch e + 1
    CLEAN     after a grace period, delete the rows
The way back, until COMMIT
    CLAIM     be the one who works on this move       another token
    RETRACT   make a COMMIT under way fail                                released, epoch e
    RESTORE   serve as before                         owned
To take over what another began is CLAIM, then ADOPT for IMPORT if the rows may be complete already.

Tokens. A migrator may be stopped between any two steps, be given up for dead and replaced, and wake up in the
middle of its successor's work. So each attempt has a fresh token on *both* rows, each step compares it in
the transaction in which it acts, and who takes over replaces it: on the source first (CLAIM), then on the
target (IMPORT, ADOPT). After a lost reply, a refused step or any other fault: look again and begin with a
fresh token; never repeat a step blindly.

Why there is one owner. Call t an attempt that commits, u one that restores the source at the same epoch.
    - The order of t is LEAVE or CLAIM, IMPORT or ADOPT, CLOSE, COMMIT; that of u is CLAIM, RETRACT, RESTORE.
    - If u claimed before t's CLOSE, that CLOSE finds another token, and t never comes to COMMIT.
    - If t's CLOSE came first, so did its IMPORT. u's RETRACT comes later: either it finds the target
      importing, and no COMMIT of t can follow, or it finds the decision, and u goes no further. QED
So every attempt makes CLOSE, also on a source that is closed already. And CLAIM compares the state with the
one that was found, not the token alone: a source claimed while `leaving` was closed by nobody, which is why
it may be restored without asking an unreachable target. (A `frozen` one could be too, but waits: a source
that failed over may have lost the word that it was closed.)

Why nothing is lost. FREEZE gets the slot's exclusive lock only when no writer holds the shared one, and a
writer reads the state after it has its lock: what was acknowledged is in the source before the last CATCH_UP,
what comes later is refused. From CLAIM to CLOSE the token shows that nobody thawed the source; from IMPORT to
COMMIT, that nobody else wrote to the target. VERIFY is what a migrator that took over relies on, so it compares all
rows then. CHECK has shown that both sides are equal as of a snapshot; since nobody else writes to the target, they
are equal in the end if they are in what the source has got since (`tools/transfer/compare.py`). It spares the
pause the comparison of all rows, and nothing else needs it.

What A -> B -> A needs. The epoch of a row never falls, so that a step meant for an earlier stay is refused.
IMPORT records the attempt before PURGE deletes, and CLEAN deletes under a lock on a row that still says
`released`, so that neither can meet the other's rows. A target that was retracted looks like a shard that
gave the slot to the source at `e`, and is cleaned like one.

What must wait for the disk. Every write of a client does; of the steps, CLOSE, COMMIT and RELEASE do. A step in
RELAXED may be lost if its server crashes in the moment after it: then the server is as it was after an earlier
commit, and no connection to it is left. So whoever made the lost step cannot go on from it, and what others find
is a pair that the table has. What a later step relies on was flushed with it or before it: a FROZEN that CLOSE
found, the copy that COMMIT hands on. Only CLOSE must be there before COMMIT on the other shard, COMMIT before
RELEASE, and RELEASE before the slot comes back. A target may come back with the import of an earlier attempt, whose
rows are old: that is why GO_ON verifies. CHECK waits too, though nothing rests on it: what was copied is on the
disk before the pause then, and COMMIT has little left to wait for. (CLAIM, ADOPT, RETRACT and RESTORE could be
relaxed too, but are rare.)

`tests/model` searches all interleavings of this table with itself; take a step out and it shows what happens.

The SQL of the steps
====================
Each step is ONE call in ONE transaction at READ COMMITTED (with synchronous_commit off for those in RELAXED), for a
batch of slots all or nothing: if fewer rows
match than were asked for, roll back and look again. No lock is held while waiting for the migrator, except by
COPY and CATCH_UP. Rows of `slots` are locked in ascending order. `t` is the token, `e` the epoch, S the
source, T the target; `as found` is what the look-up that led here saw.

On S; all but LEAVE and CLEAN also check `epoch = e AND peer = T`:
    LEAVE     SET state 'leaving', peer T, move_token t          WHERE state = 'owned' AND epoch = e
    CLAIM     SET move_token t
              WHERE state IN ('leaving', 'frozen', 'closed') AND state = as found AND move_token = as found
    FREEZE    first, in a statement of its own: pg_advisory_xact_lock(namespace, slot), under a short
              lock_timeout; then SET state 'frozen'              WHERE state = 'leaving' AND move_token = t
    CLOSE     SET state 'closed'                     WHERE state IN ('frozen', 'closed') AND move_token = t
    RELEASE   SET state 'released', epoch e + 1, move_token NULL WHERE state = 'closed' AND move_token = t
    RESTORE   SET state 'owned', peer NULL, move_token NULL
              WHERE state IN ('leaving', 'frozen', 'closed') AND move_token = t
    CLEAN     first SELECT ... WHERE state = 'released' AND epoch = as found FOR SHARE, then DELETE a batch
On T; `mine` is `state = 'importing' AND epoch = e AND peer = S AND move_token = t`:
    IMPORT    INSERT (state 'importing', epoch e, peer S, move_token t), ON CONFLICT (slot) the same by UPDATE
              WHERE state IN ('released', 'importing') AND epoch <= e
    ADOPT     SET move_token t                       WHERE state = 'importing' AND epoch = e AND peer = S
    PURGE, COPY, CATCH_UP (CHECK begins with one)
              first SELECT ... WHERE mine FOR SHARE, then the rows. IMPORT, ADOPT, RETRACT and COMMIT wait for
              that lock (not for FOR KEY SHARE). What is written gets T's own transaction as its `xid`
    COMMIT    SET state 'owned', epoch e + 1, peer NULL, move_token NULL      WHERE mine
    RETRACT   SET state 'released', move_token NULL  WHERE state = 'importing' AND epoch = e AND peer = S;
              then, in a statement of its own: refused if the row has epoch > e, for the move is decided. That
              there was nothing to set is fine
On both:
    CHECK     S: state = 'leaving' AND move_token = t; T: mine; equal figures, `xid` left out
    VERIFY    S: state IN ('frozen', 'closed') AND move_token = t; T: mine; equal figures, `xid` left out
Who purges dead rows first does SELECT ... WHERE state = 'owned' FOR SHARE, so that LEAVE waits for the purge.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from ring.errors import HandOffError
from ring.ownership import SlotRow, SlotState


class Step(StrEnum):
    """A step of a hand-off: the theory says what it does, `RULES` on which conditions."""

    LEAVE = "leave"
    CLAIM = "claim"
    IMPORT = "import"
    ADOPT = "adopt"
    PURGE = "purge"
    COPY = "copy"
    CATCH_UP = "catch-up"
    CHECK = "check"
    FREEZE = "freeze"
    VERIFY = "verify"
    CLOSE = "close"
    COMMIT = "commit"
    RELEASE = "release"
    CLEAN = "clean"
    RETRACT = "retract"
    RESTORE = "restore"
    WAIT = "wait"


class Desired(StrEnum):
    """Where the ring wants the slot: at the move's target, or not (any more)."""

    MOVE = "move"
    STAY = "stay"


class SourceState(StrEnum):
    """The state found on the source of a move."""

    OWNED = "owned"
    LEAVING = "leaving"
    FROZEN = "frozen"
    CLOSED = "closed"
    RELEASED = "released"
    ELSEWHERE = "elsewhere"
    """The source holds nothing at the move's epoch, or gives it to another shard: there is no such move."""


class TargetState(StrEnum):
    """The state found on the target of a move."""

    ABSENT = "absent"
    """No row, or one from before this move."""
    IMPORTING = "importing"
    OWNER = "owner"
    """Decided: the target owns the slot at `e + 1`, or did and has given it on since."""
    BEHIND = "behind"
    """The target's own, earlier hand-off of this slot is decided but not released yet."""
    UNREACHABLE = "unreachable"


@dataclass(frozen=True, slots=True)
class Move:
    """The move of one slot; `epoch` is that of the source. Written `db0@7 -> db4`."""

    slot: int
    source: str
    epoch: int
    target: str

    def __str__(self) -> str:
        return f"{self.source}@{self.epoch} -> {self.target}"


_ATTEMPT: Final = (
    Step.IMPORT,
    Step.PURGE,
    Step.COPY,
    Step.CATCH_UP,
    Step.CHECK,
    Step.FREEZE,
    Step.CATCH_UP,
    Step.VERIFY,
    Step.CLOSE,
    Step.COMMIT,
    Step.RELEASE,
)
ABORT: Final = (Step.RETRACT, Step.RESTORE)
"""What follows, under the same token, if CHECK or VERIFY finds a difference or FREEZE is not granted in time."""

_START: Final = (Step.LEAVE, *_ATTEMPT)
_START_OVER: Final = (Step.CLAIM, *_ATTEMPT)
_GO_ON: Final = (Step.CLAIM, Step.ADOPT, Step.VERIFY, Step.CLOSE, Step.COMMIT, Step.RELEASE)
_GIVE_BACK: Final = (Step.CLAIM, *ABORT)
_WAIT: Final = (Step.WAIT,)

Program = tuple[Step, ...]
Pair = tuple[SourceState, TargetState]


@dataclass(frozen=True, slots=True)
class TableRow:
    """One row of the table: the steps if the slot is to move, and if it is to stay."""

    move: Program
    stay: Program


def _both(*program: Step) -> TableRow:
    return TableRow(program, program)


TABLE: Final[Mapping[Pair, TableRow]] = MappingProxyType(
    {
        (SourceState.OWNED, TargetState.ABSENT): TableRow(_START, ()),
        (SourceState.OWNED, TargetState.IMPORTING): TableRow(_START, (Step.RETRACT,)),
        (SourceState.OWNED, TargetState.BEHIND): TableRow(_WAIT, ()),
        (SourceState.OWNED, TargetState.UNREACHABLE): TableRow(_WAIT, ()),
        (SourceState.LEAVING, TargetState.ABSENT): TableRow(_START_OVER, _GIVE_BACK),
        (SourceState.LEAVING, TargetState.IMPORTING): TableRow(_START_OVER, _GIVE_BACK),
        (SourceState.LEAVING, TargetState.UNREACHABLE): TableRow(_WAIT, (Step.CLAIM, Step.RESTORE)),
        (SourceState.FROZEN, TargetState.ABSENT): _both(*_GIVE_BACK),
        (SourceState.FROZEN, TargetState.IMPORTING): TableRow(_GO_ON, _GIVE_BACK),
        (SourceState.FROZEN, TargetState.OWNER): _both(Step.CLAIM, Step.CLOSE, Step.RELEASE),
        (SourceState.FROZEN, TargetState.UNREACHABLE): _both(*_WAIT),
        (SourceState.CLOSED, TargetState.ABSENT): _both(*_GIVE_BACK),
        (SourceState.CLOSED, TargetState.IMPORTING): TableRow(_GO_ON, _GIVE_BACK),
        (SourceState.CLOSED, TargetState.OWNER): _both(Step.CLAIM, Step.RELEASE),
        (SourceState.CLOSED, TargetState.UNREACHABLE): _both(*_WAIT),
        (SourceState.RELEASED, TargetState.OWNER): _both(Step.CLEAN),
        (SourceState.RELEASED, TargetState.UNREACHABLE): _both(*_WAIT),
        # Found by a migrator with an old plan, or one that read the rows while the move went on.
        (SourceState.ELSEWHERE, TargetState.ABSENT): _both(),
        (SourceState.ELSEWHERE, TargetState.IMPORTING): _both(Step.RETRACT),
        (SourceState.ELSEWHERE, TargetState.OWNER): _both(),
        (SourceState.ELSEWHERE, TargetState.BEHIND): _both(),
        (SourceState.ELSEWHERE, TargetState.UNREACHABLE): _both(*_WAIT),
    }
)
"""(state found on source, on target) -> the steps that follow. Nothing else defines them."""


def next_steps(desired: Desired, source: SourceState, target: TargetState) -> Program:
    """Returns the steps that follow from the states found, in order; empty if there is nothing to do.

    Raises HandOffError for a pair that no hand-off leads to. Source and target are not read at one instant, so read
    them once more before you rely on it; what then still fails is for `doctor`.
    """
    row = TABLE.get((source, target))
    if row is None:
        raise HandOffError(f"source {source}, target {target}: no hand-off leads there")
    return row.move if desired is Desired.MOVE else row.stay


def move_of(shard: str, row: SlotRow) -> Move | None:
    """Returns the move that the row of `shard` belongs to; None if it just owns the slot."""
    match row.state, row.peer:
        case SlotState.IMPORTING, str(peer):
            return Move(row.slot, peer, row.epoch, shard)
        case SlotState.RELEASED, str(peer):
            return Move(row.slot, shard, row.epoch - 1, peer)
        case _, str(peer):
            return Move(row.slot, shard, row.epoch, peer)
    return None


def found_on_source(move: Move, row: SlotRow | None) -> SourceState:
    """Returns what the source's row (None: it has none) means for `move`."""
    match row:
        case SlotRow(state=SlotState.OWNED, epoch=move.epoch):
            return SourceState.OWNED
        case SlotRow(state=SlotState.LEAVING, epoch=move.epoch, peer=move.target):
            return SourceState.LEAVING
        case SlotRow(state=SlotState.FROZEN, epoch=move.epoch, peer=move.target):
            return SourceState.FROZEN
        case SlotRow(state=SlotState.CLOSED, epoch=move.epoch, peer=move.target):
            return SourceState.CLOSED
        case SlotRow(state=SlotState.RELEASED, peer=move.target) if row.epoch == move.epoch + 1:
            return SourceState.RELEASED
    return SourceState.ELSEWHERE


def found_on_target(move: Move, row: SlotRow | None) -> TargetState:
    """Returns what the target's row (None: it has none) means for `move`.

    Raises HandOffError if the target serves the slot at an epoch that the source's has overtaken or equals.
    """
    if row is None:
        return TargetState.ABSENT
    if row.epoch > move.epoch:
        return TargetState.OWNER
    match row.state:
        case SlotState.IMPORTING if row.epoch == move.epoch and row.peer == move.source:
            return TargetState.IMPORTING
        case SlotState.RELEASED | SlotState.IMPORTING:
            return TargetState.ABSENT
        case SlotState.FROZEN | SlotState.CLOSED if row.epoch < move.epoch:
            return TargetState.BEHIND
    raise HandOffError(f"slot {move.slot}, {move}: the target is {row.state}@{row.epoch} too")


class Token(StrEnum):
    """Which `move_token` a step must find."""

    MINE = "mine"
    FOUND = "as found"
    """And the state too: the row must not have changed since it was read."""
    ANY = "any"


class Epoch(StrEnum):
    """What a step does to the epoch of the row; no row counts as epoch 0."""

    KEPT = "kept"
    NEXT = "+ 1"
    MOVES = "the move's, never lower"


@dataclass(frozen=True, slots=True)
class Guard:
    """What a shard checks in its row before it does a step, and what it leaves.

    `finds`: the states of which one must be found (None: no row). `leaves`: the state after it, None for the
    one that was found. `fresh`: whether the attempt's token is written; a row without a move has none.
    """

    finds: frozenset[SlotState | None]
    token: Token
    leaves: SlotState | None = None
    epoch: Epoch = Epoch.KEPT
    fresh: bool = False


@dataclass(frozen=True, slots=True)
class Rule:
    """A step's guards, on the sides on which it has one."""

    source: Guard | None = None
    target: Guard | None = None


_IN_HAND_OFF: Final = frozenset({SlotState.LEAVING, SlotState.FROZEN, SlotState.CLOSED})
_MY_IMPORT: Final = Guard(frozenset({SlotState.IMPORTING}), Token.MINE)


def _guard(
    finds: Iterable[SlotState | None],
    token: Token,
    leaves: SlotState | None = None,
    epoch: Epoch = Epoch.KEPT,
    *,
    fresh: bool = False,
) -> Guard:
    return Guard(frozenset(finds), token, leaves, epoch, fresh)


RULES: Final[Mapping[Step, Rule]] = MappingProxyType(
    {
        Step.LEAVE: Rule(source=_guard({SlotState.OWNED}, Token.ANY, SlotState.LEAVING, fresh=True)),
        Step.CLAIM: Rule(source=_guard(_IN_HAND_OFF, Token.FOUND, fresh=True)),
        Step.IMPORT: Rule(
            target=_guard(
                {None, SlotState.RELEASED, SlotState.IMPORTING},
                Token.ANY,
                SlotState.IMPORTING,
                Epoch.MOVES,
                fresh=True,
            )
        ),
        Step.ADOPT: Rule(target=_guard({SlotState.IMPORTING}, Token.ANY, fresh=True)),
        Step.PURGE: Rule(target=_MY_IMPORT),
        Step.COPY: Rule(target=_MY_IMPORT),
        Step.CATCH_UP: Rule(target=_MY_IMPORT),
        Step.CHECK: Rule(source=_guard({SlotState.LEAVING}, Token.MINE), target=_MY_IMPORT),
        Step.FREEZE: Rule(source=_guard({SlotState.LEAVING}, Token.MINE, SlotState.FROZEN)),
        Step.VERIFY: Rule(
            source=_guard({SlotState.FROZEN, SlotState.CLOSED}, Token.MINE),
            target=_MY_IMPORT,
        ),
        Step.CLOSE: Rule(
            source=_guard({SlotState.FROZEN, SlotState.CLOSED}, Token.MINE, SlotState.CLOSED),
        ),
        Step.COMMIT: Rule(
            target=_guard({SlotState.IMPORTING}, Token.MINE, SlotState.OWNED, Epoch.NEXT),
        ),
        Step.RELEASE: Rule(
            source=_guard({SlotState.CLOSED}, Token.MINE, SlotState.RELEASED, Epoch.NEXT),
        ),
        Step.CLEAN: Rule(source=_guard({SlotState.RELEASED}, Token.ANY)),
        Step.RETRACT: Rule(target=_guard({SlotState.IMPORTING}, Token.ANY, SlotState.RELEASED)),
        Step.RESTORE: Rule(source=_guard(_IN_HAND_OFF, Token.MINE, SlotState.OWNED)),
        Step.WAIT: Rule(),
    }
)
"""Step -> guards. RETRACT is also content with no row, and with one that is of an earlier move."""


RELAXED: Final = frozenset(
    {Step.LEAVE, Step.IMPORT, Step.PURGE, Step.COPY, Step.CATCH_UP, Step.FREEZE, Step.CLEAN}
)
"""Steps whose commit does not wait for the disk; the theory says why that is enough."""


@dataclass(frozen=True, slots=True)
class StateChange:
    """One legal change of a row of `slots`; None before is "no row". Rows are never deleted."""

    before: SlotState | None
    after: SlotState
    epoch: Epoch
    step: Step | None
    """None for the first start of a cluster, which makes the rows."""


def state_changes() -> tuple[StateChange, ...]:
    """Returns every change that a step makes to a row, in the order of `RULES`."""
    found = [StateChange(None, SlotState.OWNED, Epoch.NEXT, None)]
    for step, rule in RULES.items():
        for guard in (rule.source, rule.target):
            if guard is not None and (guard.leaves is not None or guard.fresh):
                found.extend(_changes_of(step, guard))
    return tuple(found)


def _changes_of(step: Step, guard: Guard) -> Iterator[StateChange]:
    for before in (None, *SlotState):
        after = guard.leaves or before
        if before in guard.finds and after is not None:
            yield StateChange(before, after, guard.epoch, step)
