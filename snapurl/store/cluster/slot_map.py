"""Where a router believes each slot to be: pure bookkeeping over what shards have said.

Being wrong here is harmless: a shard that does not own a slot answers "moved", and the map learns from it.
Of two claims the one with the higher epoch is the newer; an equal epoch changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterable

from ring.ownership import HOLDING, SlotRow, SlotState
from ring.placement import place
from ring.slots import SLOT_COUNT
from ring.topology import Topology


class SlotMap:
    """slot -> (shard, epoch), with the state that each shard last reported for its slots."""

    def __init__(self, topology: Topology) -> None:
        self._topology = topology
        self._owner: list[str | None] = [None] * SLOT_COUNT
        self._epoch = [0] * SLOT_COUNT
        self._moving: set[int] = set()

    def expect(self, topology: Topology) -> None:
        """A new topology: its ring says where to ask for slots of which nobody has said anything.

        It is built only for such a slot: all processes hear of a topology at once, and requests would wait while
        each of them builds it.
        """
        self._topology = topology

    def owner(self, slot: int) -> str:
        """The shard to ask for `slot`: the known owner, else the shard that the ring names."""
        return self._owner[slot] or place(self._topology)[slot]

    def learn(self, slot: int, owner: str, epoch: int) -> bool:
        """Takes a claim; True if it was news."""
        if epoch <= self._epoch[slot]:
            return False
        self._owner[slot] = owner
        self._epoch[slot] = epoch
        return True

    def take(self, shard: str, rows: Iterable[SlotRow]) -> None:
        """Takes rows of the `slots` table of `shard`."""
        for row in rows:
            if row.state in HOLDING:
                self.learn(row.slot, shard, row.epoch)
            elif row.state is SlotState.RELEASED and row.peer is not None:
                self.learn(row.slot, row.peer, row.epoch)
            if row.state in HOLDING and row.state is not SlotState.OWNED:
                self._moving.add(row.slot)
            elif row.state is not SlotState.IMPORTING:
                self._moving.discard(row.slot)

    def forget(self, shard: str) -> None:
        """The shard may have lost what it said: its slots are anybody's until somebody claims them again."""
        for slot, owner in enumerate(self._owner):
            if owner == shard:
                self._owner[slot] = None
                self._epoch[slot] = 0

    def counts(self) -> dict[str, int]:
        """Slots known to be at each shard."""
        counts: dict[str, int] = {}
        for owner in self._owner:
            if owner is not None:
                counts[owner] = counts.get(owner, 0) + 1
        return counts

    @property
    def in_hand_off(self) -> int:
        return len(self._moving)

    @property
    def unknown(self) -> int:
        """Slots whose owner has not answered since this process began."""
        return self._owner.count(None)
