"""The goal: which topology `add`, `drain` and `weight` publish, and which one `cancel` returns to."""

from __future__ import annotations

import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from ring.placement import place
from ring.plan import plan
from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.local.state import check_shard_name
from snapurl.store.cluster.dsn import address_of, dsn_for
from snapurl.store.cluster.pool import ShardFailed
from tools.change.provision import configured_dsn, provision, require_local_cluster
from tools.change.request import Add, ChangeRequest, goal_of
from tools.cluster import audit
from tools.cluster.fleet import Fleet
from tools.cluster.outcome import Outcome, end_of, versions_of_change
from tools.cluster.publish import VersionConflict, publish, published_topologies
from tools.cluster.snapshot import Snapshot
from tools.cluster.status import in_hand_off, is_settled

PUBLISH_ATTEMPTS = 3


def with_dsns(fleet: Fleet, changes: Sequence[ChangeRequest]) -> list[ChangeRequest]:
    """Returns the changes with the DSN of each shard to add, except servers that the local cluster has to start.

    A DSN without a user gets the credentials of the first shard, one without a password
    SNAPURL_SHARDS_PASSWORD, so that no password has to be on a command line. Raises ConfigError if there is
    no DSN and no local cluster.
    """
    found: list[ChangeRequest] = []
    for change in changes:
        if isinstance(change, Add) and change.dsn is None:
            dsn = configured_dsn(fleet, change.name)
            if dsn is None:
                require_local_cluster(fleet.settings, change.name)
                check_shard_name(change.name)
            found.append(dataclasses.replace(change, dsn=dsn))
        elif isinstance(change, Add) and change.dsn is not None and has_no_user(change.dsn):
            dsn = dsn_for(address_of(change.dsn), fleet.settings.shard_dsns[0].dsn)
            found.append(dataclasses.replace(change, dsn=dsn))
        elif isinstance(change, Add) and change.dsn is not None:
            found.append(dataclasses.replace(change, dsn=fleet.settings.with_password(change.dsn)))
        else:
            found.append(change)
    return found


def has_no_user(dsn: str) -> bool:
    """Whether a DSN is only an address, as `postgresql://host:port/database`."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return False  # its next reader raises the error
    return parts.scheme in ("postgresql", "postgres") and "@" not in dsn and not parts.query


async def publish_changes(fleet: Fleet, changes: Sequence[ChangeRequest]) -> Topology:
    """Provisions the shards that are added, and publishes the new topology, which it returns."""
    ready = [await provision(fleet, change) if isinstance(change, Add) else change for change in changes]

    async def make(now: Topology) -> Topology:
        return goal_of(now, ready)

    return await publish_next(fleet, make)


async def publish_next(fleet: Fleet, make: Callable[[Topology], Awaitable[Topology]]) -> Topology:
    """Publishes `make(newest)`; retries if another was faster: the migrator may just have removed a shard."""
    for attempt in range(1, PUBLISH_ATTEMPTS + 1):
        before = await fleet.observe()
        goal = await make(before.topology)
        try:
            await publish(fleet, goal)
        except VersionConflict:
            if attempt == PUBLISH_ATTEMPTS:
                raise
            continue
        await _close_change(fleet, before)
        return goal
    raise AssertionError("unreachable")


async def _close_change(fleet: Fleet, before: Snapshot) -> None:
    """Records how the change that was the goal `before` has ended, if the topology published now has ended it."""
    try:
        topologies = await published_topologies(fleet, before)
    except ShardFailed:
        return  # `history` works it out as long as the shards have the topologies
    topologies[fleet.topology.version] = fleet.topology
    version = before.topology.version
    versions = versions_of_change(version, topologies)
    if is_settled(before):
        await audit.close_changes(fleet, versions, Outcome.FINISHED)
    elif end := end_of(version, topologies):
        await audit.close_changes(fleet, versions, end.outcome, end.by)


async def previous_goal(fleet: Fleet, snapshot: Snapshot) -> Topology:
    """Returns what `cancel` publishes: the newest topology that places slots differently from the current one.

    Raises ConfigError if nothing moves, or if no shard has such a topology.
    """
    if not (plan(snapshot.ownership, snapshot.placement).slots or in_hand_off(snapshot)):
        raise ConfigError("there is nothing to cancel: every slot is where the ring wants it")
    for version, topology in sorted((await published_topologies(fleet, snapshot)).items(), reverse=True):
        if version < snapshot.topology.version and place(topology) != snapshot.placement:
            return snapshot.topology.back_to(topology)
    raise ConfigError("no shard has a topology before this one: use `weight` or `drain` instead")
