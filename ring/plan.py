"""The plan: what must move so that ownership becomes what the ring says."""

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

    `unowned` slots are in no route: nobody is known to hold them, so nobody can give them away.
    """

    routes: tuple[Transfer, ...]
    unowned: tuple[int, ...]

    @property
    def slots(self) -> int:
        """Returns how many slots have to move."""
        return sum(len(route.slots) for route in self.routes)


def plan(ownership: Ownership, placement: Sequence[str]) -> Plan:
    """The moves from `ownership` to `placement` (slot -> shard, as `place` gives it).

    A slot whose hand-off has begun is still its source's, so it is listed until the hand-off is decided.
    """
    routes: defaultdict[tuple[str, str], list[int]] = defaultdict(list)
    for slot, (owner, target) in enumerate(zip(ownership.owners, placement, strict=True)):
        if owner is not None and owner.shard != target:
            routes[owner.shard, target].append(slot)
    return Plan(
        routes=tuple(Transfer(*ends, tuple(slots)) for ends, slots in sorted(routes.items())),
        unowned=ownership.unowned,
    )
