"""The programs on the hosts: servers under the project's launcher, and the project's own programs."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks.programs import Program, running
from snapurl.config import Settings, load_settings
from snapurl.local.access import DATABASE, LocalUser, LoopbackAccess
from snapurl.local.binaries import find_postgres, find_redis
from snapurl.local.postgres_server import _NOT_DURABLE, _SETTINGS, PostgresServer
from snapurl.local.redis_server import RedisServer
from snapurl.local.system_user import SystemUser, choose_system_user
from tests.drills.hosts.network import NETWORK, Host, Network, network
from tests.faults.pair import shard_list

PASSWORD = "of-the-tests"
API_HOSTS = ("api0", "api1")
SHARD_HOSTS = ("db0", "db1", "db2", "db3", "db4")
FIRST = SHARD_HOSTS[:4]
REDIS_HOST = "redis"
MIGRATOR_HOST = "migrator"
HTTP_PORT = 8000
POSTGRES_PORT = 5432
REDIS_PORT = 6379


class HostedPostgres(PostgresServer):
    """A shard's server on a separate host, on the default port."""

    def __init__(self, host: Host, directory: Path, account: SystemUser) -> None:
        self._host = host
        super().__init__(
            host.name,
            directory,
            binaries=find_postgres(),
            account=replace(account, prefix=(*host.prefix, *account.prefix)),
            access=LoopbackAccess(PASSWORD),
            port=POSTGRES_PORT,
            durable=False,
        )

    def dsn(self, database: str = DATABASE, user: str = LocalUser.OWNER) -> str:
        return f"postgresql://{user}:{PASSWORD}@{self._host.address}:{self.port}/{database}"

    async def _make_data(self) -> None:
        await super()._make_data()
        with (self._data / "pg_hba.conf").open("a") as rules:
            rules.write(f"host all all {NETWORK}0/24 scram-sha-256\n")

    def _spawn(self) -> None:
        settings = {
            **_SETTINGS,
            **self._access.postgres_settings(),
            **_NOT_DURABLE,
            "listen_addresses": self._host.address,
        }
        words = (word for key, value in settings.items() for word in ("-c", f"{key}={value}"))
        self._process.spawn(
            [self.binaries.postgres, "-D", self._data, "-p", str(self.port), *words],
            cwd=self._directory,
            account=self._account,
            end_signal=2,
        )


class HostedRedis(RedisServer):
    """The Redis on a separate host, on the default port."""

    def __init__(self, host: Host, directory: Path) -> None:
        self._host = host
        access = LoopbackAccess(PASSWORD)
        super().__init__(directory, binary=find_redis(), access=access, port=REDIS_PORT, durable=False)

    def url(self, database: int = 0) -> str:
        return f"redis://:{PASSWORD}@{self._host.address}:{self.port}/{database}"

    def _config(self) -> str:
        return f"{super()._config()}bind {self._host.address}\n"

    def _spawn(self) -> None:
        config = self._directory / "redis.conf"
        config.write_text(self._config())
        account = SystemUser(prefix=self._host.prefix)
        self._process.spawn([self.binary.server, config], cwd=self._directory, account=account, end_signal=15)


@dataclass
class Machines:
    """The hosts with their servers. `settings` name the first four shards, like all programs' settings at first."""

    net: Network
    directory: Path
    shards: dict[str, HostedPostgres]
    redis: HostedRedis
    settings: Settings
    programs: dict[str, Program] = field(default_factory=dict)

    def url(self, api: str) -> str:
        return f"http://{self.net.hosts[api].address}:{HTTP_PORT}"

    @asynccontextmanager
    async def program(self, host: str, name: str, *words: str, **variables: str) -> AsyncIterator[Program]:
        """Runs one of the project's programs on a host, and stops it at the end."""
        argv = (*self.net.hosts[host].prefix, sys.executable, *words)
        log = self.directory / f"{name}.log"
        async with running(name, argv, log, environ=self._environ(variables)) as program:
            self.programs[name] = program
            yield program

    async def reshard(self, *words: str, timeout_s: float = 30.0) -> tuple[int, str]:
        """Returns the exit code and output of a `snapurl-reshard` command on the migrator's host."""
        process = await asyncio.create_subprocess_exec(
            *self.net.hosts[MIGRATOR_HOST].prefix,
            *(sys.executable, "-m", "tools.cli", *words),
            env=self._environ({}),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        async with asyncio.timeout(timeout_s):
            output, _ = await process.communicate()
        assert process.returncode is not None
        return process.returncode, output.decode().strip()

    def _environ(self, variables: Mapping[str, str]) -> dict[str, str]:
        return {
            **{name: value for name, value in os.environ.items() if not name.startswith("SNAPURL_")},
            "SNAPURL_SHARDS": self.settings.shards.get_secret_value(),
            "SNAPURL_REDIS_URL": self.settings.redis_url.get_secret_value(),
            "SNAPURL_WORKERS": "1",
            "SNAPURL_ANONYMOUS_CREATION": "true",
            "SNAPURL_LIMIT_CREATE": "none",
            "SNAPURL_LIMIT_MISSING": "none",
            **variables,
        }


@asynccontextmanager
async def machines(directory: Path, seed: int) -> AsyncIterator[Machines]:
    """Yields the hosts (two API, five shards, Redis, migrator) with PostgreSQL and Redis running."""
    async with AsyncExitStack() as stack:
        names = (*API_HOSTS, *SHARD_HOSTS, REDIS_HOST, MIGRATOR_HOST)
        net = await stack.enter_async_context(network(names, seed))
        account = choose_system_user(find_postgres().postgres, directory)
        shards = {name: HostedPostgres(net.hosts[name], directory / name, account) for name in SHARD_HOSTS}
        redis = HostedRedis(net.hosts[REDIS_HOST], directory / REDIS_HOST)
        servers: list[HostedPostgres | HostedRedis] = [*shards.values(), redis]
        for server in servers:
            stack.push_async_callback(server.kill)
        await asyncio.gather(*(server.start() for server in servers))
        listed = shard_list({name: shards[name].dsn() for name in FIRST})
        settings = load_settings(shards=listed, redis_url=redis.url(), home=directory)
        yield Machines(net, directory, shards, redis, settings)
