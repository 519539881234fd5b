"""Where a router believes each slot to be."""

from __future__ import annotations

from ring.ownership import SlotState
from ring.slots import SLOT_COUNT
from ring.topology import Shard, Topology
from snapurl.store.cluster.slot_map import SlotMap

TOPOLOGY = Topology("c", 1, 256, tuple(Shard(f"db{n}", 1.0, f"h:{5000 + n}/d") for n in range(2)))


def test_slots_without_a_known_owner_are_counted() -> None:
    """A claim makes the owner of a slot known once; what a shard claimed that may have lost it is unknown again."""
    slots = SlotMap(TOPOLOGY)
    assert slots.unknown == SLOT_COUNT
    for slot, shard, epoch in ((7, "db0", 1), (7, "db1", 2), (7, "db0", 1), (8, "db0", 1)):
        slots.learn(slot, shard, epoch)
    assert slots.unknown == SLOT_COUNT - 2
    slots.forget("db0")
    assert (slots.unknown, slots.counts()) == (SLOT_COUNT - 1, {"db1": 1})


def test_a_claim_of_many_slots_is_one_of_each() -> None:
    """What a shard holds is its own, what it gave away is at its peer; what it only receives changes nothing."""
    slots = SlotMap(TOPOLOGY)
    slots.take("db0", [1, 2, 3], SlotState.OWNED, 1, None)
    slots.take("db0", [2], SlotState.FROZEN, 1, "db1")
    slots.take("db1", [2], SlotState.IMPORTING, 1, "db0")
    assert (slots.counts(), slots.in_hand_off, slots.is_in_hand_off(2)) == ({"db0": 3}, 1, True)
    slots.take("db0", [2, 3], SlotState.RELEASED, 2, "db1")
    assert (slots.counts(), slots.in_hand_off) == ({"db0": 1, "db1": 2}, 0)
    slots.take("db0", [3], SlotState.OWNED, 1, None)
    assert slots.owner(3) == "db1"
