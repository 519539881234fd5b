"""The local cluster against other users of the machine, and against whoever can use the service's connection."""

from __future__ import annotations

import asyncio
import os
import shutil
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import asyncpg
import pytest
from pydantic import SecretStr

from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.local.access import LocalUser
from snapurl.local.binaries import find_postgres
from snapurl.local.cluster import LocalCluster
from snapurl.local.start_requests import serving_start_requests
from snapurl.local.system_user import as_system_user
from snapurl.store.cluster.bootstrap import ensure_cluster
from snapurl.store.cluster.migrate import migrate_all
from tests.support.deployed import ROOT
from tests.support.requirements import requires
from tests.support.roles import connected, run_program

STRANGER = 65_534  # nobody


@contextmanager
def being(uid: int) -> Iterator[None]:
    """Makes this process act as another user during the block."""
    groups, gid = os.getgroups(), os.getegid()
    os.setgroups([])
    os.setegid(STRANGER)
    os.seteuid(uid)
    try:
        yield
    finally:
        os.seteuid(0)
        os.setegid(gid)
        os.setgroups(groups)


@contextmanager
def a_directory_others_can_reach() -> Iterator[Path]:
    home = Path("/var/tmp") / f"snapurl-hostile-{os.getpid()}"
    home.mkdir(mode=0o700)
    try:
        yield home
    finally:
        shutil.rmtree(home)


def sockets_of(cluster: LocalCluster) -> list[str]:
    found = [str(path) for path in cluster.sockets.root.rglob("*") if path.is_socket()]
    assert len(found) == 3  # PostgreSQL, Redis, `up`
    return found


@requires("root")  # only root can be somebody else
@pytest.mark.parametrize("account", ["namespace", "system user"])
async def test_another_user_cannot_connect_to_any_socket(account: str) -> None:
    """No socket of a cluster lets another user in, whichever way its PostgreSQL runs, and it has no TCP port."""
    with a_directory_others_can_reach() as home:
        user = as_system_user(find_postgres().postgres, home) if account == "system user" else None
        async with LocalCluster(home, ("db0",), durable=False, account=user) as cluster:
            async with serving_start_requests(cluster):
                paths = sockets_of(cluster)
                stranger = STRANGER if user is None or user.uid != STRANGER else STRANGER - 1
                for path in paths:
                    with (
                        socket.socket(socket.AF_UNIX) as client,
                        being(stranger),
                        pytest.raises(PermissionError),
                    ):
                        client.connect(path)
            for server in cluster.servers():
                with socket.socket() as client, pytest.raises(ConnectionRefusedError):
                    client.connect(("127.0.0.1", server.port))


async def test_sockets_of_a_home_with_a_long_name_are_closed_too(tmp_path: Path) -> None:
    """If the home's name is too long for sockets, they are elsewhere, and only its user may enter there."""
    home = tmp_path / ("long" * 20)
    async with LocalCluster(home, ("db0",), durable=False) as cluster:
        root = cluster.sockets.root
        assert not root.is_relative_to(home)
        assert root.stat().st_mode & 0o077 == 0
        async with connected(cluster.dsns["db0"]) as connection:
            assert await connection.fetchval("SELECT 1") == 1
    assert not root.exists()


@requires("root")
async def test_a_directory_that_another_user_has_put_there_takes_no_sockets(tmp_path: Path) -> None:
    """Sockets are never made in a directory that another user has made under the name that was to be expected."""
    home = tmp_path / ("long" * 20)
    async with LocalCluster(home, ("db0",), durable=False) as cluster:
        expected = cluster.sockets.root
    expected.mkdir(mode=0o777)
    os.chown(expected, STRANGER, STRANGER)
    try:
        with suppress(ConfigError):
            async with LocalCluster(home, ("db0",), durable=False) as cluster:
                assert cluster.sockets.root != expected
        assert not list(expected.iterdir())
    finally:
        shutil.rmtree(expected)


@pytest.mark.parametrize("user", [LocalUser.SERVICE, LocalUser.MIGRATOR])
async def test_programs_of_a_local_cluster_are_no_superusers(tmp_path: Path, user: LocalUser) -> None:
    """The logins of the service and the migrator can run no program, read no file and change no schema."""
    async with LocalCluster(tmp_path, ("db0",), durable=False) as cluster:
        owner = load_settings(home=tmp_path, **cluster.settings(LocalUser.OWNER))
        await migrate_all(owner)
        await ensure_cluster(owner)
        settings = load_settings(**cluster.settings(user))
        async with connected(settings.shard_dsns[0].dsn) as connection:
            assert await connection.fetchval("SELECT count(*) FROM links") == 0
            for statement in (
                "COPY (SELECT 1) TO PROGRAM 'true'",
                "SELECT pg_read_file('/etc/passwd')",
                "CREATE TABLE mine (n int)",
                "DROP TABLE links",
                "ALTER SYSTEM SET fsync = off",
                f"SET ROLE {LocalUser.OWNER}",
                "UPDATE schema_migrations SET version = 0",
            ):
                with pytest.raises(asyncpg.InsufficientPrivilegeError):
                    await connection.execute(statement)


@pytest.mark.parametrize("loopback", [True, False])
async def test_no_command_connects_to_the_addresses_of_a_cluster_that_does_not_run(
    tmp_path: Path, loopback: bool
) -> None:
    """While the cluster does not run, commands say so, and a stranger at its addresses gets nothing."""
    async with LocalCluster(tmp_path, ("db0",), durable=False, loopback=loopback) as cluster:
        ports = [server.port for server in cluster.servers()] if loopback else [0]
    heard = 0

    async def stranger(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal heard
        heard += 1
        writer.close()

    listeners = [await asyncio.start_server(stranger, "127.0.0.1", port) for port in ports]
    try:
        for program, *words in (
            ("snapurl", "keys", "list"),
            ("snapurl", "migrate"),
            ("snapurl-reshard", "status"),
            ("snapurl-reshard", "add", "db1", "--yes"),
        ):
            said = await run_program(nothing_but_home(tmp_path), program, *words)
            assert said.code == 2 and said.text.count("\n") == 1, said
            assert f"the cluster in {tmp_path} is not running: start it with `snapurl up`" in said.text
    finally:
        for listener in listeners:
            listener.close()
    assert heard == 0


def nothing_but_home(home: Path) -> Settings:
    return load_settings(home=home, redis_url=SecretStr("redis://127.0.0.1:1/0"))


def foreign(home: Path) -> Path:
    os.chown(home, STRANGER, STRANGER)
    return home


def behind_a_foreign_link(home: Path) -> Path:
    link = home.with_name("link")
    link.symlink_to(home)
    os.chown(link, STRANGER, STRANGER, follow_symlinks=False)
    return link


def behind_two_links(home: Path) -> Path:
    foreign_link = behind_a_foreign_link(home)
    mine = home.with_name("mine")
    mine.symlink_to(foreign_link)
    return mine


def writable(home: Path) -> Path:
    home.chmod(0o777)
    return home


def writable_by_its_group(home: Path) -> Path:
    home.chmod(0o770)
    return home


@requires("root")
@pytest.mark.parametrize(
    ("make", "why"),
    [
        (foreign, "belongs to another user"),
        (behind_a_foreign_link, "is a symbolic link of another user"),
        (behind_two_links, "is a symbolic link of another user"),
        (writable, "other users can write to"),
        (writable_by_its_group, "other users can write to"),
    ],
)
async def test_a_directory_of_another_user_is_not_believed(tmp_path: Path, make: object, why: str) -> None:
    """A home and a secrets directory that others own or may write are refused in one line that says why."""
    assert callable(make)
    home = tmp_path / "home"
    async with LocalCluster(home, ("db0",), durable=False):
        pass
    given = make(home)
    with pytest.raises(ConfigError, match=why) as refusal:
        await LocalCluster(given, ("db0",), durable=False).start()
    assert "\n" not in str(refusal.value)
    for words in (("snapurl", "keys", "list"), ("snapurl-reshard", "status")):
        said = await run_program(nothing_but_home(given), *words)
        assert said.code == 2 and said.text.count("\n") == 1 and why in said.text, said

    (home / "snapurl_shards_password").write_text("from a stranger")
    said = await run_program(nothing_but_home(tmp_path), "snapurl", "openapi", SNAPURL_SECRETS_DIR=str(given))
    assert said.code == 2 and said.text.count("\n") == 1 and why in said.text, said


@requires("root")
async def test_root_writes_no_file_that_the_account_of_postgresql_points_at(tmp_path: Path) -> None:
    """If that account plants links where root writes for it, root writes and gives away nothing elsewhere."""
    with a_directory_others_can_reach() as home:
        account = as_system_user(find_postgres().postgres, home)
        async with LocalCluster(home, ("db0",), durable=False, account=account):
            pass
        precious = tmp_path / "precious"
        precious.write_text("kept")
        for name in ("server.log", "server.log.1", "pg_hba.conf", "pg_hba.conf.new"):
            (home / "db0" / name).unlink(missing_ok=True)
            (home / "db0" / name).symlink_to(precious)
        async with LocalCluster(home, ("db0",), durable=False, account=account):
            pass
        assert precious.read_text() == "kept"
        assert precious.stat().st_uid == os.geteuid()


# -- the script that makes the secrets of docker-compose.yml ------------------------------------------------------


def made_secrets(directory: Path) -> subprocess.CompletedProcess[str]:
    script = ROOT / "deploy/compose/make-secrets.sh"
    return subprocess.run(["sh", script], cwd=directory, capture_output=True, text=True, check=False)


def test_secrets_are_not_made_where_others_could_have_put_their_own(tmp_path: Path) -> None:
    """make-secrets.sh refuses a `secrets` that is a link or that others may write, in one line."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / "secrets").symlink_to(elsewhere)
    said = made_secrets(tmp_path)
    assert said.returncode == 1 and said.stderr.count("\n") == 1
    assert not list(elsewhere.iterdir())
    (tmp_path / "secrets").unlink()
    (tmp_path / "secrets").mkdir()
    (tmp_path / "secrets").chmod(0o777)
    said = made_secrets(tmp_path)
    assert said.returncode == 1 and "other users can write" in said.stderr
    assert not list((tmp_path / "secrets").iterdir())


def test_secrets_that_others_could_read_are_closed_and_said(tmp_path: Path) -> None:
    """make-secrets.sh closes a `secrets` that others could read, and says so; a second run says nothing."""
    (tmp_path / "secrets").mkdir(mode=0o755)
    said = made_secrets(tmp_path)
    assert said.returncode == 0 and "no longer can" in said.stderr
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700
    made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
    assert len(made) == 5 and all(len(text) == 48 for text in made.values())
    assert made_secrets(tmp_path).stderr == ""
    assert {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()} == made


def test_a_link_in_secrets_is_not_followed(tmp_path: Path) -> None:
    """make-secrets.sh writes to no file that a link in `secrets` leads to."""
    (tmp_path / "secrets").mkdir(mode=0o700)
    precious = tmp_path / "precious"
    precious.write_text("kept")
    (tmp_path / "secrets" / "owner_password.txt.new").symlink_to(precious)
    assert made_secrets(tmp_path).returncode == 0
    assert precious.read_text() == "kept"
    assert len((tmp_path / "secrets" / "owner_password.txt").read_text()) == 48
