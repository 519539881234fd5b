"""Where a router believes each slot to be."""

from __future__ import annotations

import pytest

from ring.errors import OwnershipError
from ring.ownership import SlotState
from ring.slots import SLOT_COUNT
from snapurl.store.cluster.slot_map import SlotMap
from tests.unit.ring.topologies import topology

TOPOLOGY = topology(["db0", "db1"])


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


@pytest.mark.parametrize(
    ("slot", "state", "epoch", "peer"),
    [
        (-1, SlotState.OWNED, 1, None),
        (SLOT_COUNT, SlotState.OWNED, 1, None),
        (1, SlotState.OWNED, 0, None),
        (1, SlotState.RELEASED, 1, None),
    ],
    ids=["below", "above", "epoch", "peer"],
)
def test_a_claim_that_cannot_be_is_refused(slot: int, state: SlotState, epoch: int, peer: str | None) -> None:
    """A shard whose table says what no hand-off writes is not believed."""
    slots = SlotMap(TOPOLOGY)
    with pytest.raises(OwnershipError):
        slots.take("db0", [7, slot, 8], state, epoch, peer)
    assert slots.unknown == SLOT_COUNT
