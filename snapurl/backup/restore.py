"""Makes of a backup a cluster again: every row goes to the shard that owns its slot, whichever that is here.

Theory. A row keeps its slot, and the new cluster has placed its slots by itself, so its shards may be more or
fewer. A part is written to a shard in one transaction: the fence of a write to its slots, COPY, the comparison,
and the mark that the part is there. The mark is the entry of the restore in the shard's audit log. After a crash
of either side the same command goes on behind the last mark of each shard; no part is written twice and none is
left out. That would not hold if a slot had moved in between: so a restore refuses a cluster whose topology has
changed since it began, and one whose slots are moving.

What is verified. First the whole file against its manifest, before anything is written. Then each part in its
transaction: the rows that it has made are read back, in the order of the part, and must be the same bytes. Which
rows these are, their `xid` says. So neither the click consumer, which may fold restored days into months at once,
nor the keys that the new cluster has already can be mistaken for a difference.

A cluster is empty if no table has a row that is kept, besides keys and accounts: a cluster that was just started
has a key. A cluster with anything else is refused, also one that this backup was restored to.
"""

from __future__ import annotations

import asyncio
import getpass
import re
import socket
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from ring.ownership import SlotRow, SlotState, merge
from ring.topology import Topology
from snapurl.backup.archive import Archive, BackupRefused, Part, by_slot, opened, verified_parts
from snapurl.backup.dump import Progress
from snapurl.backup.snapshots import SQL, kept_tables, rows_query, shard_connections
from snapurl.config import Settings
from snapurl.store.cluster.pool import ShardFailed, statement_errors_of
from snapurl.store.cluster.tables import Table

MAY_EXIST = frozenset({"accounts", "api_keys", "intents"})
"""Tables that may have rows in a cluster that nobody has used yet."""

_MARK = re.compile(r"begun: ([0-9]+) of [0-9]+ parts, topology ([0-9]+)")


@dataclass(frozen=True, slots=True)
class _Target:
    """The cluster that is restored to. `owners` is the shard of each slot."""

    topology: Topology
    connections: Mapping[str, Any]
    owners: Sequence[str]
    tables: Mapping[str, Table]


async def restore_backup(
    settings: Settings, path: Path, progress: Progress = lambda *_: None
) -> dict[str, Any]:
    """Writes the rows of the backup `path` to an empty cluster and returns the manifest.

    Raises BackupRefused, ConfigError, OSError.
    """
    with opened(path) as archive:
        await asyncio.to_thread(lambda: list(verified_parts(archive, path)))
        async with shard_connections(settings) as (topology, connections):
            try:
                target = await _target(archive, topology, connections)
                await _Restore(archive, target, progress).run()
            except ShardFailed as error:
                raise BackupRefused(f"{error}: run it again to go on") from error
        return archive.manifest


async def _target(archive: Archive, topology: Topology, connections: Mapping[str, Any]) -> _Target:
    """Raises BackupRefused unless the cluster can take this backup."""
    rows: dict[str, tuple[SlotRow, ...]] = {}
    tables: dict[str, Table] = {}
    for name, connection in connections.items():
        with statement_errors_of(name):
            head = await connection.fetchrow(SQL["head"])
            found = await connection.fetch(SQL["slots"])
        if head["schema"] != archive.manifest["schema"]:
            raise BackupRefused(
                f"the backup is of schema {archive.manifest['schema']} and shard {name} of {head['schema']}: "
                "restore with the release that has made it, and upgrade then"
            )
        if not head["attested"]:
            raise BackupRefused(f"the server of shard {name} has restarted and is not attested yet")
        rows[name] = tuple(map(SlotRow.of, found))
        tables = {table.name: table for table in await kept_tables(name, connection)}
    columns = {name: list(table.columns) for name, table in tables.items()}
    if columns != archive.manifest["columns"]:
        raise BackupRefused("the tables here have other columns than those of the backup")
    owners = [owner.shard if owner else None for owner in merge(rows).owners]
    steady = all(row.state in (SlotState.OWNED, SlotState.RELEASED) for each in rows.values() for row in each)
    if None in owners or not steady:
        raise BackupRefused("slots are moving: wait until the reshard has ended, or `snapurl-reshard cancel`")
    return _Target(topology, connections, [str(owner) for owner in owners], tables)


class _Restore:
    """One run of a restore. `_done` is how many parts each shard has."""

    def __init__(self, archive: Archive, target: _Target, progress: Progress) -> None:
        self._archive = archive
        self._target = target
        self._progress = progress
        self._id = uuid.UUID(archive.manifest["id"])
        self._what = f"restore of the backup of {archive.manifest['made_at']}"
        self._done: dict[str, int] = {}

    async def run(self) -> None:
        await self._begin()
        parts = self._archive.parts
        bytes_all, bytes_done = sum(part.bytes for part in parts) or 1, 0
        for place, part in enumerate(parts, 1):
            if any(done < place for done in self._done.values()):
                rows = await asyncio.to_thread(self._archive.rows, part)
                await self._write_part(place, part, rows)
            bytes_done += part.bytes
            self._progress(part, bytes_done / bytes_all)
        for name, connection in self._target.connections.items():
            with statement_errors_of(name):
                await connection.execute(SQL["set_mark"], self._id, "done")

    # -- the mark --------------------------------------------------------------------------------------------

    def _mark(self, parts: int) -> str:
        return f"begun: {parts} of {len(self._archive.parts)} parts, topology {self._target.topology.version}"

    async def _begin(self) -> None:
        """Reads or makes the mark of each shard. Raises BackupRefused for a shard that is not empty."""
        marks: dict[str, str | None] = {}
        for name, connection in self._target.connections.items():
            with statement_errors_of(name):
                row = await connection.fetchrow(SQL["mark"], self._id)
            marks[name] = row["outcome"] if row else None
        if all(mark == "done" for mark in marks.values()):
            raise BackupRefused("this backup was restored here before: the cluster is not empty")
        for name, mark in marks.items():
            if mark is None:
                await self._check_empty(name)
        for name, mark in marks.items():
            self._done[name] = await self._parts_of(name, mark)

    async def _parts_of(self, name: str, mark: str | None) -> int:
        if mark is None:
            connection = self._target.connections[name]
            with statement_errors_of(name):
                await connection.execute(SQL["put_mark"], self._id, _operator(), self._what, self._mark(0))
            return 0
        if mark == "done":
            return len(self._archive.parts)
        found = _MARK.fullmatch(mark)
        if found is None or int(found[2]) != self._target.topology.version:
            raise BackupRefused(
                "the shards have changed since this restore began: make an empty cluster and restore to that"
            )
        return int(found[1])

    async def _check_empty(self, name: str) -> None:
        connection = self._target.connections[name]
        for table in self._target.tables.keys() - MAY_EXIST:
            with statement_errors_of(name):
                if await connection.fetchval(f"SELECT EXISTS (SELECT FROM {table})"):  # noqa: S608 - KEPT
                    raise BackupRefused(
                        f"the cluster is not empty: shard {name} has rows in {table}. A backup is restored to an "
                        "empty cluster only"
                    )

    # -- parts -----------------------------------------------------------------------------------------------

    async def _write_part(self, place: int, part: Part, rows: bytes) -> None:
        """Writes the rows of a part to their shards. A shard that has none of them gets no mark."""
        by_shard: dict[str, tuple[list[int], list[bytes]]] = {}
        for slot, lines in by_slot(rows):
            slots, found = by_shard.setdefault(self._target.owners[slot], ([], []))
            slots.append(slot)
            found += lines
        table = self._target.tables[part.table]
        try:
            async with asyncio.TaskGroup() as group:
                for name, (slots, found) in by_shard.items():
                    if self._done[name] < place:
                        group.create_task(self._write(name, place, table, slots, b"".join(found)))
        except ExceptionGroup as failed:
            raise failed.exceptions[0] from None

    async def _write(self, name: str, place: int, table: Table, slots: Sequence[int], rows: bytes) -> None:
        connection = self._target.connections[name]
        try:
            with statement_errors_of(name):
                async with connection.transaction():
                    await self._copy(connection, place, table, slots, rows)
        except asyncpg.UniqueViolationError:
            raise BackupRefused(
                f"shard {name} has a row in {table.name} that the backup has too: the cluster was not empty"
            ) from None
        except asyncpg.PostgresError as error:
            raise BackupRefused(f"shard {name} has refused rows of {table.name}: {error}") from error
        self._done[name] = place

    async def _copy(
        self, connection: Any, place: int, table: Table, slots: Sequence[int], rows: bytes
    ) -> None:
        """Writes rows in the transaction that is open, unless another run has done so."""
        await connection.execute(SQL["relaxed"])  # the last mark of all is flushed, and all before it
        mark = _MARK.fullmatch(await connection.fetchval(SQL["mark_locked"], self._id))
        if mark is None or int(mark[1]) >= place:
            return
        if await connection.fetch(SQL["fenced"], slots):
            raise BackupRefused(
                "slots have begun to move: `snapurl-reshard pause`, and begin with an empty cluster"
            )
        await connection.copy_to_table(
            table.name, source=_chunks(rows), columns=list(table.columns), format="text", timeout=None
        )
        made = bytearray()

        async def take(data: bytes) -> None:
            made.extend(data)

        query = rows_query(table, slots, " AND xid = pg_current_xact_id()")
        await connection.copy_from_query(query, output=take, format="text", timeout=None)
        if made != rows:
            raise BackupRefused(f"what was written to {table.name} is not what the backup has")
        await connection.execute(SQL["set_mark"], self._id, self._mark(place))


async def _chunks(rows: bytes) -> Any:
    yield rows


def _operator() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"?@{socket.gethostname()}"
