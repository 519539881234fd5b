"""The operator's view of the cluster: a control connection to every shard, and what all of them say.

A shard that does not answer is named in `Snapshot.silent` with the reason; nothing is ever assumed about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from uuid import UUID

import asyncpg

from ring.ownership import SlotRow, SlotState
from ring.topology import Topology
from snapurl.config import Settings
from snapurl.store.cluster.dsn import dsn_of
from snapurl.store.cluster.failover import prefer_next
from snapurl.store.cluster.pool import CLUSTER, ShardFailed, check_identity, lost_connection_of
from snapurl.store.cluster.shards import connect_once, read_topology
from tools.cluster.snapshot import Snapshot
from tools.cluster.tables import SQL

ChangeStamps = tuple[tuple[object, ...], ...]
"""Per shard of the topology, the versions of what it knows; only good for a comparison."""


class Fleet:
    """Control connections to the shards of the newest topology. Not to be shared between tasks.

    `application` is the name under which the connections show in PostgreSQL.
    """

    def __init__(self, settings: Settings, topology: Topology, application: str = "snapurl-reshard") -> None:
        self.application = application
        self.settings = settings
        self.topology = topology
        self._connections: dict[str, Any] = {}

    @classmethod
    async def connect(cls, settings: Settings, application: str = "snapurl-reshard") -> Fleet:
        """Raises ConfigError as `read_topology` does."""
        return cls(settings, await read_topology(settings), application)

    async def close(self) -> None:
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.terminate()

    async def control(self, name: str) -> Any:
        """The control connection to a shard, opened and checked if need be. Raises ShardFailed, ConfigError."""
        connection = self._connections.get(name)
        if connection is None or connection.is_closed():
            self._connections[name] = connection = await self.open(name)
        return connection

    async def open(self, name: str) -> Any:
        """A new connection to a shard, its identity checked; the caller closes it."""
        timeout_s = self.settings.statement_timeout_ms / 1000
        dsn = dsn_of(self.settings, self.topology, name)
        connection = await connect_once(name, dsn, timeout_s, application=self.application)
        try:
            with lost_connection_of(name, sent=False):
                row = await connection.fetchrow(CLUSTER["identity"])
            check_identity(name, self.topology.cluster_id, row)
        except asyncpg.UndefinedTableError:
            connection.terminate()
            check_identity(name, self.topology.cluster_id, None)
        except BaseException:
            connection.terminate()
            raise
        return connection

    def try_other_host(self, name: str) -> None:
        """The server of a shard is one that was replaced: leaves it for another host, if its DSN has one."""
        prefer_next(dsn_of(self.settings, self.topology, name))
        if connection := self._connections.pop(name, None):
            connection.terminate()

    async def fetch(self, name: str, query: str, *args: object) -> list[Mapping[str, Any]]:
        """Rows of one statement at a shard. Raises ShardFailed."""
        connection = await self.control(name)
        try:
            with lost_connection_of(name):
                rows: list[Mapping[str, Any]] = await connection.fetch(query, *args)
        except ShardFailed:
            connection.terminate()
            raise
        return rows

    async def change_stamps(self) -> ChangeStamps | None:
        """What changes whenever a topology is published or a slot changes; None if a shard does not answer."""
        names = [shard.name for shard in self.topology.shards]
        # All are waited for: a connection on which a call is still under way takes no other.
        answers = await asyncio.gather(
            *(self.fetch(name, SQL["marks"]) for name in names), return_exceptions=True
        )
        stamps: list[tuple[object, ...]] = []
        for name, rows in zip(names, answers, strict=True):
            if isinstance(rows, ShardFailed):
                return None
            if isinstance(rows, BaseException):
                raise rows
            stamps.append((name, *rows[0].values()))
        return tuple(stamps)

    async def observe(self) -> Snapshot:
        """Looks at every shard and takes a newer topology if one is found. Raises ConfigError."""
        seen = await self._look()
        while seen.topology.version > self.topology.version:
            self.topology = seen.topology  # it may name shards that were not asked
            seen = await self._look()
        return seen

    async def _look(self) -> Snapshot:
        names = [shard.name for shard in self.topology.shards]
        answers = await asyncio.gather(*(self._look_at(name) for name in names), return_exceptions=True)
        rows: dict[str, tuple[SlotRow, ...]] = {}
        tokens: dict[tuple[str, int], UUID] = {}
        silent: dict[str, str] = {}
        newest = self.topology
        for name, answer in zip(names, answers, strict=True):
            if isinstance(answer, ShardFailed):
                silent[name] = answer.reason
            elif isinstance(answer, BaseException):
                raise answer
            else:
                topology, found = answer
                rows[name] = tuple(
                    SlotRow(row["slot"], SlotState(row["state"]), row["epoch"], row["peer"]) for row in found
                )
                tokens.update(((name, row["slot"]), row["move_token"]) for row in found if row["move_token"])
                newest = max(newest, topology, key=lambda each: each.version)
        return Snapshot(newest, rows, tokens, silent)

    async def _look_at(self, name: str) -> tuple[Topology, list[Mapping[str, Any]]]:
        document = await self.fetch(name, CLUSTER["topology"])
        return Topology.from_json(document[0]["document"]), await self.fetch(name, SQL["all_states"])
