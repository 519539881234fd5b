"""What `status` shows: the cluster as it is seen now, and what the newest migrator says of itself."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass
from typing import Any

from ring.ownership import SlotState
from ring.plan import plan
from ring.slots import SLOT_COUNT
from snapurl.store.cluster.pool import ShardFailed
from tools.cluster.fleet import Fleet
from tools.cluster.migrator_status import MigratorStatus
from tools.cluster.snapshot import Snapshot
from tools.cluster.tables import SQL

MIGRATOR_SILENT_S = 5.0
"""A migrator that was not heard of for this long is taken for dead: another would have taken over by then."""

IN_HAND_OFF = (SlotState.LEAVING, SlotState.FROZEN, SlotState.CLOSED, SlotState.IMPORTING)


@dataclass(frozen=True, slots=True)
class ShardStatus:
    """One shard of the topology. `silent` says why it does not answer; empty if it does."""

    name: str
    weight: float
    draining: bool
    slots: int
    slots_goal: int
    silent: str = ""


@dataclass(frozen=True, slots=True)
class ClusterStatus:
    """`in_hand_off` counts the rows of `slots` by state in which a hand-off is under way; a moving slot has one on
    each side. `age_s` is the time since a migrator was last heard of, None if none ever was."""

    cluster_id: str
    topology_version: int
    paused: bool
    shards: tuple[ShardStatus, ...]
    slots_left: int
    in_hand_off: dict[str, int]
    unowned: int
    contested: int
    migrator: MigratorStatus
    age_s: float | None

    @property
    def migrator_runs(self) -> bool:
        return self.age_s is not None and self.age_s < MIGRATOR_SILENT_S

    @property
    def settled(self) -> bool:
        """Whether every slot is where the ring wants it, as far as everybody answers."""
        silent = any(shard.silent for shard in self.shards)
        return not (self.slots_left or self.in_hand_off or self.unowned or self.contested or silent)

    def to_document(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            **asdict(self),
            "migrator": asdict(self.migrator) if self.age_s is not None else None,
            "migrator_runs": self.migrator_runs,
            "state": self.migrator.state if self.migrator_runs else "no migrator runs",
            "settled": self.settled,
        }


async def read_status(fleet: Fleet) -> ClusterStatus:
    """Looks at every shard. Raises ConfigError as `Fleet.observe` does."""
    seen = await fleet.observe()
    doubtful = wrong_slots(seen)
    if doubtful:
        seen = await fleet.observe()
    status, age_s = await heard(fleet, seen)
    return view(seen, status, age_s, doubtful)


def wrong_slots(seen: Snapshot) -> frozenset[int]:
    """The slots with no owner or with two. Shards are not looked at in one instant, so a slot that changes its
    owner meanwhile looks like that: what a second look does not find was nothing."""
    found = seen.ownership
    return frozenset((*found.unowned, *(contest.slot for contest in found.contested)))


def view(
    seen: Snapshot,
    status: MigratorStatus,
    age_s: float | None,
    wrong_before: Collection[int] = range(SLOT_COUNT),
) -> ClusterStatus:
    """One look, beside what the migrator says, and which slots looked wrong before it. Pure."""
    held = Counter(owner.shard for owner in seen.ownership.owners if owner)
    goal = Counter(seen.placement)
    return ClusterStatus(
        cluster_id=seen.topology.cluster_id,
        topology_version=seen.topology.version,
        paused=seen.topology.paused,
        shards=tuple(
            ShardStatus(
                shard.name,
                shard.weight,
                shard.draining,
                held[shard.name],
                goal[shard.name],
                seen.silent.get(shard.name, ""),
            )
            for shard in seen.topology.shards
        ),
        slots_left=plan(seen.ownership, seen.placement).slots,
        in_hand_off=in_hand_off(seen),
        unowned=sum(slot in wrong_before for slot in seen.ownership.unowned),
        contested=sum(contest.slot in wrong_before for contest in seen.ownership.contested),
        migrator=status,
        age_s=age_s,
    )


def in_hand_off(seen: Snapshot) -> dict[str, int]:
    """State -> rows of `slots` in it, for the states of a hand-off under way."""
    found = Counter(row.state for rows in seen.rows.values() for row in rows)
    return {str(state): found[state] for state in IN_HAND_OFF if found[state]}


async def heard(fleet: Fleet, seen: Snapshot) -> tuple[MigratorStatus, float | None]:
    """What the newest migrator says, and the seconds since. One of another version says only that it lives."""
    newest: tuple[float, str] | None = None
    for name in seen.rows:
        try:
            rows = await fleet.fetch(name, SQL["migrator"])
        except ShardFailed:
            continue
        for row in rows:
            if newest is None or row["age_s"] < newest[0]:
                newest = (row["age_s"], row["status"])
    if newest is None:
        return MigratorStatus(), None
    try:
        return MigratorStatus.from_json(newest[1]), newest[0]
    except (ValueError, KeyError, TypeError, json.JSONDecodeError):
        return MigratorStatus(last_error="the migrator is of another version than this program"), newest[0]
