"""One PostgreSQL server of the local cluster: its data directory, start and stop."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
from pathlib import Path

import asyncpg

from snapurl.errors import ConfigError
from snapurl.local.binaries import PostgresBinaries
from snapurl.local.free_ports import HOST, free_port, is_free
from snapurl.local.process import ServerProcess, command_of, exists, server_environment, stop_stale
from snapurl.local.system_user import SystemUser

USER = "snapurl"
DATABASE = "snapurl"

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
    "listen_addresses": HOST,
    "unix_socket_directories": "",  # in a long home the socket's path would be too long
    "max_connections": "200",
    "shared_buffers": "64MB",
    "max_wal_size": "512MB",
    "max_locks_per_transaction": "256",  # a hand-off of many slots holds one advisory lock each
    "max_prepared_transactions": "0",  # a forgotten one would hold a fence forever
    "timezone": "UTC",
    "log_timezone": "UTC",
    "log_checkpoints": "off",
}
_NOT_DURABLE = {
    "fsync": "off",
    "full_page_writes": "off",
}  # kill -9 still loses nothing; a power failure would


class PostgresServer:
    """The server of one shard under `directory`. It may be started and stopped any number of times."""

    def __init__(
        self,
        name: str,
        directory: Path,
        *,
        binaries: PostgresBinaries,
        account: SystemUser,
        password: str,
        port: int,
        durable: bool = True,
    ) -> None:
        self.name = name
        self.port = port
        self.binaries = binaries
        self._directory = directory
        self._data = directory / "data"
        self._account = account
        self._password = password
        self._durable = durable
        self._process = ServerProcess(f"PostgreSQL {name}", directory / "server.log")

    @property
    def pid(self) -> int | None:
        """The postmaster's process id while it runs."""
        return self._process.pid

    def dsn(self, database: str = DATABASE) -> str:
        return postgres_dsn(self._password, self.port, database)

    async def start(self) -> None:
        """Creates the data directory if needed, starts the server, and waits until it answers.

        Keeps its port if it is free, else takes another. Raises ConfigError of one line.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._account.own(self._directory)
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
        secret = self._directory / "password.new"
        shutil.rmtree(draft, ignore_errors=True)
        secret.touch(mode=0o600)
        secret.write_text(self._password)
        self._account.own(secret)
        try:
            await self._initdb(draft, secret)
        finally:
            secret.unlink()
        draft.rename(self._data)

    async def _initdb(self, draft: Path, secret: Path) -> None:
        options = ["--encoding=UTF8", "--locale=C", "--auth=scram-sha-256", "--data-checksums"]
        initdb = await asyncio.create_subprocess_exec(
            *self._account.prefix,
            self.binaries.initdb,
            *(f"--pgdata={draft}", f"--username={USER}", f"--pwfile={secret}"),
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
            if not is_free(self.port):
                self.port = free_port({self.port})
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
        settings = _SETTINGS if self._durable else {**_SETTINGS, **_NOT_DURABLE}
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


def postgres_dsn(password: str, port: int, database: str = DATABASE) -> str:
    return f"postgresql://{USER}:{password}@{HOST}:{port}/{database}"


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
