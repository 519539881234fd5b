"""The audit trail: who asked for what, when, and what came of it, on every shard that could be reached."""

from __future__ import annotations

import getpass
import socket
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime

from snapurl.errors import SnapURLError
from snapurl.store.pool import ShardFailed
from tools.fleet import Fleet
from tools.manifest import SQL

ROWS_MAX = 1_000


@dataclass(frozen=True, slots=True)
class Entry:
    """One changing command."""

    at: datetime
    who: str
    what: str
    outcome: str


@asynccontextmanager
async def audited(fleet: Fleet, what: str) -> AsyncIterator[None]:
    """Leaves a row that says `begun`, and afterwards `done` or `failed: …`."""
    entry, at = uuid.uuid4(), datetime.now(UTC)
    await _write(fleet, entry, at, what, "begun")
    try:
        yield
    except SnapURLError as error:
        await _write(fleet, entry, at, what, f"failed: {error.detail}")
        raise
    await _write(fleet, entry, at, what, "done")


async def _write(fleet: Fleet, entry: uuid.UUID, at: datetime, what: str, outcome: str) -> None:
    for shard in fleet.topology.shards:
        try:
            await fleet.fetch(shard.name, SQL["audit"], entry, at, _who(), what, outcome)
        except ShardFailed:
            continue


async def history(fleet: Fleet, rows: int) -> list[Entry]:
    """The newest `rows` entries, newest first."""
    found: dict[uuid.UUID, Entry] = {}
    for shard in fleet.topology.shards:
        try:
            for row in await fleet.fetch(shard.name, SQL["history"], rows):
                known = found.get(row["id"])
                if known is None or known.outcome == "begun":
                    found[row["id"]] = Entry(row["at"], row["who"], row["what"], row["outcome"])
        except ShardFailed:
            continue
    return sorted(found.values(), key=lambda entry: entry.at, reverse=True)[:rows]


def _who() -> str:
    try:
        return f"{getpass.getuser()}@{socket.gethostname()}"
    except (KeyError, OSError):
        return f"?@{socket.gethostname()}"
