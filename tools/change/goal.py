"""How the goal changes: what `add`, `drain` and `weight` publish, and what `cancel` goes back to."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import Awaitable, Callable, Sequence
from urllib.parse import urlsplit

from ring.placement import place
from ring.plan import plan
from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.store.cluster.dsn import address_of, dsn_for
from tools.change.provision import known_dsn, local_only, provision
from tools.change.request import Add, ChangeRequest, goal_of
from tools.cluster.fleet import Fleet
from tools.cluster.publish import Overtaken, publish
from tools.cluster.snapshot import Snapshot
from tools.cluster.status import in_hand_off
from tools.cluster.tables import SQL

PUBLISH_ATTEMPTS = 3


def filled_in(fleet: Fleet, changes: Sequence[ChangeRequest]) -> list[ChangeRequest]:
    """The changes with the DSN of each shard to be added, where one is known already. One that names no user gets
    the credentials of the first shard, and one that names no password SNAPURL_SHARDS_PASSWORD, so that none has to
    stand in a command line.

    Raises ConfigError if there is none and no local cluster could make one.
    """
    found: list[ChangeRequest] = []
    for change in changes:
        if isinstance(change, Add) and change.dsn is None:
            dsn = known_dsn(fleet, change.name)
            if dsn is None:
                local_only(fleet.settings, change.name)
            found.append(dataclasses.replace(change, dsn=dsn))
        elif isinstance(change, Add) and change.dsn is not None and names_no_user(change.dsn):
            dsn = dsn_for(address_of(change.dsn), fleet.settings.shard_dsns[0].dsn)
            found.append(dataclasses.replace(change, dsn=dsn))
        elif isinstance(change, Add) and change.dsn is not None:
            found.append(dataclasses.replace(change, dsn=fleet.settings.with_password(change.dsn)))
        else:
            found.append(change)
    return found


def names_no_user(dsn: str) -> bool:
    """Whether a DSN is an address and nothing else, as `postgresql://host:port/database`."""
    try:
        parts = urlsplit(dsn)
    except ValueError:
        return False  # whoever reads it next says so
    return parts.scheme in ("postgresql", "postgres") and "@" not in dsn and not parts.query


async def carry_out(fleet: Fleet, changes: Sequence[ChangeRequest]) -> Topology:
    """Makes shards of the databases that are added, and publishes the new goal."""
    ready = [await provision(fleet, change) if isinstance(change, Add) else change for change in changes]

    async def make(now: Topology) -> Topology:
        return goal_of(now, ready)

    return await publish_on_top(fleet, make)


async def publish_on_top(fleet: Fleet, make: Callable[[Topology], Awaitable[Topology]]) -> Topology:
    """Publishes `make(newest)`; again if somebody was faster: the migrator may just have let a shard go."""
    for attempt in range(1, PUBLISH_ATTEMPTS + 1):
        goal = await make((await fleet.observe()).topology)
        try:
            await publish(fleet, goal)
        except Overtaken:
            if attempt == PUBLISH_ATTEMPTS:
                raise
            continue
        return goal
    raise AssertionError("unreachable")


def under_way(seen: Snapshot) -> int:
    """Slots that are on their way or have to go; 0 if nothing moves."""
    return plan(seen.ownership, seen.placement).slots or sum(in_hand_off(seen).values())


async def before(fleet: Fleet, seen: Snapshot) -> Topology:
    """The goal that `cancel` publishes: the newest topology that places slots otherwise than the current one.

    Raises ConfigError if nothing moves, or if no shard remembers such a topology.
    """
    if not under_way(seen):
        raise ConfigError("there is nothing to cancel: every slot is where the ring wants it")
    for version, topology in sorted((await _published(fleet, seen)).items(), reverse=True):
        if version < seen.topology.version and place(topology) != seen.placement:
            return seen.topology.back_to(topology)
    raise ConfigError(
        "no shard remembers a topology from before this one: say what is wanted with `weight` or `drain`"
    )


async def _published(fleet: Fleet, seen: Snapshot) -> dict[int, Topology]:
    """Version -> topology. A shard that was added lately does not know what was before it, so all are asked."""
    answers = await asyncio.gather(*(fleet.fetch(name, SQL["topologies"]) for name in seen.rows))
    documents = {row["document"] for rows in answers for row in rows}
    return {topology.version: topology for topology in map(Topology.from_json, documents)}
