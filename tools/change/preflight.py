"""What would stop a change: asked of every shard, and of each database that is to become one. Changes nothing."""

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
from tools.change.provision import local_only
from tools.change.request import Add
from tools.cluster.fleet import Fleet
from tools.cluster.tables import SQL

POSTGRES_MIN = 14
SPARE = 1.2  # what arrives takes this much more room than it took where it came from


async def of_shards(fleet: Fleet, names: list[str]) -> tuple[list[str], int]:
    """What is wrong with the shards there are, one line each, and the newest PostgreSQL among them."""
    found: list[str] = []
    newest = 0
    for name in names:
        connection = await fleet.control(name)
        row = await connection.fetchrow(SQL["server"])
        newest = max(newest, row["major"])
        found += _server(row, name)
        line = await _schema(connection, name) or await _rights(connection, name)
        if line:
            found.append(line)
    return found, newest


async def _rights(connection: Any, name: str) -> str:
    """The first right that the user of a migrated shard lacks, and how it is given; empty if none."""
    row = await connection.fetchrow(SQL["rights"])
    if not row["missing"]:
        return ""
    more = f" and {len(row['missing']) - 1} more" if len(row["missing"]) > 1 else ""
    who = row["migrator"]
    return f"on shard {name}, {who} lacks the right {row['missing'][0]}{more}: as {row['owner']}, {row['remedy']}"


async def out_of_sight(fleet: Fleet, names: list[str]) -> list[str]:
    """What a migrator cannot do for want of rights that only few clusters need, one line each, with the GRANT."""
    found = []
    for name in names:
        try:
            rights = (await fleet.fetch(name, SQL["rights"]))[0]
            hidden = (await fleet.fetch(name, SQL["standby_lag"]))[0]["hidden"]
        except asyncpg.PostgresError:
            continue  # the shard is not migrated, or more is missing: an obstacle, which is told as such
        others = ", ".join(rights["other_migrators"])
        if others and not rights["may_end"]:
            found.append(
                f"on shard {name}, the sessions of the migrators {others} cannot be ended if one of them hangs in "
                f"a hand-off: as a superuser, GRANT pg_signal_backend TO {rights['owner']}"
            )
        if hidden:
            found.append(
                f"on shard {name}, the lag of {hidden} standby(s) cannot be seen and holds no migrator back: "
                f"as a superuser, GRANT pg_read_all_stats TO {rights['owner']}"
            )
    return found


async def of_newcomer(fleet: Fleet, change: Add, newest_major: int) -> tuple[list[str], list[str]]:
    """What would stop a database from becoming a shard, and what is worth knowing of it."""
    if change.dsn is None:
        return [], [f"a further server of the local cluster will be started for {change.name}"]
    timeout_s = fleet.settings.statement_timeout_ms / 1000
    try:
        connection = await connect_once(change.name, change.dsn, timeout_s)
    except ShardFailed as error:
        return [f"shard {change.name} {error.reason}"], []
    except ConfigError as error:
        return [error.detail], []
    try:
        obstacles = await _newcomer(connection, fleet, change.name, newest_major)
        return obstacles, [*await _reach(fleet, change), *_seen_by_all(fleet, change)]
    except (*LOST, ShardFailed):
        return [f"shard {change.name} stopped answering"], []
    finally:
        connection.terminate()


def _seen_by_all(fleet: Fleet, change: Add) -> list[str]:
    """A password that stood in the command line, which everybody on the machine can read while it runs."""
    assert change.dsn is not None
    listed = [item.dsn for item in fleet.settings.shard_dsns]
    known = {urlsplit(dsn).password for dsn in (*listed, fleet.settings.with_password("postgresql://x/x"))}
    if urlsplit(change.dsn).password in {None, *known}:
        return []
    return [
        f"the password of {change.name} stands in the list of processes: change it, and put the DSN into "
        "SNAPURL_SHARDS instead"
    ]


async def _newcomer(connection: Any, fleet: Fleet, name: str, newest_major: int) -> list[str]:
    row = await connection.fetchrow(SQL["server"])
    found = _server(row, name)
    if row["major"] < newest_major:
        found.append(
            f"shard {name} runs PostgreSQL {row['major']}, and others {newest_major}: it must not be older"
        )
    contents = await _contents(connection, fleet, name)
    if contents or not row["tables"]:
        if not (row["may_create"] and row["may_temp"]):
            found.append(
                f"the user of shard {name} may not create tables there: run `snapurl migrate` as one who may, with "
                "it in SNAPURL_SHARDS, or GRANT it CREATE and TEMPORARY"
            )
    elif line := await _rights(connection, name):
        found.append(line)
    return [*found, *contents]


def _server(row: Mapping[str, Any], name: str) -> list[str]:
    found = []
    if row["major"] < POSTGRES_MIN:
        found.append(f"shard {name} runs PostgreSQL {row['major']}: {POSTGRES_MIN} or newer is needed")
    if row["read_only"]:
        found.append(f"shard {name} is read-only: it is a standby, or was made so")
    if row["prepared"]:
        found.append(
            f"shard {name} has the prepared transaction {row['prepared'][0]!r}, which may hold the fence: "
            "end it with COMMIT PREPARED or ROLLBACK PREPARED"
        )
    return found


async def _contents(connection: Any, fleet: Fleet, name: str) -> list[str]:
    """A newcomer is empty, or has our tables and no identity, or is this very shard already."""
    try:
        row = await connection.fetchrow(CLUSTER["identity"])
    except asyncpg.UndefinedTableError:
        row = None
    if row is not None and row["cluster_id"] != fleet.topology.cluster_id:
        return [f"that database is shard {row['shard']} of another cluster"]
    if row is not None and row["shard"] != name:
        return [f"that database is shard {row['shard']} of this cluster already"]
    tables = (await connection.fetchrow(SQL["server"]))["tables"]
    line = await _schema(connection, name) if tables else ""
    return [line] if line else []


async def _schema(connection: Any, name: str) -> str:
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
    return f"shard {name} has tables of other contents than this program: run the SnapURL that made them"


async def _reach(fleet: Fleet, change: Add) -> list[str]:
    """Processes that are not told the DSN come with the first shard's credentials: whether these open it."""
    assert change.dsn is not None
    dsn = dsn_for(address_of(change.dsn), fleet.settings.shard_dsns[0].dsn)
    try:
        (await connect_once(change.name, dsn, fleet.settings.statement_timeout_ms / 1000)).terminate()
    except (ShardFailed, ConfigError):
        first = fleet.settings.shard_dsns[0].name
        return [
            f"{change.name} does not open to the credentials of {first}: put its DSN into SNAPURL_SHARDS of every "
            "service and migrator before it is added"
        ]
    return []


def of_disk(
    settings: Settings, arriving: Mapping[str, int], disk_free: int | None
) -> tuple[list[str], list[str]]:
    """Whether what arrives (shard -> bytes more than now) finds room; a note where that cannot be known."""
    coming = {name: int(size * SPARE) for name, size in arriving.items() if size > 0}
    if disk_free is None and coming and _is_local(settings):
        free = os.statvfs(settings.home)
        disk_free = free.f_bavail * free.f_frsize
        coming = {"the local disk": sum(coming.values())}
    if disk_free is None:
        note = "free disk space cannot be asked for over SQL: have it checked with --disk-free BYTES"
        return [], [note] if coming else []
    return [
        f"not enough disk: {name} would get {size:,} bytes and has {disk_free:,} free"
        for name, size in coming.items()
        if size > disk_free
    ], []


def _is_local(settings: Settings) -> bool:
    try:
        local_only(settings, "")
    except ConfigError:
        return False
    return True
