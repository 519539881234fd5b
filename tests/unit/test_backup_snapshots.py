"""Which snapshots a backup takes anew: those that are too old to have what another one gave away."""

from __future__ import annotations

import pytest

from ring.ownership import SlotRow, SlotState, merge
from ring.slots import SLOT_COUNT
from ring.topology import Shard, Topology
from snapurl.backup.archive import BackupRefused
from snapurl.backup.snapshots import ShardSnapshot, late_shards

TOPOLOGY = Topology("c", 1, 64, tuple(Shard(name, 1.0, f"{name}:5432/x") for name in ("a", "b", "c")))


def late(**slot_0: SlotRow) -> set[str]:
    """Returns what is late if shards say this of slot 0, and `a` owns all others."""
    rest = tuple(SlotRow(slot, SlotState.OWNED, 1, None) for slot in range(1, SLOT_COUNT))
    rows = {
        name: ((slot_0[name],) if name in slot_0 else ()) + (rest if name == "a" else ()) for name in "abc"
    }
    shards = {name: ShardSnapshot(name, None, TOPOLOGY, found, 1) for name, found in rows.items()}
    return late_shards(merge(rows), shards)


def row(state: str, epoch: int, peer: str | None = None) -> SlotRow:
    return SlotRow(0, SlotState(state), epoch, peer)


def test_a_target_that_was_read_before_its_commit_is_read_again() -> None:
    """Whoever says that a slot went away, at the highest epoch, says where it must be."""
    assert late(a=row("released", 2, "b")) == {"b"}
    assert late(a=row("released", 2, "b"), b=row("importing", 1, "a")) == {"b"}
    assert late(a=row("released", 2, "b"), b=row("released", 3, "c")) == {"c"}
    assert late(a=row("closed", 1, "b"), b=row("released", 3, "c")) == {"c"}, "the first owner is out of date"


def test_snapshots_that_have_every_slot_are_taken() -> None:
    """In each other step of a hand-off one snapshot has all that was acknowledged before."""
    assert not late(a=row("owned", 1))
    assert not late(a=row("leaving", 1, "b"), b=row("importing", 1, "a"))
    assert not late(a=row("closed", 1, "b"), b=row("importing", 1, "a"))
    assert not late(a=row("closed", 1, "b"), b=row("owned", 2))
    assert not late(a=row("owned", 1), b=row("owned", 2)), "the source was read before it gave the slot away"
    assert not late(a=row("released", 2, "b"), b=row("owned", 2))
    assert not late(a=row("released", 2, "b"), b=row("released", 3, "c"), c=row("owned", 3))


def test_a_slot_that_nobody_has_or_two_claim_is_refused() -> None:
    """A backup without a slot, or with one of two truths, is none."""
    with pytest.raises(BackupRefused, match="no shard holds slot 0"):
        late()
    with pytest.raises(BackupRefused, match="more than one"):
        late(a=row("owned", 2), b=row("owned", 2))
