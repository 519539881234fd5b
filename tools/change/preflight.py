"""Preflight checks: what prevents a change, on every shard and each database to add. Changes nothing."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlsplit

import asyncpg

from snapurl.config import Settings
from snapurl.errors import ConfigError
from snapurl.store.cluster.connection import LOST
from snapurl.store.cluster.dsn import address_of, dsn_for
from snapurl.store.cluster.migrate import load_migrations, made_in_development
from snapurl.store.cluster.pool import CLUSTER, ShardFailed
from snapurl.store.cluster.shards import connect_once
from tools.change.provision import require_local_cluster
from tools.change.request import Add
from tools.cluster.fleet import Fleet
from tools.cluster.sql import SQL

POSTGRES_MIN = 14
SIZE_MARGIN = 1.2  # rows take up to this much more room on the target than on the source


async def check_shards(fleet: Fleet, names: list[str]) -> tuple[list[str], int]:
    """Returns one line per problem of the present shards, and the newest PostgreSQL version among them."""
    found: list[str] = []
    newest = 0
    for name in names:
        connection = await fleet.control(name)
        row = await connection.fetchrow(SQL["server"])
        newest = max(newest, row["major"])
        found += _check_server(row, name)
        line = await _check_schema(connection, name) or await _check_rights(connection, name)
        if line:
            found.append(line)
    return found, newest


async def _check_rights(connection: Any, name: str) -> str:
    """Returns the first right that the user of a migrated shard lacks, and its GRANT; empty if none."""
    row = await connection.fetchrow(SQL["rights"])
    if not row["missing"]:
        return ""
    more = f" and {len(row['missing']) - 1} more" if len(row["missing"]) > 1 else ""
    who = row["migrator"]
    return f"on shard {name}, {who} lacks the right {row['missing'][0]}{more}: as {row['owner']}, {row['remedy']}"


async def missing_optional_rights(fleet: Fleet, names: list[str]) -> list[str]:
    """Returns one line per missing right that only some clusters need, with its GRANT."""
    found = []
    for name in names:
        try:
            rights = (await fleet.fetch(name, SQL["rights"]))[0]
            hidden = (await fleet.fetch(name, SQL["standby_lag"]))[0]["hidden"]
        except asyncpg.PostgresError:
            continue  # not migrated, or more rights are missing: `check_shards` reports that
        others = ", ".join(rights["other_migrators"])
        if others and not rights["may_end"]:
            found.append(
                f"on shard {name}, the sessions of the migrators {others} cannot be ended if one hangs in a "
                f"hand-off: as a superuser, GRANT pg_signal_backend TO {rights['owner']}"
            )
        if hidden:
            found.append(
                f"on shard {name}, the lag of {hidden} standby(s) cannot be seen, so it slows no migrator down: "
                f"as a superuser, GRANT pg_read_all_stats TO {rights['owner']}"
            )
    return found


async def check_new_shard(fleet: Fleet, change: Add, newest_major: int) -> tuple[list[str], list[str]]:
    """Returns what prevents a database from becoming a shard, and notes about it."""
    if change.dsn is None:
        return [], [f"one more server of the local cluster will be started for {change.name}"]
    timeout_s = fleet.settings.statement_timeout_ms / 1000
    try:
        connection = await connect_once(change.name, change.dsn, timeout_s)
    except ShardFailed as error:
        return [f"shard {change.name} {error.reason}"], []
    except ConfigError as error:
        return [error.detail], []
    try:
        obstacles = await _check_database(connection, fleet, change.name, newest_major)
        return obstacles, [*await _check_credentials(fleet, change), *_warn_of_password(fleet, change)]
    except (*LOST, ShardFailed):
        return [f"the connection to shard {change.name} was lost"], []
    finally:
        connection.terminate()


def _warn_of_password(fleet: Fleet, change: Add) -> list[str]:
    """Warns of a password on the command line, which every user of the machine can read while it runs."""
    assert change.dsn is not None
    listed = [item.dsn for item in fleet.settings.shard_dsns]
    known = {urlsplit(dsn).password for dsn in (*listed, fleet.settings.with_password("postgresql://x/x"))}
    if urlsplit(change.dsn).password in {None, *known}:
        return []
    return [
        f"the password of {change.name} is visible in the list of processes: change it, and put the DSN into "
        "SNAPURL_SHARDS instead"
    ]


async def _check_database(connection: Any, fleet: Fleet, name: str, newest_major: int) -> list[str]:
    row = await connection.fetchrow(SQL["server"])
    found = _check_server(row, name)
    if row["major"] < newest_major:
        found.append(
            f"shard {name} runs PostgreSQL {row['major']}, and others {newest_major}: it must not be older"
        )
    contents = await _check_contents(connection, fleet, name)
    if contents or not row["tables"]:
        if not (row["may_create"] and row["may_temp"]):
            found.append(
                f"the user of shard {name} may not create tables there: run `snapurl migrate` as one who may, with "
                "it in SNAPURL_SHARDS, or GRANT it CREATE and TEMPORARY"
            )
    elif line := await _check_rights(connection, name):
        found.append(line)
    return [*found, *contents]


def _check_server(row: Mapping[str, Any], name: str) -> list[str]:
    found = []
    if row["major"] < POSTGRES_MIN:
        found.append(f"shard {name} runs PostgreSQL {row['major']}: {POSTGRES_MIN} or newer is needed")
    if row["read_only"]:
        found.append(f"shard {name} is read-only: it is a standby, or default_transaction_read_only is on")
    if row["prepared"]:
        found.append(
            f"shard {name} has the prepared transaction {row['prepared'][0]!r}, which may hold the fence: "
            "end it with COMMIT PREPARED or ROLLBACK PREPARED"
        )
    return found


async def _check_contents(connection: Any, fleet: Fleet, name: str) -> list[str]:
    """Returns why the database cannot become shard `name`: it is another shard, or its tables are not ours."""
    try:
        row = await connection.fetchrow(CLUSTER["identity"])
    except asyncpg.UndefinedTableError:
        row = None
    if row is not None and row["cluster_id"] != fleet.topology.cluster_id:
        return [f"that database is shard {row['shard']} of another cluster"]
    if row is not None and row["shard"] != name:
        return [f"that database is shard {row['shard']} of this cluster already"]
    tables = (await connection.fetchrow(SQL["server"]))["tables"]
    line = await _check_schema(connection, name) if tables else ""
    return [line] if line else []


async def _check_schema(connection: Any, name: str) -> str:
    """Returns why the tables of a shard are not those of this program; empty if they are."""
    try:
        applied = {row["version"]: row["checksum"] for row in await connection.fetch(SQL["applied"])}
    except asyncpg.UndefinedTableError:
        return f"the database of shard {name} has tables, but not SnapURL's: give it an empty one"
    if made_in_development(applied):
        return f"shard {name} was made by a development version before 0.1.0: give it an empty database"
    known = {item.version: item.checksum for item in load_migrations()}
    newest = max(applied, default=0)
    if applied == known:
        return ""
    if newest > len(known):
        return f"shard {name} has newer tables ({newest:04d}) than this program: run a newer SnapURL"
    if newest < len(known):
        return (
            f"shard {name} has older tables ({newest:04d}) than this program ({len(known):04d}): "
            "run `snapurl migrate` with it in SNAPURL_SHARDS"
        )
    return f"shard {name} has tables with other contents than this program's: run the SnapURL that made them"


async def _check_credentials(fleet: Fleet, change: Add) -> list[str]:
    """Returns a note if the first shard's credentials do not open it: processes without its DSN use these."""
    assert change.dsn is not None
    dsn = dsn_for(address_of(change.dsn), fleet.settings.shard_dsns[0].dsn)
    try:
        (await connect_once(change.name, dsn, fleet.settings.statement_timeout_ms / 1000)).terminate()
    except (ShardFailed, ConfigError):
        first = fleet.settings.shard_dsns[0].name
        return [
            f"{change.name} does not accept the credentials of {first}: put its DSN into SNAPURL_SHARDS of every "
            "service and migrator first"
        ]
    return []


def check_disk(
    settings: Settings, arriving: Mapping[str, int], disk_free: int | None
) -> tuple[list[str], list[str]]:
    """Returns obstacles if `arriving` (shard -> bytes more than now) does not fit, and notes if that is unknown."""
    coming = {name: int(size * SIZE_MARGIN) for name, size in arriving.items() if size > 0}
    if disk_free is None and coming and _is_local(settings):
        free = os.statvfs(settings.home)
        disk_free = free.f_bavail * free.f_frsize
        coming = {"the local disk": sum(coming.values())}
    if disk_free is None:
        note = "free disk space cannot be queried over SQL: pass --disk-free BYTES to check it"
        return [], [note] if coming else []
    return [
        f"not enough disk space: {name} would receive {size:,} bytes and has {disk_free:,} free"
        for name, size in coming.items()
        if size > disk_free
    ], []


def _is_local(settings: Settings) -> bool:
    try:
        require_local_cluster(settings, "")
    except ConfigError:
        return False
    return True
