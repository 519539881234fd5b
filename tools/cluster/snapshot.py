"""One observation of all shards: the newest topology, slots, and the shards that did not answer. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from uuid import UUID

from ring.ownership import Ownership, SlotRow, merge
from ring.placement import place
from ring.topology import Topology


@dataclass(frozen=True)
class Snapshot:
    """The cluster at one observation: the newest topology, the `slots` rows of each shard that answered, and
    why each `silent` shard did not. `tokens` has the move tokens by (shard, slot).

    The shards are read one after another, not at one instant.
    """

    topology: Topology
    rows: Mapping[str, tuple[SlotRow, ...]]
    tokens: Mapping[tuple[str, int], UUID]
    silent: Mapping[str, str]

    @cached_property
    def ownership(self) -> Ownership:
        return merge(self.rows)

    @cached_property
    def placement(self) -> tuple[str, ...]:
        return place(self.topology)

    @cached_property
    def by_slot(self) -> dict[str, dict[int, SlotRow]]:
        """Returns shard -> slot -> row."""
        return {name: {row.slot: row for row in rows} for name, rows in self.rows.items()}
