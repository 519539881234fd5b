"""The plan: the slots that remain to be moved."""

from __future__ import annotations

from collections.abc import Sequence

from ring.ownership import Ownership, SlotRow, SlotState, merge
from ring.placement import place
from ring.plan import Plan, Transfer, plan
from ring.slots import SLOT_COUNT
from tests.unit.ring.topologies import shard, topology

FOUR = topology(("db0", "db1", "db2", "db3"))


def owned(placement: Sequence[str]) -> Ownership:
    rows: dict[str, list[SlotRow]] = {}
    for slot, name in enumerate(placement):
        rows.setdefault(name, []).append(SlotRow(slot, SlotState.OWNED, 1, None))
    return merge(rows)


def test_nothing_to_do() -> None:
    """When ownership matches the ring, the plan is empty."""
    assert plan(owned(place(FOUR)), place(FOUR)) == Plan((), ())


def test_adding_a_shard() -> None:
    """Adding a fifth shard plans one transfer from each of the four, a fifth of the slots in total."""
    target = place(FOUR.with_shard(shard("db4")))
    found = plan(owned(place(FOUR)), target)
    assert [(r.source, r.target) for r in found.transfers] == [(f"db{n}", "db4") for n in range(4)]
    assert found.slots == target.count("db4")
    assert abs(found.slots / SLOT_COUNT - 0.2) < 0.01
    assert all(list(r.slots) == sorted(r.slots) for r in found.transfers)


def test_draining_a_shard() -> None:
    """Draining a shard moves all of its slots and no other."""
    found = plan(owned(place(FOUR)), place(FOUR.drained("db1")))
    assert {r.source for r in found.transfers} == {"db1"}
    assert found.slots == place(FOUR).count("db1")


def test_unowned_slots_are_in_no_transfer() -> None:
    """A slot without an owner cannot be moved and is listed separately."""
    found = plan(merge({"db0": [SlotRow(3, SlotState.OWNED, 1, None)]}), ("db1",) * SLOT_COUNT)
    assert found.transfers == (Transfer("db0", "db1", (3,)),)
    assert len(found.unowned) == SLOT_COUNT - 1


def test_a_hand_off_under_way_is_still_to_do() -> None:
    """A slot stays in the plan until its hand-off is decided."""
    source = {"db0": [SlotRow(3, SlotState.CLOSED, 1, "db1")]}
    before = plan(merge(source | {"db1": [SlotRow(3, SlotState.IMPORTING, 1, "db0")]}), ("db1",) * SLOT_COUNT)
    after = plan(merge(source | {"db1": [SlotRow(3, SlotState.OWNED, 2, None)]}), ("db1",) * SLOT_COUNT)
    assert before.slots == 1
    assert after.slots == 0
