"""A primary with a streaming standby that is promoted on demand, and data directories that can be restored."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from pathlib import Path

import asyncpg

from snapurl.local.access import DATABASE, LocalUser, LoopbackAccess
from snapurl.local.binaries import PostgresBinaries, find_postgres
from snapurl.local.free_ports import free_port
from snapurl.local.postgres_server import PostgresServer
from snapurl.local.system_user import SystemUser, choose_system_user
from tests.support.requirements import skip_without
from tests.support.waits import until

PASSWORD = "of-the-tests"


class Server(PostgresServer):
    """A server of the project's launcher. A standby copies its data from `follows`, any other from `template`."""

    follows: Server | None = None
    template: Path | None = None

    @property
    def data(self) -> Path:
        return self._data

    async def _make_data(self) -> None:
        if self.template is not None and self.follows is None:
            copy_data(self.template, self._data)
            return
        if self.follows is None:
            await super()._make_data()
            return
        program = self.binaries.postgres.resolve().with_name("pg_basebackup")
        if not program.exists():
            skip_without("pg_basebackup", f"beside {self.binaries.postgres}")
        options = ("-R", "-X", "stream", "-c", "fast", "--no-sync")
        await run(self._account, program, "-D", self._data, "-d", self.follows.dsn("postgres"), *options)

    async def _make_database(self) -> None:
        if self.follows is None:
            await super()._make_database()

    async def ask(self, query: str, database: str = DATABASE) -> object:
        """Returns one value, or the status of a statement, from this server over a plain connection."""
        connection = await asyncpg.connect(self.dsn(database))
        try:
            return await connection.fetchval(query)
        finally:
            await connection.close()

    async def until_true(self, question: str) -> None:
        """Waits until a query on the server returns true."""
        await until(lambda: self.ask(question, "postgres"))


async def run(account: SystemUser, *words: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *account.prefix,
        *words,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        **account.popen_options(),
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()


class Machine:
    """The servers of one test, by name, and their standbys. `template` is the initial data directory."""

    def __init__(self, home: Path, template: Path | None = None) -> None:
        self._home = home
        self._template = template
        self._binaries: PostgresBinaries = find_postgres()
        self._account = choose_system_user(self._binaries.postgres, home)
        self._servers: list[Server] = []

    def server(self, name: str) -> Server:
        made = Server(
            name,
            self._home / name,
            binaries=self._binaries,
            account=self._account,
            access=LoopbackAccess(PASSWORD),
            port=free_port({server.port for server in self._servers}),
            durable=False,
        )
        made.template = self._template
        self._servers.append(made)
        return made

    async def standby_of(self, primary: Server, *, synchronous: bool) -> Server:
        """Returns a standby that streams from `primary`; if synchronous, every commit waits for it."""
        number = len(self._servers)
        standby = self.server(f"standby{number}")
        standby.follows = primary
        await standby.start()
        if synchronous:
            # Not earlier: the copy would contain the setting, and the standby would wait for a standby.
            await primary.ask("ALTER SYSTEM SET synchronous_standby_names = '*'", "postgres")
            await primary.ask("SELECT pg_reload_conf()", "postgres")
            await primary.until_true("SELECT count(*) = 1 FROM pg_stat_replication WHERE sync_state = 'sync'")
        return standby

    async def stop(self) -> None:
        await asyncio.gather(*(server.kill() for server in self._servers))


async def promote(standby: Server) -> None:
    await standby.ask("SELECT pg_promote()", "postgres")


async def cut_stream(standby: Server) -> None:
    """Stops replication to the standby: later writes are those that an asynchronous standby would lose."""
    await standby.ask("ALTER SYSTEM SET primary_conninfo = ''", "postgres")
    await standby.ask("SELECT pg_reload_conf()", "postgres")
    await standby.until_true("SELECT count(*) = 0 FROM pg_stat_wal_receiver")


def copy_data(source: Path, target: Path) -> None:
    """Copies a data directory and keeps its owner."""
    subprocess.run(["cp", "-a", source, target], check=True)


def save(server: Server) -> Path:
    """Copies the data of a stopped server. Returns the copy."""
    copy = server.data.with_name("saved")
    shutil.rmtree(copy, ignore_errors=True)
    copy_data(server.data, copy)
    return copy


def put_back(server: Server, copy: Path) -> None:
    """Restores the data of a stopped server from a copy."""
    shutil.rmtree(server.data)
    copy_data(copy, server.data)


def all_hosts(*servers: Server, user: str = LocalUser.OWNER) -> str:
    """Returns one DSN that names all servers."""
    hosts = ",".join(f"127.0.0.1:{server.port}" for server in servers)
    return f"postgresql://{user}:{PASSWORD}@{hosts}/{DATABASE}"
