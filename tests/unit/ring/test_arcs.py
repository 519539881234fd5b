"""Arcs count the slots by shard, and lose none."""

from __future__ import annotations

import pytest

from ring.arcs import ARCS, arcs
from ring.placement import place
from ring.slots import SLOT_COUNT
from ring.topology import Shard, Topology

TOPOLOGY = Topology("c", 1, 256, tuple(Shard(f"db{n}", 1.0, f"h:{5000 + n}/d") for n in range(4)))
GROWN = TOPOLOGY.with_shard(Shard("db4", 1.0, "h:5004/d"))


@pytest.mark.parametrize("count", ARCS)
def test_arcs_have_every_slot_once(count: int) -> None:
    """The arcs cover all slots in order, and what they say of a shard adds up to the slots that it holds."""
    placement = place(TOPOLOGY)
    found = arcs(placement, placement, frozenset(), count)
    assert [arc.first_slot for arc in found] == list(range(0, SLOT_COUNT, SLOT_COUNT // count))
    for shard in ("db0", "db3"):
        assert sum(dict(arc.owners).get(shard, 0) for arc in found) == placement.count(shard)
    assert not any(arc.misplaced or arc.unknown or arc.in_hand_off for arc in found)


def test_an_arc_says_what_is_not_as_it_should_be() -> None:
    """Slots on the wrong shard, in hand-off and of unknown owner are counted, each in its arc and only there."""
    before, after = place(TOPOLOGY), place(GROWN)
    owners: list[str | None] = list(before)
    owners[5] = None
    found = arcs(owners, after, {0, 63, 64}, 256)
    assert sum(arc.misplaced for arc in found) == sum(
        owner is not None and owner != wanted for owner, wanted in zip(owners, after, strict=True)
    )
    assert [arc.in_hand_off for arc in found[:3]] == [2, 1, 0]
    assert [arc.unknown for arc in found[:2]] == [1, 0]


def test_the_owner_of_an_arc_has_the_most_of_it() -> None:
    """The owner is the shard with the most slots, the first by name of several; nobody if no owner is known."""
    owners: list[str | None] = ["db1"] * 40 + ["db0"] * 24 + ["db1"] * 32 + ["db0"] * 32 + [None] * 64
    owners += ["db0"] * (SLOT_COUNT - len(owners))
    found = arcs(owners, ["db0"] * SLOT_COUNT, frozenset(), 256)
    assert [arc.owner for arc in found[:3]] == ["db1", "db0", None]
    assert found[0].owners == (("db1", 40), ("db0", 24))
