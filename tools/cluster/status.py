"""The status of the cluster: the shards as they are now, and the status of the active migrator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from dataclasses import asdict, dataclass, replace
from typing import Any

from ring.ownership import SlotState
from ring.plan import plan
from ring.slots import SLOT_COUNT
from snapurl.model import MIGRATOR_SILENT_S
from snapurl.store.cluster.pool import ShardFailed
from tools.cluster.fleet import ChangeStamps, Fleet
from tools.cluster.migrator_status import MigratorStatus
from tools.cluster.snapshot import Snapshot
from tools.cluster.sql import SQL

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
    """What `status` shows.

    `in_hand_off` counts the rows of `slots` by state, for the states of a hand-off under way; a moving slot
    has a row on each side. `age_s` is the time since the last heartbeat of a migrator, None if there never
    was one.
    """

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
        """Whether all shards answer, every slot is where the ring wants it, and no drained shard is left."""
        left = any(shard.silent or shard.draining for shard in self.shards)
        return not (self.slots_left or self.in_hand_off or self.unowned or self.contested or left)

    def to_document(self) -> dict[str, Any]:
        """Returns what `--json` prints."""
        return {
            **asdict(self),
            "migrator": asdict(self.migrator) if self.age_s is not None else None,
            "migrator_runs": self.migrator_runs,
            "state": self.migrator.state if self.migrator_runs else "no migrator runs",
            "settled": self.settled,
        }


async def read_status(fleet: Fleet) -> ClusterStatus:
    """Reads every shard. Raises ConfigError as `Fleet.observe` does."""
    return await StatusReader(fleet).read()


class StatusReader:
    """Reads the status again and again, and the slots only when they or the topology have changed."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._last: tuple[ChangeStamps | None, Snapshot, ClusterStatus] | None = None

    async def read(self) -> ClusterStatus:
        """Returns the status now. Raises ConfigError as `Fleet.observe` does."""
        stamps = await self._fleet.change_stamps()
        if self._last is None or stamps is None or stamps != self._last[0]:
            self._last = stamps, *await self._observe()
        _, snapshot, found = self._last
        status, age_s = await read_migrator_status(self._fleet, snapshot)
        return replace(found, migrator=status, age_s=age_s)

    async def _observe(self) -> tuple[Snapshot, ClusterStatus]:
        snapshot = await self._fleet.observe()
        suspects = inconsistent_slots(snapshot)
        if suspects:
            snapshot = await self._fleet.observe()
        return snapshot, summarize(snapshot, MigratorStatus(), None, suspects)


def inconsistent_slots(snapshot: Snapshot) -> frozenset[int]:
    """Returns the slots with no owner or with two.

    Shards are not read at one instant, so a slot that changes hands meanwhile can appear as such. Only slots
    that a second snapshot shows again are inconsistent.
    """
    found = snapshot.ownership
    return frozenset((*found.unowned, *(contest.slot for contest in found.contested)))


def summarize(
    snapshot: Snapshot,
    status: MigratorStatus,
    age_s: float | None,
    suspects: Collection[int] = range(SLOT_COUNT),
) -> ClusterStatus:
    """Returns the status of a snapshot; `suspects` were inconsistent in an earlier one. Pure."""
    held = Counter(owner.shard for owner in snapshot.ownership.owners if owner)
    goal = Counter(snapshot.placement)
    return ClusterStatus(
        cluster_id=snapshot.topology.cluster_id,
        topology_version=snapshot.topology.version,
        paused=snapshot.topology.paused,
        shards=tuple(
            ShardStatus(
                shard.name,
                shard.weight,
                shard.draining,
                held[shard.name],
                goal[shard.name],
                snapshot.silent.get(shard.name, ""),
            )
            for shard in snapshot.topology.shards
        ),
        slots_left=plan(snapshot.ownership, snapshot.placement).slots,
        in_hand_off=in_hand_off(snapshot),
        unowned=sum(slot in suspects for slot in snapshot.ownership.unowned),
        contested=sum(contest.slot in suspects for contest in snapshot.ownership.contested),
        migrator=status,
        age_s=age_s,
    )


def is_settled(snapshot: Snapshot) -> bool:
    """Whether all shards answer, and every slot is where the ring wants it."""
    return not (
        plan(snapshot.ownership, snapshot.placement).slots
        or in_hand_off(snapshot)
        or snapshot.ownership.unowned
        or snapshot.ownership.contested
        or snapshot.silent
    )


def in_hand_off(snapshot: Snapshot) -> dict[str, int]:
    """Returns state -> rows of `slots` in it, for the states of a hand-off under way."""
    found = Counter(row.state for rows in snapshot.rows.values() for row in rows)
    return {str(state): found[state] for state in IN_HAND_OFF if found[state]}


async def read_migrator_status(fleet: Fleet, snapshot: Snapshot) -> tuple[MigratorStatus, float | None]:
    """Returns the status with the newest heartbeat, and its age in s; None if no migrator ever ran.

    Of a migrator of another version only the age is known.
    """
    newest: tuple[float, str] | None = None
    for name in snapshot.rows:
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
