"""A restarted shard: what it may still say of its slots, and what must happen before it rejoins. Pure data.

Theory
======
A shard may come back in an older state: a standby was promoted that lacked the last transactions, or an older
backup or disk was put in place. It then claims slots that it has given away since, and nothing inside it
shows that. But its server has *restarted*: a promoted standby, a restored backup and a plain restart each
have a postmaster with another start time. So each shard keeps the start time that was last *attested*; an
older state has an older one. The fence, every read and every step of a hand-off compare it with the start
time of the server that they run on, in the shard and in the same statement. Until the restart is attested,
callers are told to retry.

To attest shard B, in this order:
    1. read the start time of its server;
    2. read the rows of `slots` of every shard;
    3. assess them (below);
    4. retract the imports from B that may be under way;
    5. have the other shards record B's timeline;
    6. in one transaction on B, release the slots that it has lost and record the start time of step 1.
If the server is replaced in between, its start time is another one, and step 6 is refused.

Why B then serves no slot that another shard owns. Take a slot that B's row serves at epoch e, and a hand-off
that gave it, or will give it, to T at e + 1. The COMMIT on T comes
    - before T's rows are read: then T has a row above e, or has given the slot on to a shard that has one.
      Epochs never fall, so B is behind, whatever happened since, and releases the slot;
    - after that: its IMPORT precedes its CLOSE on B, and no CLOSE is done on B until B is attested. If the
      server that is gone did the CLOSE, the import is found on T and retracted. Then the COMMIT fails, or it
      came first, RETRACT is refused, and the assessment starts again. If the CLOSE comes later, it closes
      the row that serves. QED
A `closed` row serves nothing and needs none of this. T may have been restored to an older state itself and no
longer know that it owned the slot. Then no shard has a higher epoch: T has lost those rows with its
transactions.

A shard that does not answer may be T. A slot only goes where some topology has placed it, and each topology
is given to every shard that answers before anything moves by it. So a plain restart (same timeline as the
attested one) waits for no silent shard if at least one other shard answers, and no topology known to the
others has placed a slot that B serves on a silent one. After a promotion all shards must answer.

What this cannot detect:
    - A server that was replaced, never stopped, and is still reachable serves as before. Whoever promotes a
      standby must make sure that the old primary is gone. If that comes back, it has restarted, on an older
      timeline than the others have recorded.
    - A virtual machine that is set back together with its memory has not restarted.
    - An older backup is put back on its old timeline while another shard is silent, and no shard that answers
      knows the topology by which slots went to the silent one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum, auto

from ring.ownership import HOLDING, READABLE, SlotRow, SlotState
from ring.placement import place
from ring.topology import Topology

Rows = Mapping[int, SlotRow]
"""slot -> row, of one shard."""


@dataclass(frozen=True, slots=True)
class RestartedShard:
    """A shard whose server has restarted: its name, its timeline, and the timeline that was last attested."""

    shard: str
    timeline: int
    attested_timeline: int | None

    @property
    def same_timeline(self) -> bool:
        """Whether it goes on with the log that it had: it was neither promoted nor restored with recovery."""
        return self.attested_timeline == self.timeline


@dataclass(frozen=True, slots=True)
class Lost:
    """A slot that the restarted shard serves and `peer` has, or had, at the higher `epoch`."""

    slot: int
    peer: str
    epoch: int


class BlockerKind(Enum):
    """Why a restarted shard cannot rejoin; an operator's remedy depends on it."""

    REPLACED_SERVER = auto()
    """A newer server than this one was attested; it may be found at another host."""
    SILENT_SHARDS = auto()
    """Shards must answer first that may own what this one serves."""
    SAME_EPOCH = auto()
    """Another shard claims a slot at the same epoch."""


@dataclass(frozen=True, slots=True)
class Blocker:
    """Something that can only be waited for, or settled by an operator. `reason` is one line to show."""

    kind: BlockerKind
    reason: str


@dataclass(frozen=True, slots=True)
class Assessment:
    """What must happen before the shard may serve.

    Nothing may while there are `blockers`. `lost` slots are to be released. `imports`: shard -> (slot, epoch)
    of the imports from the restarted shard that are to be retracted first.
    """

    blockers: tuple[Blocker, ...] = ()
    lost: tuple[Lost, ...] = ()
    imports: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)

    @property
    def replaced(self) -> bool:
        """Whether a newer server than this one was attested."""
        return any(blocker.kind is BlockerKind.REPLACED_SERVER for blocker in self.blockers)

    @property
    def clean(self) -> bool:
        """Whether nothing is left to do but to attest it."""
        return not (self.blockers or self.lost or self.imports)


def assess(
    restarted: RestartedShard,
    rows: Mapping[str, Rows],
    silent: Iterable[str],
    topologies: Sequence[Topology],
    newest_timeline: int,
) -> Assessment:
    """Returns what the rows of all shards that answer (`rows`, the restarted one's too) mean for it.

    `topologies` are those that the *other* shards know, `newest_timeline` the highest that they have recorded
    of it.
    """
    name = restarted.shard
    serving = {slot: row for slot, row in rows[name].items() if row.state in READABLE}
    blockers = []
    if newest_timeline > restarted.timeline:
        reason = (
            f"it is on timeline {restarted.timeline}, and {newest_timeline} was attested: it is a server "
            "that was replaced, or an older backup"
        )
        blockers.append(Blocker(BlockerKind.REPLACED_SERVER, reason))
    silent_others = sorted(each for each in silent if each != name)
    if silent_others and (reason := _why_wait(restarted, serving, rows, silent_others, topologies)):
        blockers.append(Blocker(BlockerKind.SILENT_SHARDS, reason))
    lost: dict[int, Lost] = {}
    imports: dict[str, list[tuple[int, int]]] = {}
    for other in sorted(rows.keys() - {name}):
        for slot, mine in serving.items():
            theirs = rows[other].get(slot)
            if theirs is None:
                continue
            if theirs.epoch > mine.epoch:
                found = _lost(slot, other, theirs, name)
                if slot not in lost or found.epoch > lost[slot].epoch or _holds(theirs, found, lost[slot]):
                    lost[slot] = found
            elif theirs.epoch == mine.epoch and theirs.state in HOLDING:
                reason = f"slot {slot} is claimed by {other} too, at the same epoch {mine.epoch}"
                blockers.append(Blocker(BlockerKind.SAME_EPOCH, reason))
            elif theirs.state is SlotState.IMPORTING and theirs.peer == name and theirs.epoch == mine.epoch:
                imports.setdefault(other, []).append((slot, mine.epoch))
    return Assessment(
        tuple(blockers),
        tuple(lost[slot] for slot in sorted(lost)),
        {other: tuple(sorted(slots)) for other, slots in imports.items()},
    )


def _lost(slot: int, other: str, theirs: SlotRow, name: str) -> Lost:
    """Returns who has the slot, as `other` says. If it names the restarted shard itself, `other` had it last."""
    peer = other if theirs.state in HOLDING or theirs.peer in (None, name) else theirs.peer
    return Lost(slot, peer or other, theirs.epoch)


def _holds(theirs: SlotRow, found: Lost, known: Lost) -> bool:
    """Whether `found` wins over `known` at one epoch: a shard that has the slot over one that gave it away."""
    return found.epoch == known.epoch and theirs.state in HOLDING


def _why_wait(
    restarted: RestartedShard,
    serving: Rows,
    rows: Mapping[str, Rows],
    silent: Sequence[str],
    topologies: Sequence[Topology],
) -> str:
    """Returns why the silent shards must answer first; empty if none of them can own what this one serves."""
    wait = f"{', '.join(silent)} must answer first"
    if not restarted.same_timeline:
        return f"a standby was promoted, or a backup restored: {wait}"
    if len(rows) < 2:
        return f"no other shard answers: {wait}"
    if any(row.state is not SlotState.OWNED for row in serving.values()):
        return f"it has slots in hand-off: {wait}"
    for topology in topologies:
        if any(shard.name in silent for shard in topology.shards):
            placement = place(topology)
            if any(placement[slot] in silent for slot in serving):
                return f"slots that it has were given, or meant, to a shard that is silent: {wait}"
    return ""
