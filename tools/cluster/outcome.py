"""What became of a change: it is the goal, has finished, was cancelled or was replaced. Pure.

A change is a published topology that places slots otherwise than the one before it. Topologies of `pause`, of
`resume` and of a migrator that lets go of an empty shard place slots as before, and belong to the change. The first
later topology that does not ends it. It cancels the change if it places slots as they were placed before that.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ring.topology import Topology


class Outcome(StrEnum):
    """`PUBLISHED`: it is the goal, and slots may still have to move."""

    PUBLISHED = "published"
    FINISHED = "finished"
    CANCELLED = "cancelled"
    REPLACED = "replaced"


@dataclass(frozen=True, slots=True)
class End:
    """The topology version that ended a change before it was finished."""

    outcome: Outcome
    by: int


def end_of(version: int, topologies: Mapping[int, Topology]) -> End | None:
    """Returns what ended the change of topology `version`; None if it is still the goal.

    `topologies` are the published ones by version. Without the one before the change, a cancellation counts as a
    replacement.
    """
    if version not in topologies:
        return None
    goal = _decisive(topologies[version])
    by = next(
        (later for later in sorted(topologies) if later > version and _decisive(topologies[later]) != goal),
        None,
    )
    if by is None:
        return None
    before = topologies.get(_first_of_change(version, topologies) - 1)
    cancels = before is not None and _decisive(before) == _decisive(topologies[by])
    return End(Outcome.CANCELLED if cancels else Outcome.REPLACED, by)


def versions_of_change(version: int, topologies: Mapping[int, Topology]) -> list[int]:
    """Returns the versions up to `version` that belong to the same change."""
    return list(range(_first_of_change(version, topologies), version + 1))


def _first_of_change(version: int, topologies: Mapping[int, Topology]) -> int:
    first = version
    while first - 1 in topologies and _decisive(topologies[first - 1]) == _decisive(topologies[version]):
        first -= 1
    return first


def _decisive(topology: Topology) -> object:
    """Returns what decides where slots are placed; `place` would take milliseconds."""
    return topology.virtual_nodes, [(each.name, each.weight) for each in topology.shards if not each.draining]
