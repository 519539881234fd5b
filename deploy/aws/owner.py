"""The owner's tasks on AWS besides `snapurl migrate`: creates users, and runs the SQL that `doctor` recommends.

    owner.py                      makes the users of the service and of the migrator on every shard
    owner.py sql SHARD STATEMENT  runs one statement on one shard

Creating the users again changes only passwords. A shard receives the verifier of a password, never the password,
so no log of PostgreSQL can contain it.

The environment: SNAPURL_SHARDS and SNAPURL_SHARDS_PASSWORD of the owner; SERVICE_USER and MIGRATOR_USER;
SERVICE_PASSWORD and MIGRATOR_PASSWORD; RETIRED_USERS, separated by spaces, may no longer log in.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import os
import secrets
import sys
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import asyncpg

from snapurl.config import Settings, load_settings
from snapurl.errors import SnapURLError
from snapurl.store.cluster.pool import ShardFailed
from snapurl.store.cluster.shards import close_quietly, connect_once

ITERATIONS = 4096  # PostgreSQL's default; these passwords have 40 random characters
CONNECT_S_MAX = 10.0


@dataclass(frozen=True, slots=True)
class User:
    """A login user, the role that it is a member of, and the verifier of its password."""

    name: str
    role: str
    verifier: str


class Refused(SnapURLError):
    """The environment is invalid. Nothing was changed."""


def scram(password: str, salt: bytes) -> str:
    """Returns the SCRAM verifier that PostgreSQL stores for an ASCII password (RFC 5803)."""
    salted = hashlib.pbkdf2_hmac("sha256", password.encode("ascii"), salt, ITERATIONS)
    client = hashlib.sha256(hmac.digest(salted, b"Client Key", "sha256")).digest()
    server = hmac.digest(salted, b"Server Key", "sha256")
    parts = (b64encode(part).decode() for part in (salt, client, server))
    return "SCRAM-SHA-256${}:{}${}:{}".format(ITERATIONS, *parts)


def wanted(environ: Mapping[str, str]) -> tuple[list[User], list[str]]:
    """Returns the users to create, and those that may no longer log in. Raises Refused."""
    users = []
    for word, role in (("SERVICE", "snapurl_service"), ("MIGRATOR", "snapurl_migrator")):
        name, password = environ.get(f"{word}_USER"), environ.get(f"{word}_PASSWORD")
        if not name or not password:
            raise Refused(f"{word}_USER and {word}_PASSWORD have to be set")
        if not password.isascii():
            raise Refused(f"{word}_PASSWORD has a character that is not ASCII: make another")
        users.append(User(name, role, scram(password, secrets.token_bytes(16))))
    retired = environ.get("RETIRED_USERS", "").split()
    if in_use := sorted({user.name for user in users} & {*retired}):
        raise Refused(f"{in_use[0]} is in use: it cannot be retired")
    return users, retired


async def prepare(database: Any, users: list[User], retired: list[str]) -> None:
    """Creates and retires the users on one shard, in one transaction."""
    async with database.transaction():
        for user in users:
            if not await _exists(database, user.name):
                await _run(database, "CREATE ROLE %I", user.name)
            await _run(database, "ALTER ROLE %I LOGIN PASSWORD %L", user.name, user.verifier)
            await _run(database, "GRANT %I TO %I", user.role, user.name)
        for name in retired:
            if await _exists(database, name):
                await _run(database, "ALTER ROLE %I NOLOGIN PASSWORD NULL", name)


async def _exists(database: Any, name: str) -> bool:
    return bool(await database.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", name))


async def _run(database: Any, statement: str, *words: str) -> None:
    await database.execute(
        await database.fetchval("SELECT format($1, VARIADIC $2::text[])", statement, words)
    )


async def make_users(settings: Settings, environ: Mapping[str, str]) -> None:
    """Prepares one shard after another. Stops at a shard that fails; run it again when the shard is back."""
    users, retired = wanted(environ)
    for shard in settings.shard_dsns:
        database = await connect_once(shard.name, shard.dsn, CONNECT_S_MAX)
        try:
            await prepare(database, users, retired)
        finally:
            await close_quietly(database, CONNECT_S_MAX)
        print(f"{shard.name}: {', '.join(user.name for user in users)} may log in")
        for name in retired:
            print(f"{shard.name}: {name} may not")


async def run_sql(settings: Settings, name: str, statement: str) -> None:
    """Prints the rows and PostgreSQL's status (`UPDATE 3`). Raises Refused, ShardFailed."""
    found = [item for item in settings.shard_dsns if item.name == name]
    if not found:
        raise Refused(f"there is no shard {name}")
    database = await connect_once(name, found[0].dsn, CONNECT_S_MAX)
    try:
        prepared = await database.prepare(statement)
        for row in await prepared.fetch():
            print(*row, sep=" | ")
        print(prepared.get_statusmsg())
    except asyncpg.PostgresError as error:
        raise Refused(f"shard {name}: {error.args[0]}") from error
    finally:
        await close_quietly(database, CONNECT_S_MAX)


async def main(words: Sequence[str], environ: Mapping[str, str]) -> None:
    """Runs one of the two commands. Raises Refused, ConfigError, ShardFailed."""
    match words:
        case []:
            await make_users(load_settings(), environ)
        case ["sql", name, statement]:
            await run_sql(load_settings(), name, statement)
        case _:
            raise Refused("say nothing, or: sql SHARD STATEMENT")


if __name__ == "__main__":
    try:
        asyncio.run(main(sys.argv[1:], os.environ))
    except (SnapURLError, ShardFailed) as error:
        sys.exit(f"owner: {error}")
