"""Passwords from files for PostgreSQL and Redis, for configured and for added shards."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest
from pydantic import SecretStr
from redis.asyncio import Redis

from snapurl.config import Settings
from snapurl.redis_client import redis_client
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from snapurl.store.cluster.shards import Shards
from tests.integration.tools.conftest import fifth, ready, settle
from tests.support.roles import connected, run_program

__all__ = ["fifth", "ready"]

ODD = "p@ss:w/o%rd#?&+= ü'\"\\ end"
OTHER = "n0body-may-see-this"


@pytest.fixture
async def without(ready: Settings, tmp_path: Path) -> AsyncIterator[Settings]:
    """Yields settings whose addresses have the user `odd` and no password; both servers require ODD."""
    quoted = ODD.replace("'", "''").replace("\\", "\\\\")
    for item in ready.shard_dsns:
        async with connected(item.dsn) as superuser:
            if not await superuser.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = 'odd'"):
                await superuser.execute("CREATE ROLE odd LOGIN SUPERUSER")
            await superuser.execute(f"ALTER ROLE odd PASSWORD E'{quoted}'")
    url = ready.redis_url.get_secret_value()
    async with Redis.from_url(url) as redis:
        await redis.acl_setuser(
            "odd",
            enabled=True,
            reset=True,
            passwords=[f"+{ODD}"],
            keys=["*"],
            channels=["*"],
            categories=["+@all"],
        )
    listed = " ".join(f"{item.name}={address(item.dsn, 'odd')}" for item in ready.shard_dsns)
    directory = tmp_path / "secrets"
    directory.mkdir()
    yield ready.model_copy(
        update={
            "shards": SecretStr(listed),
            "redis_url": SecretStr(address(url, "odd")),
            "secrets_dir": directory,
        }
    )
    async with Redis.from_url(url) as redis:
        await redis.acl_deluser("odd")


def address(url: str, user: str = "") -> str:
    """Returns a URL with another user and without a password."""
    parts = urlsplit(url)
    return parts._replace(netloc=(f"{user}@" if user else "") + parts.netloc.rpartition("@")[2]).geturl()


def write(settings: Settings, password: str) -> dict[str, str]:
    """Writes both passwords into files, and returns the variable that tells programs where they are."""
    for name in ("shards", "redis"):
        (settings.secrets_dir / f"snapurl_{name}_password").write_text(f"{password}\n")
    return {"SNAPURL_SECRETS_DIR": str(settings.secrets_dir)}


async def test_programs_log_in_with_passwords_from_files(without: Settings) -> None:
    """Programs log in to all shards and Redis with passwords of any characters from files or variables."""
    secrets = write(without, ODD)
    for given in (secrets, {"SNAPURL_SHARDS_PASSWORD": ODD, "SNAPURL_REDIS_PASSWORD": ODD}):
        for words in (("migrate",), ("keys", "create", "me")):
            said = await run_program(without, "snapurl", *words, **given)
            assert said.code == 0, said
        said = await run_program(without, "snapurl", "health", "--clicks", **given)
        assert said.text.startswith("no click consumer "), said
        said = await run_program(without, "snapurl-reshard", "doctor", **given)
        assert said.code == 0, said


async def test_a_wrong_password_in_a_file_is_told_in_one_line(without: Settings) -> None:
    """A wrong or missing password is a one-line error that names the server and does not show the password."""
    for given in (write(without, OTHER), {}):
        for words, line in (
            (("snapurl", "migrate"), "snapurl: shard db0 refuses the user or password of its DSN\n"),
            (("snapurl", "health", "--clicks"), "Redis refuses the password of its URL\n"),
        ):
            said = await run_program(without, *words, **given)
            assert said.code in (1, 2) and said.text == line, (words, said)


async def test_an_empty_file_and_an_unknown_variable_end_every_program(without: Settings) -> None:
    """An empty password file or an unknown variable ends every program with exit code 2 and one line."""
    empty = write(without, "")
    for program, words in (
        ("snapurl", ("serve",)),
        ("snapurl", ("clicks",)),
        ("snapurl", ("migrate",)),
        ("snapurl-reshard", ("run",)),
    ):
        said = await run_program(without, program, *words, **empty)
        assert said.code == 2 and said.text.count("\n") == 1, said
        assert f"{without.secrets_dir}/snapurl_shards_password is empty" in said.text
        said = await run_program(without, program, *words, SNAPURL_POOL_CONECTIONS="3")
        assert said.code == 2 and said.text.count("\n") == 1, said
        assert "SNAPURL_POOL_CONECTIONS is not a setting: did you mean SNAPURL_POOL_CONNECTIONS?" in said.text


@pytest.mark.parametrize("user", ["", "odd"])
async def test_a_shard_is_added_by_its_address_alone(without: Settings, fifth: str, user: str) -> None:
    """A shard added by an address without a password is reached by a migrator and a service that find it only in
    the topology."""
    secrets = write(without, ODD)
    added = await run_program(
        without, "snapurl-reshard", "add", "db4", "--dsn", address(fifth, user), "--yes", **secrets
    )
    assert added.code == 0, added
    assert ODD not in added.text and "list of processes" not in added.text
    known = without.model_copy(update={"shards_password": SecretStr(ODD), "redis_password": SecretStr(ODD)})
    await settle(known)
    shards = await Shards.connect(known)
    try:
        assert shards.topology.shard("db4").address == address(fifth).removeprefix("postgresql://")
        assert all(health.ok for health in await shards.health())
        assert await shards.pool("db4").fetch("SELECT 1 FROM slots WHERE state = 'owned' LIMIT 1")
    finally:
        await shards.close()


async def test_a_password_in_an_address_stays(without: Settings, ready: Settings) -> None:
    """A password in a shard's address takes precedence over SNAPURL_SHARDS_PASSWORD."""
    mixed = ready.model_copy(update={"shards_password": SecretStr(OTHER), "redis_password": SecretStr(OTHER)})
    await migrate_all(mixed)
    await ensure_cluster(mixed)
    async with redis_client(mixed, 5.0) as client:
        assert await client.ping()
