"""The operator's view of the cluster: a control connection to every shard, and a snapshot of their state.

A shard that does not answer is named in `Snapshot.silent` with the reason; nothing is assumed about it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

import asyncpg

from ring.ownership import SlotRow
from ring.topology import Topology
from snapurl.config import Settings
from snapurl.store.cluster.dsn import dsn_of
from snapurl.store.cluster.failover import prefer_next
from snapurl.store.cluster.pool import CLUSTER, ShardFailed, check_identity, describe, lost_connection_of
from snapurl.store.cluster.shards import CHANNELS, connect_once, read_topology
from tools.cluster.snapshot import Snapshot
from tools.cluster.sql import SQL

ChangeStamps = tuple[tuple[object, ...], ...]
"""Per shard of the topology, the versions of its topology and slots. Only to be compared."""


class Fleet:
    """Control connections to the shards of the newest topology. Not to be shared between tasks.

    `application` is the name under which the connections show in PostgreSQL.
    """

    def __init__(self, settings: Settings, topology: Topology, application: str = "snapurl-reshard") -> None:
        self.application = application
        self.settings = settings
        self.topology = topology
        self._connections: dict[str, Any] = {}
        self._on_change: Callable[[], None] | None = None

    def listen(self, on_change: Callable[[], None]) -> None:
        """Has `on_change` called for each notification of a topology or a slot, and when a connection is lost.

        That goes for control connections that are opened from now on.
        """
        self._on_change = on_change

    @classmethod
    async def connect(cls, settings: Settings, application: str = "snapurl-reshard") -> Fleet:
        """Raises ConfigError as `read_topology` does."""
        return cls(settings, await read_topology(settings), application)

    def adopt(self, topology: Topology) -> None:
        """Goes over to a topology unless it is older, and drops the connections to shards that it does not have."""
        if topology.version < self.topology.version:
            return
        self.topology = topology
        for name in self._connections.keys() - {shard.name for shard in topology.shards}:
            self._connections.pop(name).terminate()

    async def close(self) -> None:
        connections, self._connections = self._connections, {}
        for connection in connections.values():
            connection.terminate()

    async def control(self, name: str) -> Any:
        """Returns the control connection to a shard; opens it if need be. Raises ShardFailed, ConfigError."""
        connection = self._connections.get(name)
        if connection is None or connection.is_closed():
            connection = await self.open(name)
            if self._on_change is not None:
                await _listen(name, connection, self._on_change)
            self._connections[name] = connection
        return connection

    async def open(self, name: str) -> Any:
        """Opens a connection, which the caller closes, and checks the shard's identity.

        Raises ShardFailed and ConfigError.
        """
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

    def loss_by(self, error: BaseException) -> ShardFailed | None:
        """Returns the error of a control connection as one that names its shard; None if all connections live."""
        closed = (name for name, connection in self._connections.items() if connection.is_closed())
        name = next(closed, None)
        return None if name is None else ShardFailed(name, describe(error), sent=True)

    def try_other_host(self, name: str) -> None:
        """Drops the connection to a server that was replaced; the next one tries another host of the DSN first."""
        prefer_next(dsn_of(self.settings, self.topology, name))
        if connection := self._connections.pop(name, None):
            connection.terminate()

    async def fetch(self, name: str, query: str, *args: object) -> list[Mapping[str, Any]]:
        """Runs one statement on a shard and returns its rows. Raises ShardFailed. May be cancelled."""
        connection = await self.control(name)
        try:
            with lost_connection_of(name):
                rows: list[Mapping[str, Any]] = await connection.fetch(query, *args)
        except (ShardFailed, asyncio.CancelledError):
            connection.terminate()
            raise
        return rows

    async def change_stamps(self) -> ChangeStamps | None:
        """Returns a value that changes with every published topology and slot change; None if a shard is silent."""
        names = [shard.name for shard in self.topology.shards]
        # Waits for all: a connection whose call is still running takes no other.
        results = await asyncio.gather(
            *(self.fetch(name, SQL["change_stamps"]) for name in names), return_exceptions=True
        )
        stamps: list[tuple[object, ...]] = []
        for name, rows in zip(names, results, strict=True):
            if isinstance(rows, ShardFailed):
                return None
            if isinstance(rows, BaseException):
                raise rows
            stamps.append((name, *rows[0].values()))
        return tuple(stamps)

    async def observe(self) -> Snapshot:
        """Reads every shard, and adopts a newer topology if one is found. Raises ConfigError."""
        snapshot = await self._observe_once()
        while snapshot.topology.version > self.topology.version:
            self.adopt(snapshot.topology)  # it may name shards that were not read
            snapshot = await self._observe_once()
        return snapshot

    async def _observe_once(self) -> Snapshot:
        names = [shard.name for shard in self.topology.shards]
        results = await asyncio.gather(*(self._read_shard(name) for name in names), return_exceptions=True)
        rows: dict[str, tuple[SlotRow, ...]] = {}
        tokens: dict[tuple[str, int], UUID] = {}
        silent: dict[str, str] = {}
        newest = self.topology
        for name, result in zip(names, results, strict=True):
            if isinstance(result, ShardFailed):
                silent[name] = result.reason
            elif isinstance(result, BaseException):
                raise result
            else:
                topology, found = result
                if topology is not None and topology.version > newest.version:
                    newest = topology
                rows[name] = tuple(map(SlotRow.of, found))
                tokens.update(((name, row["slot"]), row["move_token"]) for row in found if row["move_token"])
        return Snapshot(newest, rows, tokens, silent)

    async def _read_shard(self, name: str) -> tuple[Topology | None, list[Mapping[str, Any]]]:
        """Returns the newest topology of a shard, None if its first one is still to come, and its slots."""
        documents = await self.fetch(name, CLUSTER["topology"])
        topology = Topology.from_json(documents[0]["document"]) if documents else None
        return topology, await self.fetch(name, SQL["all_states"])


async def _listen(name: str, connection: Any, on_change: Callable[[], None]) -> None:
    try:
        with lost_connection_of(name, sent=False):
            for channel in CHANNELS:
                await connection.add_listener(channel, lambda *_: on_change())
    except BaseException:
        connection.terminate()
        raise
    connection.add_termination_listener(lambda _: on_change())
