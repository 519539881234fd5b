"""deploy/aws/owner.py on real PostgreSQL, as an owner without superuser rights, which RDS does not grant."""

from __future__ import annotations

import asyncio
import importlib.util
import os
import re
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from types import ModuleType
from typing import Any

import asyncpg
import pytest

from snapurl.config import Settings
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.deploy.templates import AWS
from tests.support.roles import as_user, connected, dsn_as
from tests.support.waits import HANG_S

OWNER = "aws_owner"
ROLES = ("snapurl_service", "snapurl_migrator")
USERS = ("aws_api_a", "aws_api_b", "aws_resharder_a")
GIVEN = {
    "SERVICE_USER": "aws_api_a",
    "SERVICE_PASSWORD": "of-the-service",
    "MIGRATOR_USER": "aws_resharder_a",
    "MIGRATOR_PASSWORD": "of-the-migrator",
}


def load() -> ModuleType:
    spec = importlib.util.spec_from_file_location("owner_of_aws", AWS / "owner.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


program: Any = load()


@pytest.fixture
async def owner(settings: Settings) -> AsyncIterator[Settings]:
    """Provides settings of an owner with CREATEROLE on migrated shards, and drops all its users at the end."""
    for item in settings.shard_dsns:
        async with connected(item.dsn) as superuser:
            await superuser.execute(f"CREATE ROLE {OWNER} LOGIN CREATEROLE PASSWORD 'of-the-tests'")
            await superuser.execute(f'ALTER DATABASE "{item.dsn.rpartition("/")[2]}" OWNER TO {OWNER}')
            await superuser.execute(f"ALTER SCHEMA public OWNER TO {OWNER}")
            for role in ROLES:  # other tests have created them already; on RDS the owner does
                if await superuser.fetchval("SELECT count(*) FROM pg_roles WHERE rolname = $1", role):
                    await superuser.execute(f"GRANT {role} TO {OWNER} WITH ADMIN OPTION")
    mine = as_user(settings, OWNER)
    await migrate_all(mine)
    await ensure_cluster(mine)
    yield mine
    for item in settings.shard_dsns:
        async with connected(item.dsn) as superuser:
            for user in USERS:
                await superuser.execute(f"DROP ROLE IF EXISTS {user}")
            await superuser.execute(f"REASSIGN OWNED BY {OWNER} TO CURRENT_USER")
            await superuser.execute(f"DROP OWNED BY {OWNER}")
            await superuser.execute(f"DROP ROLE {OWNER}")


async def may_log_in(settings: Settings, user: str, password: str) -> bool:
    """Whether the user can log in on all shards. Fails if the shards differ."""
    found = set()
    for item in settings.shard_dsns:
        try:
            async with connected(dsn_as(item.dsn, user, password)) as connection:
                await connection.fetchval("SELECT count(*) FROM links")
            found.add(True)
        except (asyncpg.InvalidPasswordError, asyncpg.InvalidAuthorizationSpecificationError):
            found.add(False)
    (answer,) = found
    return answer


async def test_users_log_in_with_the_rights_of_their_roles(settings: Settings, owner: Settings) -> None:
    """Each user gets its password and one role on every shard; a second run changes nothing."""
    for _ in range(2):
        await program.make_users(owner, GIVEN)
        assert await may_log_in(settings, "aws_api_a", "of-the-service")
        assert await may_log_in(settings, "aws_resharder_a", "of-the-migrator")
        assert not await may_log_in(settings, "aws_api_a", "of-the-migrator")
    for item in settings.shard_dsns:
        async with connected(item.dsn) as superuser:
            for user, roles in (("aws_api_a", [ROLES[0]]), ("aws_resharder_a", [ROLES[1]])):
                found = await superuser.fetch(
                    "SELECT roleid::regrole::text AS role FROM pg_auth_members WHERE member::regrole::text = $1",
                    user,
                )
                assert [row["role"] for row in found] == roles


async def test_a_password_changes_without_an_interruption(settings: Settings, owner: Settings) -> None:
    """The second user gets the new password while the first keeps the old one; then the first is locked out."""
    await program.make_users(owner, GIVEN)
    turned = GIVEN | {"SERVICE_USER": "aws_api_b", "SERVICE_PASSWORD": "the-new-one"}
    await program.make_users(owner, turned)
    assert await may_log_in(settings, "aws_api_a", "of-the-service")
    assert await may_log_in(settings, "aws_api_b", "the-new-one")
    await program.make_users(owner, turned | {"RETIRED_USERS": "aws_api_a nobody_of_this_name"})
    assert not await may_log_in(settings, "aws_api_a", "of-the-service")
    assert await may_log_in(settings, "aws_api_b", "the-new-one")
    await program.make_users(owner, GIVEN | {"SERVICE_PASSWORD": "the-third-one"})
    assert await may_log_in(settings, "aws_api_a", "the-third-one")


async def test_no_shard_is_told_a_password(owner: Settings) -> None:
    """A shard receives, and may log, only the SCRAM verifier that PostgreSQL stores, never the password."""
    told: list[str] = []

    class Listening(asyncpg.Connection):
        async def execute(self, query: str, *args: object, **how: Any) -> str:
            told.append(query)
            return str(await super().execute(query, *args, **how))

        async def fetchval(self, query: str, *args: object, **how: Any) -> Any:
            told.extend(map(str, args))
            return await super().fetchval(query, *args, **how)

    made, retired = program.wanted(GIVEN)
    connection = await asyncpg.connect(owner.shard_dsns[0].dsn, connection_class=Listening)
    try:
        await program.prepare(connection, made, retired)
    finally:
        await connection.close()
    assert any("SCRAM-SHA-256$4096:" in text for text in told)
    assert not [text for text in told if "of-the-service" in text or "of-the-migrator" in text]


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"SERVICE_PASSWORD": ""}, "SERVICE_USER and SERVICE_PASSWORD have to be set"),
        ({"MIGRATOR_USER": ""}, "MIGRATOR_USER and MIGRATOR_PASSWORD have to be set"),
        ({"MIGRATOR_PASSWORD": "grün"}, "MIGRATOR_PASSWORD has a character that is not ASCII: make another"),
        ({"RETIRED_USERS": "aws_api_b aws_api_a"}, "aws_api_a is in use: it cannot be retired"),
    ],
)
def test_what_cannot_be_done_is_refused(change: dict[str, str], line: str) -> None:
    """An invalid request is refused in one line without a password, before any shard is queried."""
    with pytest.raises(program.Refused) as caught:
        program.wanted(GIVEN | change)
    assert str(caught.value) == line


async def test_a_refusal_is_one_line(owner: Settings, tmp_path: Path) -> None:
    """With a wrong password the program prints one line without a stack trace or secret, and exits with 1."""
    wrong = as_user(owner, OWNER, "a-wrong-one")
    environ = {
        **os.environ,
        **GIVEN,
        "SNAPURL_SHARDS": wrong.shards.get_secret_value(),
        "PYTHONPATH": str(Path.cwd()),
    }
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        str(AWS / "owner.py"),
        env=environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, said = await asyncio.wait_for(process.communicate(), HANG_S)
    assert (process.returncode, out) == (1, b"")
    assert said.decode() == "owner: shard db0 refuses the user or password of its DSN\n"


async def test_a_statement_runs_on_one_shard(owner: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    """A statement prints its rows and PostgreSQL's status; an error is one line."""
    await program.run_sql(owner, "db1", "SELECT shard, state FROM cluster")
    await program.run_sql(owner, "db1", "DELETE FROM peer_logs WHERE shard = 'db0'")
    first, said, deleted = capsys.readouterr().out.splitlines()
    assert (first, said) == ("db1 | ready", "SELECT 1")
    assert re.fullmatch(r"DELETE [01]", deleted)
    for shard, statement, line in (
        ("db9", "SELECT 1", "there is no shard db9"),
        ("db1", "SELEC", 'shard db1: syntax error at or near "SELEC"'),
    ):
        with pytest.raises(program.Refused) as caught:
            await program.run_sql(owner, shard, statement)
        assert str(caught.value) == line
