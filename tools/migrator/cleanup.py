"""Which rows are left over from slots that were given away, and may be deleted; the hand-off's table decides."""

from __future__ import annotations

from collections import defaultdict

from ring.handoff import Desired, Program, SourceState, Step, TargetState, move_of, next_steps
from ring.ownership import Owner, SlotRow, SlotState
from snapurl.store.cluster.tables import sharded_tables
from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot
from tools.migrator.schedule import Task
from tools.transfer.batch import Batch

CLEAN = (Step.CLEAN,)


async def cleanup_tasks(fleet: Fleet, snapshot: Snapshot, grace_s: float) -> tuple[list[Task], int]:
    """Returns one task per pair of shards for the rows that may be deleted, and how many slots have to wait.

    A slot waits within its grace period, and while the shard that owns it now does not answer.
    """
    tasks: list[Task] = []
    waiting = 0
    for name in snapshot.rows:
        tables = await sharded_tables(await fleet.control(name))
        exists = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table.name} t WHERE t.slot = s.slot)" for table in tables
        )
        rows = await fleet.fetch(
            name,
            "SELECT s.slot, s.epoch, s.peer, s.changed_at < now() - make_interval(secs => $1) AS grace_is_over"
            f" FROM slots s WHERE s.state = 'released' AND ({exists}) ORDER BY s.slot",
            grace_s,
        )
        by_peer: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)
        for row in rows:
            slot, epoch, peer = row["slot"], row["epoch"], row["peer"]
            released = SlotRow(slot, SlotState.RELEASED, epoch, peer)
            program = steps_after_release(name, released, snapshot.ownership.owners[slot])
            if row["grace_is_over"] and program == CLEAN:
                by_peer[peer].append((slot, epoch - 1))
            else:
                waiting += 1
        for peer, pairs in sorted(by_peer.items()):
            slots, epochs = zip(*pairs, strict=True)
            tasks.append(Task(Batch(name, peer, slots, epochs), CLEAN))
    return tasks, waiting


def steps_after_release(shard: str, released: SlotRow, owner: Owner | None) -> Program:
    """Returns the steps that follow for a slot that `shard` has released, now that `owner` has it.

    A slot may have been given on since, and the shard that took it first may be gone. So the target counts as
    the owner if any shard holds the slot at the epoch of the release or a later one, and answers. Until then
    the released rows may be the last copy, even if the target's own row says that the move was decided.
    """
    move = move_of(shard, released)
    assert move is not None
    decided = owner is not None and owner.state is not None and owner.epoch > move.epoch
    target = TargetState.OWNER if decided else TargetState.UNREACHABLE
    return next_steps(Desired.STAY, SourceState.RELEASED, target)
