"""Attests shards whose servers have restarted, before they serve again; `ring/restarts.py` has the theory.

This module finds such shards and attests those that have lost nothing. Anything else changes the state of slots,
which the migrator and `doctor` do (`tools/cluster/rejoin.py`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import asyncpg

from ring.errors import RingError
from ring.ownership import SlotRow
from ring.restarts import Assessment, RestartedShard, Rows, assess
from ring.topology import Topology
from snapurl.errors import ConfigError
from snapurl.store.cluster.pool import CLUSTER, ShardFailed

Fetch = Callable[..., Awaitable[Sequence[Mapping[str, Any]]]]
"""(shard, query, *arguments) -> rows. Raises ShardFailed."""


# A shard that cannot be queried, for whatever reason, counts as silent.
SILENT = (ShardFailed, ConfigError, RingError, asyncpg.PostgresError)


@dataclass(frozen=True, slots=True)
class Restarted:
    """A restarted shard that nobody has attested: its server's start time as it was read, and what was found.

    `peers` are the other shards that answered.
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
    attested: bool
    attested_timeline: int | None


@dataclass(frozen=True, slots=True)
class _Stored:
    """What one shard has stored: its slots, its topologies, and the timelines of the others."""

    rows: Rows
    topologies: Mapping[int, Topology]
    timelines: Mapping[str, int]


async def find_restarted(topology: Topology, fetch: Fetch) -> list[Restarted]:
    """Returns every unattested shard of `topology`, or of a newer topology that some shard has."""
    while True:
        names = [shard.name for shard in topology.shards]
        # Start times are read before any rows: see the theory.
        starts = _by_name(names, await asyncio.gather(*(_start(name, fetch) for name in names)))
        if all(start.attested for start in starts.values()):
            return []
        stored = _by_name(names, await asyncio.gather(*(_read_stored(name, fetch) for name in names)))
        known = {version: each for one in stored.values() for version, each in one.topologies.items()}
        newest = known[max(known)] if known else topology
        if newest.version <= topology.version:
            break
        topology = newest
    return _assessed(names, starts, stored)


def _by_name(names: Sequence[str], found: Sequence[Any]) -> dict[str, Any]:
    return {name: each for name, each in zip(names, found, strict=True) if each is not None}


def _assessed(
    names: Sequence[str], starts: Mapping[str, _Start], stored: Mapping[str, _Stored]
) -> list[Restarted]:
    newest = {
        name: max((one.timelines.get(name, 0) for other, one in stored.items() if other != name), default=0)
        for name in names
    }
    # A server that was replaced by a newer one does not speak for its shard.
    trusted = {name for name in stored if name in starts and starts[name].timeline >= newest[name]}
    found = []
    for name in names:
        if name not in starts or starts[name].attested or name not in stored:
            continue
        start = starts[name]
        peers = tuple(other for other in names if other in trusted and other != name)
        restarted = RestartedShard(name, start.timeline, start.attested_timeline)
        topologies = {v: each for other in peers for v, each in stored[other].topologies.items()}
        assessment = assess(
            restarted,
            {name: stored[name].rows, **{other: stored[other].rows for other in peers}},
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
    return _Start(row["started"], row["timeline"], row["attested"], row["attested_timeline"])


async def _read_stored(name: str, fetch: Fetch) -> _Stored | None:
    try:
        slots = await fetch(name, CLUSTER["slots"])
        documents = await fetch(name, CLUSTER["topologies"])
        logs = await fetch(name, CLUSTER["peer_logs"])
    except SILENT:
        return None
    topologies = (Topology.from_json(row["document"]) for row in documents)
    return _Stored(
        {row["slot"]: SlotRow.of(row) for row in slots},
        {topology.version: topology for topology in topologies},
        {row["shard"]: row["timeline"] for row in logs},
    )


async def notify_peers(found: Restarted, fetch: Fetch) -> str:
    """Records the shard's timeline on its peers. Returns why not, if one knows a newer timeline. Raises
    ShardFailed."""
    for other in found.peers:
        row = (await fetch(other, CLUSTER["peer_seen"], found.name, found.restarted.timeline))[0]
        if row["newest"] > found.restarted.timeline:
            return f"{other} knows of a server on the newer timeline {row['newest']}"
    return ""


async def attest(found: Restarted, fetch: Fetch) -> str:
    """Attests a shard that has lost nothing. Returns why not, or an empty string. Raises ShardFailed."""
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
    row = (await fetch(found.name, CLUSTER["attest"], found.started))[0]
    return "" if row["attested"] else "its server was replaced while it was looked at"
