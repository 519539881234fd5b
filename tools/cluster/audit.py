"""The audit trail: who ran which changing command, when, and how it ended, on every shard that answers.

A command that publishes a topology ends long before the slots have moved. Its entry says `published` until the next
change records how the one before it has ended (`tools/change/goal.py`).
"""

from __future__ import annotations

import getpass
import re
import socket
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import asyncpg

from ring.errors import RingError
from ring.topology import Topology
from snapurl.errors import ConfigError, SnapURLError
from snapurl.store.cluster.pool import ShardFailed
from tools.cluster.fleet import Fleet
from tools.cluster.outcome import Outcome, end_of
from tools.cluster.sql import SQL

ROWS_MAX = 1_000
_PUBLISHED = re.compile(rf"{Outcome.PUBLISHED}: topology ([0-9]+)")


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One changing command.

    `outcome` is begun, done or failed; of a change of the topology, an `Outcome`. `detail` is the rest of what was
    recorded: the reason of a failure, or which topology was published and which one ended it.
    """

    at: datetime
    who: str
    what: str
    outcome: str
    detail: str = ""

    @property
    def version(self) -> int | None:
        """The topology of a change that is not known to have ended."""
        found = _PUBLISHED.fullmatch(self.said)
        return int(found[1]) if found else None

    @property
    def said(self) -> str:
        """Outcome and detail as they are recorded and shown."""
        return f"{self.outcome}: {self.detail}" if self.detail else self.outcome


class Record:
    """The entry of a command that runs now."""

    def __init__(self) -> None:
        self.outcome = "done"

    def publish(self, version: int) -> None:
        """Notes that the command has published a topology, which others bring about."""
        self.outcome = _published(version)


@asynccontextmanager
async def audited(fleet: Fleet, what: str) -> AsyncIterator[Record]:
    """Records the command as `begun`, and afterwards as `done`, as published, or as `failed: …`."""
    entry, at = uuid.uuid4(), datetime.now(UTC)
    record = Record()
    await _write(fleet, entry, at, what, "begun")
    try:
        yield record
    except BaseException as error:
        await _write(fleet, entry, at, what, f"failed: {_reason(error)}")
        raise
    await _write(fleet, entry, at, what, record.outcome)


def _published(version: int) -> str:
    return f"{Outcome.PUBLISHED}: topology {version}"


async def close_changes(
    fleet: Fleet, versions: Iterable[int], outcome: Outcome, by: int | None = None
) -> None:
    """Records how the changes that were published as `versions` have ended, if that is not recorded yet."""
    ended = "" if by is None else f", by topology {by}"
    for version in versions:
        text = f"{outcome}: topology {version}{ended}"
        for shard in fleet.topology.shards:
            try:
                await fleet.fetch(shard.name, SQL["audit_close"], _published(version), text)
            except (ShardFailed, ConfigError, asyncpg.PostgresError):
                continue  # as in `_write`


def _reason(error: BaseException) -> str:
    """Returns the message of our own errors, which are written to be shown; of others only the type."""
    if isinstance(error, SnapURLError | RingError | ShardFailed):
        return " ".join(str(error).split())
    return type(error).__name__


async def _write(fleet: Fleet, entry: uuid.UUID, at: datetime, what: str, outcome: str) -> None:
    for shard in fleet.topology.shards:
        try:
            await fleet.fetch(shard.name, SQL["audit"], entry, at, _operator(), what, outcome)
        except (ShardFailed, ConfigError, asyncpg.PostgresError):
            continue  # a gap in the trail is better than a change that the trail prevents


async def read_history(fleet: Fleet, rows: int) -> list[AuditEntry]:
    """Returns the newest `rows` entries of all shards that answer, newest first, as they are recorded."""
    found: dict[uuid.UUID, AuditEntry] = {}
    for shard in fleet.topology.shards:
        try:
            for row in await fleet.fetch(shard.name, SQL["history"], rows):
                outcome, _, detail = row["outcome"].partition(": ")
                entry = AuditEntry(row["at"], row["who"], row["what"], outcome, detail)
                known = found.get(row["id"])
                if known is None or _rank(known) < _rank(entry):
                    found[row["id"]] = entry
        except (ShardFailed, ConfigError):
            continue
    return sorted(found.values(), key=lambda entry: entry.at, reverse=True)[:rows]


def resolved(entry: AuditEntry, topologies: Mapping[int, Topology], *, settled: bool) -> AuditEntry:
    """Returns the entry with how the change has ended, if that follows from the topologies. `settled`: whether the
    newest one is brought about."""
    version = entry.version
    if version is None or version not in topologies:
        return entry
    if end := end_of(version, topologies):
        return replace(entry, outcome=str(end.outcome), detail=f"topology {version}, by topology {end.by}")
    return replace(entry, outcome=str(Outcome.FINISHED)) if settled else entry


def _rank(entry: AuditEntry) -> int:
    """Orders what shards say of one command: a shard that did not answer has the older record."""
    return {"begun": 0, str(Outcome.PUBLISHED): 1}.get(entry.outcome, 2)


def _operator() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"?@{socket.gethostname()}"
