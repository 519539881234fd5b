"""A shard that comes back with a past: what it may still say of its slots. Pure data.

Theory
======
A shard may come back as it was some time ago: a standby was promoted that had not got the last
transactions, an older backup was put back, the disk was. It then believes to own slots that it has given
away since, and nothing inside it can tell. But whatever brought it back, its server has *started* since it
last served: a promoted standby, a restored backup and a plain restart each have a postmaster that began at
another moment. So each shard keeps the start for which somebody has vouched (`cluster.attested_start`; it
goes back in time with the rest), and the fence, every read and every step of a hand-off compare it with the
start of the server they run on, in the shard and in the same statement. Until somebody vouches, all are
told to come again.

To vouch for shard B is, in this order: read the start of its server; read the rows of `slots` of every
shard; judge them (below); take back the imports from B that may be under way; have the other shards
remember B's timeline; in one transaction on B, give up the slots that it has lost and record the start that
was read first. A server that was replaced meanwhile has another start, and refuses.

Why B serves nothing then that another shard owns. Take a slot that B's row serves at epoch e, and a hand-
off that gave it, or will give it, to T at e + 1. Its COMMIT on T is
    - before T's rows were read: T has a row above e, or has given the slot on to a shard that has one.
      Epochs never fall, so B is behind, whatever happened since, and gives the slot up;
    - after that: its IMPORT precedes its CLOSE on B, and no CLOSE is done on B until B is vouched for. If
      the CLOSE was done by the server that is gone, the import was found on T and taken back (RETRACT), so
      the COMMIT fails, or came first, and RETRACT is refused: look again. If the CLOSE comes later, it
      closes the row that serves. QED
A row that is `closed` serves nothing and needs none of this. T may have a past of its own and no longer
know that it owned the slot: then nobody has a higher epoch, and what it had is what a shard loses that
loses transactions.

Who does not answer may be T. A slot goes only where some topology has placed it, and a topology is given to
every shard that answers before anything moves by it. So a shard that was only started again (its timeline
is the one that was vouched for) is not kept waiting if at least one other shard answers and no topology
that the others know has placed any slot that B serves on one that is silent. After a promotion all shards
must answer.

What this cannot see. A server that was replaced but never stopped, and is still reached by somebody, serves
as before: whoever promotes a standby must make sure that the old primary is gone (if it comes back, it has
started anew and is on an older timeline than the others remember). A virtual machine that is set back
together with its memory has not started anew. An older backup put back on its old timeline while another
shard is silent, and while no shard that answers knows the topology by which slots went to the silent one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from ring.ownership import HOLDING, READABLE, SlotRow, SlotState
from ring.placement import place
from ring.topology import Topology

Rows = Mapping[int, SlotRow]
"""slot -> row, of one shard."""


@dataclass(frozen=True, slots=True)
class RestartedShard:
    """A shard whose server has started anew: its name, its timeline, and the one that was last vouched for."""

    shard: str
    timeline: int
    vouched_timeline: int | None

    @property
    def same_log(self) -> bool:
        """Whether it goes on with the log that it had: not promoted, nor restored with recovery."""
        return self.vouched_timeline == self.timeline


@dataclass(frozen=True, slots=True)
class Lost:
    """A slot that the returned shard serves and another has, or had, at the higher `epoch`: ask `peer`."""

    slot: int
    peer: str
    epoch: int


@dataclass(frozen=True, slots=True)
class Assessment:
    """What must happen before the shard may serve.

    `doubts`, one line each, can only be waited for or settled by an operator. `lost` slots are to be released.
    `imports`: shard -> (slot, epoch) of the imports from the returned shard that are to be taken back first.
    `replaced`: a newer server than this one was vouched for; it may be found at another host.
    """

    blockers: tuple[str, ...] = ()
    lost: tuple[Lost, ...] = ()
    imports: Mapping[str, tuple[tuple[int, int], ...]] = field(default_factory=dict)
    replaced: bool = False

    @property
    def clean(self) -> bool:
        """Whether there is nothing to do but to vouch for it."""
        return not (self.blockers or self.lost or self.imports)


def assess(
    restarted: RestartedShard,
    rows: Mapping[str, Rows],
    silent: Iterable[str],
    topologies: Sequence[Topology],
    newest_timeline: int,
) -> Assessment:
    """What the rows of all shards that answer (`rows`, the returned one's too) mean to it.

    `topologies` are those that the *other* shards know, `newest_timeline` the highest that these remember of it.
    """
    name = restarted.shard
    serving = {slot: row for slot, row in rows[name].items() if row.state in READABLE}
    blockers = []
    if newest_timeline > restarted.timeline:
        blockers.append(
            f"it is on timeline {restarted.timeline}, and {newest_timeline} was vouched for: it is a server "
            "that was replaced, or an older backup"
        )
    away = sorted(each for each in silent if each != name)
    if away and (why := _why_wait(restarted, serving, rows, away, topologies)):
        blockers.append(why)
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
                blockers.append(f"slot {slot} is claimed by {other} too, at the same epoch {mine.epoch}")
            elif theirs.state is SlotState.IMPORTING and theirs.peer == name and theirs.epoch == mine.epoch:
                imports.setdefault(other, []).append((slot, mine.epoch))
    return Assessment(
        tuple(blockers),
        tuple(lost[slot] for slot in sorted(lost)),
        {other: tuple(sorted(slots)) for other, slots in imports.items()},
        newest_timeline > restarted.timeline,
    )


def _lost(slot: int, other: str, theirs: SlotRow, name: str) -> Lost:
    """Where the slot is, as `other` says; if it names the returned shard itself, `other` is the last who had it."""
    peer = other if theirs.state in HOLDING or theirs.peer in (None, name) else theirs.peer
    return Lost(slot, peer or other, theirs.epoch)


def _holds(theirs: SlotRow, found: Lost, known: Lost) -> bool:
    """Of two that speak of one epoch, the shard that has the slot is believed before one that gave it away."""
    return found.epoch == known.epoch and theirs.state in HOLDING


def _why_wait(
    restarted: RestartedShard,
    serving: Rows,
    rows: Mapping[str, Rows],
    away: Sequence[str],
    topologies: Sequence[Topology],
) -> str:
    """Why the silent shards have to be waited for; empty if none of them can have what this one serves."""
    wait = f"{', '.join(away)} must answer first"
    if not restarted.same_log:
        return f"a standby was promoted, or a backup restored: {wait}"
    if len(rows) < 2:
        return f"no other shard answers: {wait}"
    if any(row.state is not SlotState.OWNED for row in serving.values()):
        return f"it has slots in hand-off: {wait}"
    gone = set(away)
    for topology in topologies:
        if gone.isdisjoint(shard.name for shard in topology.shards):
            continue
        placed = place(topology)
        if any(placed[slot] in gone for slot in serving):
            return f"slots that it has were given, or meant, to a shard that is silent: {wait}"
    return ""
