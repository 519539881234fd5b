"""Login users with the rights of a role, and settings that log in as them."""

from __future__ import annotations

import os
import sys
from asyncio import wait_for
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
from pydantic import SecretStr

from snapurl.config import Settings
from tests.support.programs import PIPE, STDOUT, start
from tests.support.waits import HANG_S

PASSWORD = "of-the-tests"


@asynccontextmanager
async def connected(dsn: str) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(dsn)
    try:
        yield connection
    finally:
        await connection.close()


async def make_login(settings: Settings, user: str, role: str | None = None) -> Settings:
    """Creates `user` on every server with the rights of `role`, or none. Returns `settings` with it in every DSN.

    The DSNs of `settings` are those of a superuser.
    """
    for item in settings.shard_dsns:
        async with connected(item.dsn) as superuser:
            if not await superuser.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", user):
                await superuser.execute(f"CREATE ROLE {user} LOGIN")
            await superuser.execute(f"ALTER ROLE {user} PASSWORD '{PASSWORD}'")
            if role is not None:
                await superuser.execute(f"GRANT {role} TO {user}")
    return as_user(settings, user)


def as_user(settings: Settings, user: str, password: str = PASSWORD) -> Settings:
    listed = " ".join(f"{item.name}={dsn_as(item.dsn, user, password)}" for item in settings.shard_dsns)
    return settings.model_copy(update={"shards": SecretStr(listed)})


def dsn_as(dsn: str, user: str, password: str = PASSWORD) -> str:
    parts = urlsplit(dsn)
    return urlunsplit(parts._replace(netloc=f"{user}:{password}@{parts.netloc.rpartition('@')[2]}"))


@dataclass(frozen=True)
class Finished:
    """The result of a program: its exit code, and stdout and stderr together."""

    code: int
    text: str


async def run_program(settings: Settings, program: str, *words: str, **variables: str) -> Finished:
    """Runs `snapurl` or `snapurl-reshard` with these settings to its end."""
    module = {"snapurl": "snapurl", "snapurl-reshard": "tools.cli"}[program]
    process = await start(module, *words, env=environ_of(settings, **variables), stdout=PIPE, stderr=STDOUT)
    out, _ = await wait_for(process.communicate(), HANG_S)
    assert process.returncode is not None
    return Finished(process.returncode, out.decode())


def environ_of(settings: Settings, **variables: str) -> dict[str, str]:
    return {
        **{name: value for name, value in os.environ.items() if not name.startswith("SNAPURL_")},
        "PYTHONPATH": os.pathsep.join(sys.path),
        "SNAPURL_SHARDS": settings.shards.get_secret_value(),
        "SNAPURL_REDIS_URL": settings.redis_url.get_secret_value(),
        "SNAPURL_HOME": str(settings.home),
        **variables,
    }
