"""What one look at all shards has found: topology, rows of slots, and which shards did not answer. Pure."""

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
    """One look at the cluster: the newest topology, each answering shard's rows, and who did not answer.

    `tokens` has the move tokens found, by (shard, slot).
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
        """shard -> slot -> row."""
        return {name: {row.slot: row for row in rows} for name, rows in self.rows.items()}
