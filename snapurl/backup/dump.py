"""Makes a backup: reads every row that is kept from one snapshot per shard, into the parts of an archive.

While PostgreSQL sends rows, the part before is compressed in a thread. Memory is bounded by three parts. Nothing is
written to a shard, and nobody is held up; but PostgreSQL keeps what is deleted meanwhile until the backup ends.
"""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Awaitable, Callable, Iterator, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg

from ring.topology import Topology
from snapurl.backup.archive import PART_BYTES, ROW_BYTES_MAX, ArchiveWriter, BackupRefused, Part, new_archive
from snapurl.backup.decisions import KEPT
from snapurl.backup.snapshots import (
    SQL,
    ClusterSnapshot,
    ShardSnapshot,
    rows_query,
    shard_connections,
    take_snapshots,
)
from snapurl.config import Settings
from snapurl.store.cluster.pool import ShardFailed, statement_errors_of
from snapurl.store.cluster.tables import Table

SLOTS_PER_PART = 1_024  # at most: a restore locks the slots of a part, and PostgreSQL's lock table is bounded

Progress = Callable[[Part, float], None]
"""Is told each part that is written or restored, and how much of all is done, from 0 to 1."""


async def make_backup(settings: Settings, path: Path, progress: Progress = lambda *_: None) -> dict[str, Any]:
    """Writes a backup to the file `path` and returns its manifest without parts and slots.

    Raises BackupRefused, ConfigError, OSError.
    """
    made_at = datetime.now(UTC)
    with new_archive(path, made_at.timestamp()) as archive:
        async with shard_connections(settings) as (topology, connections):
            try:
                cluster = await take_snapshots(topology, connections)
                await _Dump(cluster, archive, progress).run()
            except ShardFailed as error:
                raise BackupRefused(f"{error}: begin again") from error
            except asyncpg.PostgresError as error:
                raise BackupRefused(f"a shard has refused to be read: {type(error).__name__}") from error
        said = _document(cluster, made_at)
        archive.end(said)
    return said


def _document(cluster: ClusterSnapshot, made_at: datetime) -> dict[str, Any]:
    topology: Topology = cluster.topology
    return {
        "id": str(uuid.uuid4()),
        "made_at": made_at.isoformat(timespec="seconds"),
        "cluster_id": topology.cluster_id,
        "topology": topology.version,
        "shards": {name: len(slots) for name, slots in cluster.slots.items()},
        "schema": cluster.schema,
        "columns": {table.name: list(table.columns) for table in cluster.tables},
    }


class _Dump:
    """One reading of all snapshots, table by table, so that a restore finds them in that order."""

    def __init__(self, cluster: ClusterSnapshot, archive: ArchiveWriter, progress: Progress) -> None:
        self._cluster = cluster
        self._archive = archive
        self._progress = progress
        self._writing: asyncio.Task[None] | None = None
        self._expected = 1.0
        self._rows = 0

    async def run(self) -> None:
        try:
            self._expected = await self._estimate()
            for table in self._cluster.tables:
                for shard in self._cluster.shards.values():
                    await self._copy(table, shard)
            await self._written()
        finally:
            if self._writing is not None:
                await asyncio.wait([self._writing])

    async def _estimate(self) -> float:
        """Returns how many rows there are, roughly."""
        rows = 0.0
        for shard in self._cluster.shards.values():
            with statement_errors_of(shard.name):
                rows += await shard.connection.fetchval(SQL["estimate"], list(KEPT))
        return max(rows, 1.0)

    async def _copy(self, table: Table, shard: ShardSnapshot) -> None:
        for slots in _ranges(self._cluster.slots[shard.name]):
            part = _PartBuffer(partial(self._write, table.name, shard.name))
            with statement_errors_of(shard.name):
                await shard.connection.copy_from_query(
                    rows_query(table, slots), output=part.take, format="text", timeout=None
                )
            await part.end()

    async def _write(self, table: str, shard: str, rows: bytes) -> None:
        await self._written()
        self._writing = asyncio.create_task(self._add(table, shard, rows))

    async def _written(self) -> None:
        if self._writing is not None:
            writing, self._writing = self._writing, None
            try:
                await writing
            except OSError as error:  # which is not that of a connection
                raise BackupRefused(f"the backup cannot be written: {error.strerror}") from error

    async def _add(self, table: str, shard: str, rows: bytes) -> None:
        part = await asyncio.to_thread(self._archive.add, table, shard, rows)
        self._rows += part.rows
        self._progress(part, min(0.99, self._rows / max(self._expected, self._rows)))


class _PartBuffer:
    """Rows as they arrive, cut into parts between two rows."""

    def __init__(self, write: Callable[[bytes], Awaitable[None]]) -> None:
        self._write = write
        self._rows = bytearray()

    async def take(self, data: bytes) -> None:
        self._rows += data
        if len(self._rows) >= PART_BYTES and (end := self._rows.rfind(b"\n") + 1):
            rows = bytes(self._rows[:end])
            del self._rows[:end]
            await self._write(rows)
        if len(self._rows) > ROW_BYTES_MAX:
            raise BackupRefused(f"a row has more than {ROW_BYTES_MAX:,} bytes")

    async def end(self) -> None:
        if self._rows:
            await self._write(bytes(self._rows))


def _ranges(slots: Sequence[int]) -> Iterator[Sequence[int]]:
    for first in range(0, len(slots), SLOTS_PER_PART):
        yield slots[first : first + SLOTS_PER_PART]


def file_for(place: Path, now: datetime) -> Path:
    """Returns the file of a backup: `place` itself, or one named by the time in the directory `place`."""
    return place / f"snapurl-{now:%Y%m%dT%H%M%SZ}.backup" if place.is_dir() else place
