"""Databases on the servers of a local cluster: empty ones, and clones of a template that is migrated once.

A template is created at its first use, by the program's migrations and first start. A clone copies its files, which
is several times faster.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import uuid
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import asyncpg

from ring.topology import Topology
from snapurl.config import Settings, load_settings
from snapurl.local.cluster import LocalCluster
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.dsn import address_of
from snapurl.store.cluster.migrate import migrate_all
from tests.support.waits import PATIENT

MIGRATED = "template_migrated"
INITIALISED = "template_initialised"

_IN_MEMORY = Path("/dev/shm")
_IN_MEMORY_BYTES_MIN = 6 * 2**30

_IDENTITY = "DELETE FROM cluster RETURNING shard, state"
# The defaults of the table attest the current start of the server.
_PUT_IDENTITY = "INSERT INTO cluster (cluster_id, shard, state) VALUES ($1, $2, $3)"


def memory_directory() -> Path | None:
    """Returns a directory in memory, or None if this machine has none with enough space."""
    if not os.access(_IN_MEMORY, os.W_OK | os.X_OK):
        return None
    return _IN_MEMORY if shutil.disk_usage(_IN_MEMORY).free >= _IN_MEMORY_BYTES_MIN else None


class Databases:
    """Creates and drops databases, under one name on several servers at once."""

    def __init__(self, cluster: LocalCluster) -> None:
        self._cluster = cluster
        self._topology: Topology | None = None
        self._connections: dict[str, Any] = {}

    async def create(self, name: str, shards: Iterable[str] | None = None) -> None:
        """Creates an empty database."""
        await self._on(shards, f"CREATE DATABASE {name}")

    async def clone_migrated(self, name: str, shards: Iterable[str] | None = None) -> None:
        """Creates a database with all tables that belongs to no cluster yet."""
        await self._make_templates()
        await self._clone(MIGRATED, name, shards)

    async def clone_initialised(self, name: str) -> None:
        """Creates a database on each server; together they are a new cluster after its first start."""
        await self._make_templates()
        await self._clone(INITIALISED, name, None)
        assert self._topology is not None
        shards = (
            replace(shard, address=address_of(self._cluster.shard(shard.name).dsn(name)))
            for shard in self._topology.shards
        )
        topology = replace(self._topology, cluster_id=str(uuid.uuid4()), shards=tuple(shards))
        await asyncio.gather(*(self._become(shard.name, name, topology) for shard in topology.shards))

    async def drop(self, name: str, shards: Iterable[str] | None = None) -> None:
        """Drops the database, even if clients are connected."""
        await self._on(shards, f"DROP DATABASE {name} WITH (FORCE)")

    async def close(self) -> None:
        """Closes its connections."""
        for connection in self._connections.values():
            await connection.close()

    def settings(self, name: str) -> Settings:
        """Returns the settings of the cluster made of the databases with this name."""
        shards = " ".join(f"{shard}={self._cluster.shard(shard).dsn(name)}" for shard in self._cluster.dsns)
        return load_settings(shards=shards, **PATIENT)

    async def _make_templates(self) -> None:
        if self._topology is not None:
            return
        await self.create(MIGRATED)
        await migrate_all(self.settings(MIGRATED))
        await self._clone(MIGRATED, INITIALISED, None)
        await ensure_cluster(self.settings(INITIALISED))
        connection = await asyncpg.connect(self._cluster.shard("db0").dsn(INITIALISED))
        self._topology = Topology.from_json(await connection.fetchval("SELECT document FROM topology"))
        await connection.close()

    async def _clone(self, template: str, name: str, shards: Iterable[str] | None) -> None:
        await self._on(shards, f"CREATE DATABASE {name} TEMPLATE {template}", " STRATEGY FILE_COPY")

    async def _become(self, shard: str, name: str, topology: Topology) -> None:
        """Makes the clone on one server a shard of a cluster other than the template's."""
        connection = await asyncpg.connect(self._cluster.shard(shard).dsn(name))
        try:
            async with connection.transaction():
                row = await connection.fetchrow(_IDENTITY)
                assert row is not None
                await connection.execute(_PUT_IDENTITY, topology.cluster_id, row["shard"], row["state"])
                await connection.execute("UPDATE topology SET document = $1", topology.to_json())
        finally:
            await connection.close()

    async def _on(self, shards: Iterable[str] | None, statement: str, since_15: str = "") -> None:
        names = list(shards or self._cluster.dsns)
        await asyncio.gather(*(self._on_one(name, statement, since_15) for name in names))

    async def _on_one(self, shard: str, statement: str, since_15: str) -> None:
        connection = self._connections.get(shard)
        if connection is None or connection.is_closed():  # its server was stopped meanwhile
            connection = await asyncpg.connect(self._cluster.shard(shard).dsn("postgres"))
            self._connections[shard] = connection
        known = connection.get_server_version().major >= 15
        await connection.execute(statement + (since_15 if known else ""))
