"""Migrations: numbered `.sql` files, applied alike to every shard, each in a transaction of its own.

Each is recorded with the SHA-256 of its text. A start refuses a shard whose record and files disagree: an
applied migration that has changed or is gone, one that would have to go in before an applied one, or a
shard that a newer program has migrated. An advisory lock makes processes that start at once take turns.
"""

from __future__ import annotations

import asyncio
import logging
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from importlib.resources import files
from typing import Any

import asyncpg

from snapurl.config import Settings, ShardDsn
from snapurl.errors import ConfigError
from snapurl.store.cluster.pool import ShardFailed, lost_connection_of, statement_errors_of
from snapurl.store.cluster.shards import close_quietly, connect_once, no_shard_answers

log = logging.getLogger("snapurl.migrate")

# ('SNAP', 'migr'): taken for as long as a shard is being migrated.
LOCK = (1397637456, 1835624306)
# The checksum of migration 0001 in development versions, whose fourteen migrations 0.1.0 has replaced.
_DEVELOPMENT = "5dfcf716f925b91df9c9998b989de936a14d65e328e2ab3956a1ba6a8de4330b"
FILE_PATTERN = re.compile(r"(\d{4})_([a-z0-9_]+)\.sql")

_CREATE_RECORD = """
CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer PRIMARY KEY,
    name       text NOT NULL,
    checksum   text NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now()
)"""


@dataclass(frozen=True, slots=True)
class Migration:
    """One file: its number, its name, its text."""

    version: int
    name: str
    sql: str

    @property
    def checksum(self) -> str:
        return sha256(self.sql.encode()).hexdigest()


def load_migrations() -> list[Migration]:
    """The migrations of this program, in order. Raises ConfigError if a number is missing."""
    found = sorted(
        (
            Migration(int(match[1]), match[2], entry.read_text(encoding="utf-8"))
            for entry in files("migrations").iterdir()
            if (match := FILE_PATTERN.fullmatch(entry.name))
        ),
        key=lambda migration: migration.version,
    )
    if [migration.version for migration in found] != list(range(1, len(found) + 1)):
        raise ConfigError("the migrations of this installation are not numbered 0001, 0002, … without a gap")
    return found


def pending(shard: str, known: Sequence[Migration], applied: Mapping[int, str]) -> list[Migration]:
    """What `shard` still needs, given its record (version -> checksum). Raises ConfigError on a conflict."""
    if made_in_development(applied):
        raise ConfigError(
            f"shard {shard} was made by a development version before 0.1.0, which cannot be upgraded: read its "
            "links with that version's API, and start on empty databases (`snapurl up`: move SNAPURL_HOME away)"
        )
    newest = max(applied, default=0)
    if newest > len(known):
        raise ConfigError(
            f"shard {shard} has migration {newest:04d}, unknown to this program: run a newer SnapURL"
        )
    for migration in known[:newest]:
        label = f"migration {migration.version:04d}_{migration.name}"
        if migration.version not in applied:
            raise ConfigError(
                f"shard {shard} never got {label}, though it has later ones: restore its record"
            )
        if applied[migration.version] != migration.checksum:
            raise ConfigError(f"{label} has changed since shard {shard} got it: put the old text back")
    return list(known[newest:])


def made_in_development(applied: Mapping[int, str]) -> bool:
    """Whether a shard's record (version -> checksum) is that of a development version before 0.1.0."""
    return applied.get(1) == _DEVELOPMENT


async def migrate_all(settings: Settings) -> list[str]:
    """Brings every shard that answers up to date; one line per migration applied (`db0: 0001_cluster`).

    Raises ConfigError if a shard's record and the files disagree or no shard answers, and Unavailable if a shard is
    lost while it is migrated.
    """
    known = load_migrations()
    outcomes = await asyncio.gather(
        *(_migrate(item, known, settings.statement_timeout_ms / 1000) for item in settings.shard_dsns),
        return_exceptions=True,
    )
    lines: list[str] = []
    silent: list[ShardFailed] = []
    for outcome in outcomes:
        if isinstance(outcome, ShardFailed):
            silent.append(outcome)
        elif isinstance(outcome, BaseException):
            raise outcome
        else:
            lines += outcome
    if len(silent) == len(outcomes):
        raise no_shard_answers(silent)
    for failed in silent:
        log.warning("%s; it is not migrated now", failed)
    return lines


async def check_migrated(settings: Settings) -> None:
    """Raises ConfigError if a shard that answers lacks migrations of this program. It may have newer ones."""
    timeout_s = settings.statement_timeout_ms / 1000
    known = load_migrations()
    await asyncio.gather(*(_check_migrated(item, known, timeout_s) for item in settings.shard_dsns))


async def _check_migrated(item: ShardDsn, known: Sequence[Migration], timeout_s: float) -> None:
    try:
        connection = await connect_once(item.name, item.dsn, timeout_s)
    except ShardFailed:
        return
    try:
        with statement_errors_of(item.name):
            applied = await _applied(connection)
    except ShardFailed:
        return
    finally:
        await close_quietly(connection, timeout_s)
    newest = max(applied, default=0)
    if applied and (made_in_development(applied) or newest < len(known)):
        todo = pending(item.name, known, applied)  # of a development version it says what to do
        names = ", ".join(f"{migration.version:04d}_{migration.name}" for migration in todo)
        raise ConfigError(f"shard {item.name} lacks the migrations {names}: run `snapurl migrate`")


async def _migrate(item: ShardDsn, known: Sequence[Migration], timeout_s: float) -> list[str]:
    connection = await connect_once(item.name, item.dsn, timeout_s)
    try:
        # Looked at first, changing nothing: whoever may not change the tables need not, if they are current.
        with statement_errors_of(item.name):
            if not pending(item.name, known, await _applied(connection)):
                return []
        try:
            with lost_connection_of(item.name):
                todo = await _apply_pending(item.name, connection, known)
        except ShardFailed as error:  # no silent shard: it may be half-way, and the next start goes on
            raise error.as_unavailable() from error
        return [f"{item.name}: {migration.version:04d}_{migration.name}" for migration in todo]
    finally:
        await close_quietly(connection, timeout_s)


async def _apply_pending(shard: str, connection: Any, known: Sequence[Migration]) -> list[Migration]:
    """Applies what is pending under the lock and returns it."""
    await connection.execute("SELECT pg_advisory_lock($1, $2)", *LOCK)
    todo = pending(shard, known, await _applied(connection))
    with _as_owner(shard, todo):
        await connection.execute(_CREATE_RECORD)
        for migration in todo:
            await _apply(connection, migration)
            log.debug("shard %s: migration %04d_%s applied", shard, migration.version, migration.name)
        if todo:
            log.info("shard %s: migrations up to %04d_%s applied", shard, todo[-1].version, todo[-1].name)
        if todo and (fault := await _grant(connection)):
            log.warning("shard %s: %s", shard, fault)
    return todo


async def _applied(connection: Any) -> dict[int, str]:
    """The record of a shard: version -> checksum; empty if it has none yet."""
    try:
        rows = await connection.fetch("SELECT version, checksum FROM schema_migrations")
    except asyncpg.UndefinedTableError:
        return {}
    return {row["version"]: row["checksum"] for row in rows}


@contextmanager
def _as_owner(shard: str, todo: Sequence[Migration]) -> Iterator[None]:
    try:
        yield
    except asyncpg.RaiseError as error:
        raise ConfigError(
            f"shard {shard} cannot be migrated now: {' '.join(str(error.args[0]).split())}"
        ) from None
    except asyncpg.InsufficientPrivilegeError as error:
        names = ", ".join(f"{migration.version:04d}_{migration.name}" for migration in todo)
        raise ConfigError(
            f"shard {shard} needs the migrations {names}, which its user may not apply ({error.args[0]}): run "
            "`snapurl migrate` as the owner of its tables"
        ) from None


# -- rights
# -------------------------------------------------------------------------------------------------------


async def grant_all(settings: Settings) -> list[str]:
    """Gives the roles of every shard their rights again; one line per shard where that did not work.

    A user who is not the owner of the tables changes nothing, and nothing is said of it.
    """
    timeout_s = settings.statement_timeout_ms / 1000
    found = await asyncio.gather(*(_grant_on(item, timeout_s) for item in settings.shard_dsns))
    return [line for line in found if line]


async def _grant_on(item: ShardDsn, timeout_s: float) -> str:
    try:
        connection = await connect_once(item.name, item.dsn, timeout_s)
    except ShardFailed:
        return ""  # it was told of as one that is not migrated
    try:
        with lost_connection_of(item.name):
            await connection.execute("SELECT pg_advisory_lock($1, $2)", *LOCK)
            fault = await _grant(connection)
    except asyncpg.InsufficientPrivilegeError:
        return ""
    except ShardFailed as error:
        fault = error.reason
    finally:
        await close_quietly(connection, timeout_s)
    return f"{item.name}: {fault}" if fault else ""


async def _grant(connection: Any) -> str:
    """What kept the roles from getting their rights; empty if they have them."""
    said: str = await connection.fetchval("SELECT grant_roles_v1()")
    if said == "granted":
        return ""
    return f"{said}: have a superuser create it, then run `snapurl migrate` again"


async def _apply(connection: Any, migration: Migration) -> None:
    async with connection.transaction():
        await connection.execute(migration.sql)
        await connection.execute(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES ($1, $2, $3)",
            migration.version,
            migration.name,
            migration.checksum,
        )
