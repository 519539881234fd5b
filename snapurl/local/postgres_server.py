"""One PostgreSQL server of the local cluster: its data directory, start and stop."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import asyncpg

from snapurl.errors import ConfigError
from snapurl.local.access import DATABASE, Access, LocalUser, LoopbackAccess, SocketAccess
from snapurl.local.binaries import PostgresBinaries
from snapurl.local.process import ServerProcess, command_of, exists, server_environment, stop_stale
from snapurl.local.system_user import SystemUser
from snapurl.private_files import write_private

START_ATTEMPTS_MAX = 5
READY_PATIENCE_S = 120.0
"""Long, because a server that was killed replays its WAL first."""

STOP_STEPS = ((signal.SIGINT, 2.5), (signal.SIGQUIT, 1.0), (signal.SIGKILL, 2.0))
"""Fast shutdown (roll back, checkpoint, exit), then immediate shutdown, which costs a WAL replay at the next
start."""

_CONNECT_TIMEOUT_S = 10.0
_STATUS_LINE = 7  # of postmaster.pid: "starting", "ready", …

# A small machine runs four of these at once.
_SETTINGS = {
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "max_locks_per_transaction": "256",  # a hand-off of many slots holds one advisory lock each
    "max_prepared_transactions": "0",  # a forgotten one would hold a fence forever
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
    "wal_writer_delay": "1s",  # the lease of the migrator keeps it awake, and may be lost
    "jit": "off",  # compiling takes longer than any statement here runs
}
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
}  # kill -9 still loses nothing; a power failure would

# With sockets, instead of the data's own rules: those of an older release ask for a password.
_RULES = "local all all trust\n"
_LOGINS = f"""
DO $$
BEGIN
    IF to_regrole('{LocalUser.SERVICE}') IS NULL OR to_regrole('{LocalUser.MIGRATOR}') IS NULL THEN
        IF to_regrole('snapurl_service') IS NULL THEN CREATE ROLE snapurl_service; END IF;
        IF to_regrole('snapurl_migrator') IS NULL THEN CREATE ROLE snapurl_migrator; END IF;
        CREATE ROLE {LocalUser.SERVICE} LOGIN IN ROLE snapurl_service;
        CREATE ROLE {LocalUser.MIGRATOR} LOGIN IN ROLE snapurl_migrator;
    END IF;
END $$"""


class PostgresServer:
    """The server of one shard under `directory`. It may be started and stopped any number of times."""

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        binaries: PostgresBinaries,
        account: SystemUser,
        access: Access,
        port: int,
        durable: bool = True,
    ) -> None:
        self.name = name
        self.port = port
        self.binaries = binaries
        self._directory = directory
        self._data = directory / "data"
        self._account = account
        self._access = access
        self._durable = durable
        self._process = ServerProcess(f"PostgreSQL {name}", directory / "server.log")

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the server ended by itself, -N by signal N."""
        return self._process.exit_code

    @property
    def title(self) -> str:
        """What people call it."""
        return self._process.name

    def dsn(self, database: str = DATABASE, user: str = LocalUser.OWNER) -> str:
        return self._access.dsn(self.port, database, user)

    async def start(self) -> None:
        """Creates the data directory if needed, starts the server, and waits until it answers.

        Keeps its port if it can be used, else takes another. Raises ConfigError of one line.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._account.own(self._directory)
            await self._start()
        except OSError as error:
            where = error.filename or self._directory
            raise ConfigError(f"PostgreSQL {self.name} cannot start: {where}: {error.strerror}") from None

    async def _start(self) -> None:
        check_version(self._data, self.binaries)
        await self._stop_stale()
        if not self._data.exists():
            await self._make_data()
        await self._run()
        await self._make_database()

    async def stop(self) -> None:
        """Stops the server within 6 s, by SIGKILL if it must."""
        await self._process.end(STOP_STEPS)

    async def kill(self) -> None:
        """Kills the server, like a crash."""
        await self._process.end(((signal.SIGKILL, 5.0),))

    async def _make_data(self) -> None:
        """Runs initdb in another directory and renames it, so that an incomplete one is never used."""
        draft = self._directory / "data.new"
        shutil.rmtree(draft, ignore_errors=True)
        if isinstance(self._access, LoopbackAccess):
            secret = self._directory / "password"
            write_private(secret, self._access.password, self._account.ids)
            try:
                await self._initdb(draft, "--auth=scram-sha-256", f"--pwfile={secret}")
            finally:
                secret.unlink()
        else:
            await self._initdb(draft, "--auth=reject")  # `_RULES` count
        draft.rename(self._data)

    async def _initdb(self, draft: Path, *login: str) -> None:
        options = [*login, "--encoding=UTF8", "--locale=C", "--data-checksums"]
        initdb = await asyncio.create_subprocess_exec(
            *self._account.prefix,
            self.binaries.initdb,
            *(f"--pgdata={draft}", f"--username={LocalUser.OWNER}"),
            *(options if self._durable else [*options, "--no-sync"]),
            cwd=self._directory,
            env=server_environment(),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
            **self._account.popen_options(),
        )
        try:
            output, _ = await initdb.communicate()
        except asyncio.CancelledError:
            os.killpg(initdb.pid, signal.SIGKILL)
            await initdb.wait()
            raise
        if initdb.returncode != 0:
            lines = output.decode(errors="replace").strip().splitlines()
            errors = [line for line in lines if "error" in line] or lines or ["no message"]
            raise ConfigError(f"PostgreSQL {self.name}: initdb failed: {errors[0]}")

    async def _run(self) -> None:
        for _ in range(START_ATTEMPTS_MAX):
            self.port = self._access.port(set(), self.port)
            self._spawn()
            if await self._process.wait_ready(self._is_ready, READY_PATIENCE_S):
                return
            tail = self._process.log_tail()
            if "pre-existing shared memory" in tail:  # backends of a killed server have not exited yet
                await asyncio.sleep(0.5)
            elif "Address already in use" not in tail:
                break
        raise ConfigError(f"PostgreSQL {self.name} did not start: {self._process.why_ended()}")

    def _spawn(self) -> None:
        settings = {
            **_SETTINGS,
            **self._access.postgres_settings(),
            **({} if self._durable else _NOT_DURABLE),
        }
        if isinstance(self._access, SocketAccess):
            rules = self._directory / "pg_hba.conf"
            write_private(rules, _RULES, self._account.ids)
            settings["hba_file"] = str(rules)
        self._process.spawn(
            [
                *(self.binaries.postgres, "-D", self._data, "-p", str(self.port)),
                *(word for key, value in settings.items() for word in ("-c", f"{key}={value}")),
            ],
            cwd=self._directory,
            account=self._account,
            end_signal=signal.SIGINT,
        )

    async def _is_ready(self) -> bool:
        lines = self._pid_file()
        return (
            len(lines) > _STATUS_LINE
            and lines[0] == str(self._process.pid)
            and lines[_STATUS_LINE].strip() == "ready"
        )

    def _pid_file(self) -> list[str]:
        try:
            return (self._data / "postmaster.pid").read_text().splitlines()
        except FileNotFoundError:
            return []

    async def _make_database(self) -> None:
        connection = await asyncpg.connect(self.dsn("postgres"), timeout=_CONNECT_TIMEOUT_S)
        try:
            if isinstance(self._access, SocketAccess):
                await connection.execute(_LOGINS)
            await connection.execute(f"CREATE DATABASE {DATABASE}")
        except asyncpg.DuplicateDatabaseError:
            pass
        finally:
            await connection.close()

    async def _stop_stale(self) -> None:
        """Stops a server that a killed run left behind, or removes its PID file if another process has that PID.

        If no process has the PID, PostgreSQL handles the file itself; it also checks for orphaned backends.
        """
        lines = self._pid_file()
        pid = int(lines[0]) if lines and lines[0].isdigit() else 0
        if not pid or not exists(pid):
            return
        if str(self._data) in command_of(pid):
            await stop_stale(pid, STOP_STEPS)
        else:
            (self._data / "postmaster.pid").unlink()


def data_major(data: Path) -> int | None:
    """Returns the major version of a data directory; None if the directory does not exist."""
    try:
        text = (data / "PG_VERSION").read_text().strip()
    except (FileNotFoundError, NotADirectoryError):
        if data.exists():
            raise ConfigError(f"{data} is not a PostgreSQL data directory: move it away") from None
        return None
    return int(text) if text.isdigit() else 0


def check_version(data: Path, binaries: PostgresBinaries) -> None:
    """Raises ConfigError if `data` belongs to another version of PostgreSQL."""
    major = data_major(data)
    if major not in (None, binaries.major):
        raise ConfigError(
            f"{data} was made by PostgreSQL {major} and {binaries.postgres} is {binaries.major}: "
            f"put `postgres` {major} on PATH, or move the directory away"
        )
