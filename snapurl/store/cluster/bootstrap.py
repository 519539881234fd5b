"""The first start: initialises a cluster of empty shards, exactly once.

Theory. Several processes start at once, and any of them may be killed at any point. The shard whose name sorts
first decides. Under an advisory lock there, a process writes its `cluster` row as 'initialising' together with
the whole plan (cluster id and topology 1), before it touches any other shard. A process that finds this row takes
the lock, fills the shards that are still empty from the plan, and sets the row to 'ready' last. From then on an
empty shard is an error: it may be a lost disk or a wrong DSN, and filling it would silently lose its links.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from dataclasses import dataclass
from typing import Any

import asyncpg

from ring.placement import place
from ring.topology import Shard, Topology
from snapurl.config import Settings, ShardDsn
from snapurl.errors import ConfigError
from snapurl.store.cluster.dsn import address_of
from snapurl.store.cluster.pool import (
    CLUSTER,
    ShardFailed,
    WrongShard,
    check_identity,
    lost_connection_of,
    statement_errors_of,
)
from snapurl.store.cluster.shards import close_quietly, connect_once

log = logging.getLogger("snapurl.bootstrap")

# ('SNAP', 'init'): held on the first shard while the cluster is initialised.
LOCK = (1397637456, 1768843636)


@dataclass(frozen=True, slots=True)
class _Found:
    """A shard's connection and its `cluster` row, None if it has none."""

    connection: Any
    row: Any


async def has_identity(name: str, dsn: str, timeout_s: float = 10.0) -> bool:
    """Whether the database at `dsn` is a shard already. Raises ShardFailed, ConfigError."""
    connection = await connect_once(name, dsn, timeout_s)
    try:
        with statement_errors_of(name):
            return await connection.fetchrow(CLUSTER["identity"]) is not None
    except asyncpg.UndefinedTableError:
        return False
    finally:
        await close_quietly(connection, timeout_s)


async def ensure_cluster(settings: Settings) -> None:
    """Initialises the cluster if every shard is empty. Returns when the cluster is ready.

    Migrations must have been applied. Raises ConfigError on swapped, foreign and unexpectedly empty shards, and
    Unavailable if a shard is lost meanwhile: the next start goes on.
    """
    found: dict[str, _Found] = {}
    silent: list[ShardFailed] = []
    timeout_s = settings.statement_timeout_ms / 1000
    try:
        for item in settings.shard_dsns:
            try:
                found[item.name] = await _find(item, timeout_s)
            except ShardFailed as error:
                silent.append(error)
        if not _is_ready(found) and not await _only_new_shards_are_empty(found):
            await _initialise(settings, found, silent)
    except ShardFailed as error:
        raise error.as_unavailable() from error
    finally:
        await asyncio.gather(*(close_quietly(item.connection, timeout_s) for item in found.values()))


async def _find(item: ShardDsn, timeout_s: float) -> _Found:
    connection = await connect_once(item.name, item.dsn, timeout_s)
    try:
        with statement_errors_of(item.name):
            return _Found(connection, await connection.fetchrow(CLUSTER["identity"]))
    except BaseException:
        connection.terminate()
        raise


def _is_ready(found: dict[str, _Found]) -> bool:
    """Whether all shards that answer are initialised. Checks that they belong to one cluster."""
    if not found or any(item.row is None or item.row["state"] != "ready" for item in found.values()):
        return False
    _check(found)
    return True


async def _only_new_shards_are_empty(found: dict[str, _Found]) -> bool:
    """Whether the cluster is ready and the empty shards are in no topology: they are about to be added."""
    ready = {name: item for name, item in found.items() if item.row is not None}
    if not _is_ready(ready):
        return False
    documents = []
    for name, item in ready.items():
        with lost_connection_of(name):
            documents.append(await item.connection.fetchval(CLUSTER["topology"]))
    newest = max(
        map(Topology.from_json, filter(None, documents)), key=lambda each: each.version, default=None
    )
    return newest is not None and not {shard.name for shard in newest.shards} & (found.keys() - ready.keys())


def _check(found: dict[str, _Found]) -> None:
    cluster_id = next((item.row["cluster_id"] for item in found.values() if item.row is not None), None)
    for name, item in found.items():
        check_identity(name, cluster_id, item.row)


async def _initialise(settings: Settings, found: dict[str, _Found], silent: list[ShardFailed]) -> None:
    first = settings.shard_dsns[0].name
    if first not in found:
        why = next(error for error in silent if error.name == first)
        raise ConfigError(f"{why}, and the cluster cannot be initialised without it")
    lock = found[first].connection
    with lost_connection_of(first):
        await lock.execute("SELECT pg_advisory_lock($1, $2)", *LOCK)
    # Another process may have been writing while this one waited for the lock: read again.
    for name, item in list(found.items()):
        with lost_connection_of(name):
            found[name] = _Found(item.connection, await item.connection.fetchrow(CLUSTER["identity"]))
    if _is_ready(found):
        return
    if silent:
        raise ConfigError(f"a first start needs every shard, and {silent[0]}")
    topology = await _plan(settings, found, first)
    await _fill(found, topology, first)


async def _plan(settings: Settings, found: dict[str, _Found], first: str) -> Topology:
    """Returns the topology to initialise with: the one recorded by an interrupted start, or a new one."""
    row = found[first].row
    if row is not None and row["state"] == "initialising":
        with lost_connection_of(first):
            document = await found[first].connection.fetchval(CLUSTER["topology"])
        topology = Topology.from_json(document)
        if {shard.name for shard in topology.shards} != set(found):
            raise ConfigError(
                "an interrupted first start was for the shards "
                + ", ".join(shard.name for shard in topology.shards)
                + ": start with exactly these once"
            )
        return topology
    for name, item in found.items():
        if item.row is not None:
            _check(found)
            raise WrongShard(f"shard {name} is initialised, but others are empty: is SNAPURL_SHARDS right?")
    topology = Topology(
        cluster_id=str(uuid.uuid4()),
        version=1,
        virtual_nodes=settings.virtual_nodes,
        shards=tuple(Shard(item.name, 1.0, address_of(item.dsn)) for item in settings.shard_dsns),
    )
    await _put_identity(found[first].connection, topology, first, "initialising")
    return topology


async def _fill(found: dict[str, _Found], topology: Topology, first: str) -> None:
    slots: dict[str, list[int]] = {name: [] for name in found}
    for slot, owner in enumerate(place(topology)):
        slots[owner].append(slot)
    for name, item in found.items():
        if name == first:
            continue
        if item.row is not None:
            check_identity(name, topology.cluster_id, item.row)
            continue
        with lost_connection_of(name):
            async with item.connection.transaction():
                await _put_identity(item.connection, topology, name, "ready")
                await item.connection.execute(CLUSTER["put_slots"], slots[name])
    with lost_connection_of(first):
        async with found[first].connection.transaction():
            await found[first].connection.execute(CLUSTER["put_slots"], slots[first])
            await found[first].connection.execute(CLUSTER["set_ready"])
    log.info("cluster %s initialised over %s", topology.cluster_id, ", ".join(found))


async def _put_identity(connection: Any, topology: Topology, name: str, state: str) -> None:
    with statement_errors_of(name):
        async with connection.transaction():
            await connection.execute(CLUSTER["put_identity"], topology.cluster_id, name, state)
            await connection.execute(CLUSTER["put_topology"], topology.version, topology.to_json())
