"""Which rows are left over from slots that were given away, and may be deleted."""

from __future__ import annotations

from tools.cluster.fleet import Fleet
from tools.cluster.snapshot import Snapshot
from tools.cluster.tables import sharded_tables
from tools.transfer.batch import Batch


async def dead_slots(fleet: Fleet, seen: Snapshot, grace_s: float) -> tuple[list[Batch], int]:
    """Released slots whose rows may be deleted, by where they went, and how many are within the grace period.

    A slot counts only while its new owner is seen to have it: until then the old rows may be the last copy.
    """
    ready: list[Batch] = []
    waiting = 0
    for name in seen.rows:
        connection = await fleet.control(name)
        tables = await sharded_tables(connection)
        exists = " OR ".join(
            f"EXISTS (SELECT 1 FROM {table.name} t WHERE t.slot = s.slot)" for table in tables
        )
        rows = await fleet.fetch(
            name,
            "SELECT s.slot, s.epoch, s.peer, s.changed_at < now() - make_interval(secs => $1) AS ripe"
            f" FROM slots s WHERE s.state = 'released' AND ({exists}) ORDER BY s.slot",
            grace_s,
        )
        by_peer: dict[str, list[tuple[int, int]]] = {}
        for row in rows:
            owner = seen.ownership.owners[row["slot"]]
            if row["ripe"] and owner is not None and owner.state is not None and owner.epoch >= row["epoch"]:
                by_peer.setdefault(row["peer"], []).append((row["slot"], row["epoch"] - 1))
            else:
                waiting += 1
        for peer, pairs in sorted(by_peer.items()):
            slots, epochs = zip(*pairs, strict=True)
            ready.append(Batch(name, peer, slots, epochs))
    return ready, waiting
