"""Where a router believes each slot to be, from the claims of the shards. Pure.

A wrong entry is harmless: a shard that does not own a slot answers "moved", and the map learns from it. Of two
claims the one with the higher epoch is newer; an equal epoch changes nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from ring.arcs import Arc, arcs
from ring.ownership import HOLDING, SlotRow, SlotState
from ring.placement import place
from ring.slots import SLOT_COUNT
from ring.topology import Topology


class SlotMap:
    """slot -> (shard, epoch), with the state that each shard last reported for its slots.

    `changes` grows with each change of it, so that what is computed from all slots can be kept until then.
    `unknown` is how many slots no shard has claimed since this process started.
    """

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._owner: list[str | None] = [None] * SLOT_COUNT
        self._epoch = [0] * SLOT_COUNT
        self.unknown = SLOT_COUNT
        self._moving: set[int] = set()
        self.changes = 0

    def expect(self, topology: Topology) -> None:
        """Uses the ring of a new topology for slots that no shard has claimed yet.

        The ring is built only when such a slot is looked up: all processes get a topology at the same time, and
        requests would wait while each of them builds the ring.
        """
        self._topology = topology

    def owner(self, slot: int) -> str:
        """Returns the shard to ask for `slot`: the known owner, else the one that the ring names."""
        return self._owner[slot] or place(self._topology)[slot]

    def may_be_at(self, slot: int, shards: Collection[str]) -> bool:
        """Whether the owner of `slot` is one of `shards`, or not known."""
        return self._owner[slot] is None or self._owner[slot] in shards

    def learn(self, slot: int, owner: str, epoch: int) -> bool:
        """Records a claim. Returns whether it changed the map."""
        if epoch <= self._epoch[slot]:
            return False
        self.unknown -= self._owner[slot] is None
        self._owner[slot] = owner
        self._epoch[slot] = epoch
        self.changes += 1
        return True

    def take(self, shard: str, slots: Sequence[int], state: SlotState, epoch: int, peer: str | None) -> None:
        """Records slots, at least one, that are the same in the `slots` table of `shard` but for their number.

        Raises OwnershipError.
        """
        for slot in (min(slots), max(slots)):
            SlotRow(slot, state, epoch, peer)  # checks them
        if state is SlotState.IMPORTING:
            return
        owner = shard if state in HOLDING or peer is None else peer  # only an owned slot has no peer
        for slot in slots:
            self.learn(slot, owner, epoch)
        if state in HOLDING and state is not SlotState.OWNED:
            self._moving.update(slots)
        else:
            self._moving.difference_update(slots)
        self.changes += 1

    def forget(self, shard: str) -> None:
        """Drops the claims of a shard that may have lost transactions. Its slots have no known owner until one
        claims them."""
        self.changes += 1
        for slot, owner in enumerate(self._owner):
            if owner == shard:
                self._owner[slot] = None
                self._epoch[slot] = 0
                self.unknown += 1

    def counts(self) -> dict[str, int]:
        """Returns shard -> how many slots it is known to own."""
        counts: dict[str, int] = {}
        for owner in self._owner:
            if owner is not None:
                counts[owner] = counts.get(owner, 0) + 1
        return counts

    def arcs(self, count: int) -> tuple[Arc, ...]:
        """Returns the slots as `count` arcs, one of `ring.arcs.ARCS`."""
        return arcs(self._owner, place(self._topology), self._moving, count)

    def is_in_hand_off(self, slot: int) -> bool:
        return slot in self._moving

    @property
    def in_hand_off(self) -> int:
        return len(self._moving)
