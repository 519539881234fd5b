"""The plan: which slots must move so that ownership becomes what the ring says."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

from ring.ownership import Ownership


@dataclass(frozen=True, slots=True)
class Transfer:
    """All slots (ascending) that go from one shard to another."""

    source: str
    target: str
    slots: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """The moves that are left, sorted by source and target.

    `unowned` slots are in no transfer: no shard is known to hold them.
    """

    transfers: tuple[Transfer, ...]
    unowned: tuple[int, ...]

    @property
    def slots(self) -> int:
        """Returns how many slots have to move."""
        return sum(len(transfer.slots) for transfer in self.transfers)


def plan(ownership: Ownership, placement: Sequence[str]) -> Plan:
    """Returns the moves from `ownership` to `placement` (slot -> shard, as `place` returns it).

    The source owns a slot until its hand-off is decided, so the slot is listed until then.
    """
    slots: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for slot, (owner, target) in enumerate(zip(ownership.owners, placement, strict=True)):
        if owner is not None and owner.shard != target:
            slots[owner.shard, target].append(slot)
    return Plan(
        transfers=tuple(Transfer(*pair, tuple(moved)) for pair, moved in sorted(slots.items())),
        unowned=ownership.unowned,
    )
