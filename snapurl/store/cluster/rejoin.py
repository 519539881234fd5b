"""Vouching for shards whose servers have started anew, before they serve again: `ring/restarts.py` has the theory.

Here is the looking, and the vouching for a shard of which nothing was lost. What else may have to be done
first changes the state of slots, which is for the migrator and `doctor` (`tools/cluster/rejoin.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from ring.errors import RingError
from ring.ownership import SlotRow, SlotState
from ring.restarts import Assessment, RestartedShard, Rows, assess
from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.store.cluster.pool import CLUSTER, ShardFailed

Fetch = Callable[..., Awaitable[Sequence[Mapping[str, Any]]]]
"""(shard, query, *arguments) -> rows. Raises ShardFailed."""


# A shard that cannot be asked, for whatever reason, is one that is silent.
SILENT = (ShardFailed, ConfigError, RingError, asyncpg.PostgresError)


@dataclass(frozen=True, slots=True)
class Restarted:
    """A shard that nobody has vouched for: the start of its server that was looked at, and what was found.

    `witnesses` are the other shards that answered.
    """

    restarted: RestartedShard
    started: datetime
    assessment: Assessment
    peers: tuple[str, ...]

    @property
    def name(self) -> str:
        return self.restarted.shard


@dataclass(frozen=True, slots=True)
class _Start:
    started: datetime
    timeline: int
    vouched: bool
    vouched_timeline: int | None


@dataclass(frozen=True, slots=True)
class _Told:
    """What one shard says: its slots, the topologies it has, and the timelines it remembers of the others."""

    rows: Rows
    topologies: Mapping[int, Topology]
    timelines: Mapping[str, int]


async def find_restarted(topology: Topology, fetch: Fetch) -> list[Restarted]:
    """Every shard of `topology`, or of a newer one that some shard has, that nobody has vouched for."""
    while True:
        names = [shard.name for shard in topology.shards]
        # The start of a server is read before the rows of any: see the theory.
        starts = _answers(names, await asyncio.gather(*(_start(name, fetch) for name in names)))
        if all(start.vouched for start in starts.values()):
            return []
        told = _answers(names, await asyncio.gather(*(_told(name, fetch) for name in names)))
        known = {version: each for one in told.values() for version, each in one.topologies.items()}
        newest = known[max(known)] if known else topology
        if newest.version <= topology.version:
            break
        topology = newest
    return _judged(names, starts, told)


def _answers(names: Sequence[str], found: Sequence[Any]) -> dict[str, Any]:
    return {name: each for name, each in zip(names, found, strict=True) if each is not None}


def _judged(names: Sequence[str], starts: Mapping[str, _Start], told: Mapping[str, _Told]) -> list[Restarted]:
    newest = {
        name: max((one.timelines.get(name, 0) for other, one in told.items() if other != name), default=0)
        for name in names
    }
    # What was replaced by a newer server says nothing of the shard.
    heard = {name for name in told if name in starts and starts[name].timeline >= newest[name]}
    found = []
    for name in names:
        if name not in starts or starts[name].vouched or name not in told:
            continue
        start = starts[name]
        peers = tuple(other for other in names if other in heard and other != name)
        restarted = RestartedShard(name, start.timeline, start.vouched_timeline)
        topologies = {v: each for other in peers for v, each in told[other].topologies.items()}
        assessment = assess(
            restarted,
            {name: told[name].rows, **{other: told[other].rows for other in peers}},
            [other for other in names if other != name and other not in peers],
            list(topologies.values()),
            newest[name],
        )
        found.append(Restarted(restarted, start.started, assessment, peers))
    return found


async def _start(name: str, fetch: Fetch) -> _Start | None:
    try:
        row = (await fetch(name, CLUSTER["start"]))[0]
    except SILENT:
        return None
    return _Start(row["started"], row["timeline"], row["vouched"], row["vouched_timeline"])


async def _told(name: str, fetch: Fetch) -> _Told | None:
    try:
        slots = await fetch(name, CLUSTER["slots"])
        documents = await fetch(name, CLUSTER["topologies"])
        logs = await fetch(name, CLUSTER["peer_logs"])
    except SILENT:
        return None
    topologies = (Topology.from_json(row["document"]) for row in documents)
    return _Told(
        {
            row["slot"]: SlotRow(row["slot"], SlotState(row["state"]), row["epoch"], row["peer"])
            for row in slots
        },
        {topology.version: topology for topology in topologies},
        {row["shard"]: row["timeline"] for row in logs},
    )


async def notify_peers(found: Restarted, fetch: Fetch) -> str:
    """Has the others remember the timeline; what is wrong if one knows a newer one. Raises ShardFailed."""
    for other in found.peers:
        row = (await fetch(other, CLUSTER["peer_seen"], found.name, found.restarted.timeline))[0]
        if row["newest"] > found.restarted.timeline:
            return f"{other} knows of a server on the newer timeline {row['newest']}"
    return ""


async def attest(found: Restarted, fetch: Fetch) -> str:
    """Vouches for a shard of which nothing was lost; why not, if not. Raises ShardFailed."""
    assessment = found.assessment
    if assessment.blockers:
        return assessment.blockers[0].reason
    if assessment.lost or assessment.imports:
        slots = len(assessment.lost) or sum(map(len, assessment.imports.values()))
        what = "were given away since" if assessment.lost else "are in a hand-off that it may have forgotten"
        return (
            f"{slots} of its slots {what}: a migrator, or `snapurl-reshard doctor --fix`, has to see to them"
        )
    if why := await notify_peers(found, fetch):
        return why
    row = (await fetch(found.name, CLUSTER["vouch"], found.started))[0]
    return "" if row["vouched"] else "its server was replaced while it was looked at"
