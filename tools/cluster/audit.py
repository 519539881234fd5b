"""The audit trail: who ran which changing command, when, and how it ended, on every shard that answers."""

from __future__ import annotations

import getpass
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

import asyncpg

from ring.errors import RingError
from snapurl.errors import ConfigError, SnapURLError
from snapurl.store.cluster.pool import ShardFailed
from tools.cluster.fleet import Fleet
from tools.cluster.tables import SQL

ROWS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class AuditEntry:
    """One changing command."""

    at: datetime
    who: str
    what: str
    outcome: str


@asynccontextmanager
async def audited(fleet: Fleet, what: str) -> AsyncIterator[None]:
    """Records the command as `begun`, and afterwards as `done` or `failed: …`."""
    entry, at = uuid.uuid4(), datetime.now(UTC)
    await _write(fleet, entry, at, what, "begun")
    try:
        yield
    except BaseException as error:
        await _write(fleet, entry, at, what, f"failed: {_reason(error)}")
        raise
    await _write(fleet, entry, at, what, "done")


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
    """Returns the newest `rows` entries of all shards that answer, newest first."""
    found: dict[uuid.UUID, AuditEntry] = {}
    for shard in fleet.topology.shards:
        try:
            for row in await fleet.fetch(shard.name, SQL["history"], rows):
                known = found.get(row["id"])
                if known is None or known.outcome == "begun":
                    found[row["id"]] = AuditEntry(row["at"], row["who"], row["what"], row["outcome"])
        except (ShardFailed, ConfigError):
            continue
    return sorted(found.values(), key=lambda entry: entry.at, reverse=True)[:rows]


def _operator() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"?@{socket.gethostname()}"
