"""The Redis of the local cluster: append-only, without eviction."""

from __future__ import annotations

import signal
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.errors import ConfigError
from snapurl.local.access import Access
from snapurl.local.binaries import RedisBinary, RedisVersion
from snapurl.local.process import ServerProcess, command_of, is_running, stop_stale
from snapurl.local.system_user import SystemUser
from snapurl.private_files import write_private

START_ATTEMPTS_MAX = 5
READY_PATIENCE_S = 60.0
STOP_STEPS = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))


class RedisServer:
    """One server under `directory`. It may be started and stopped any number of times."""

    def __init__(
        self, directory: Path, *, binary: RedisBinary, access: Access, port: int, durable: bool = True
    ) -> None:
        self.port = port
        self.binary = binary
        self._directory = directory
        self._access = access
        self._durable = durable
        self._process = ServerProcess("Redis", directory / "server.log")

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """How the server ended by itself, -N by signal N."""
        return self._process.exit_code

    @property
    def title(self) -> str:
        """What people call it."""
        return self._process.name

    def url(self, database: int = 0) -> str:
        return self._access.redis_url(self.port, database)

    async def start(self) -> None:
        """Starts the server and waits until it answers. Keeps its port if it can be used, else takes another.

        Raises ConfigError of one line.
        """
        try:
            self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            await self._start()
        except OSError as error:
            where = error.filename or self._directory
            raise ConfigError(f"Redis cannot start: {where}: {error.strerror}") from None

    async def _start(self) -> None:
        await self._stop_stale()
        for _ in range(START_ATTEMPTS_MAX):
            self.port = self._access.port(set(), self.port)
            self._spawn()
            if await self._process.wait_ready(self._is_ready, READY_PATIENCE_S):
                (self._directory / "version").write_text(f"{self.binary.version}\n")
                return
            if "Address already in use" not in self._process.log_tail():
                break
        raise ConfigError(f"Redis did not start: {self._process.why_ended()}")

    async def stop(self) -> None:
        """Stops the server within 4 s, by SIGKILL if it must."""
        await self._process.end(STOP_STEPS)

    async def kill(self) -> None:
        """Kills the server, like a crash."""
        await self._process.end(((signal.SIGKILL, 5.0),))

    def _spawn(self) -> None:
        # In a file: every user of the machine can read arguments.
        config = self._directory / "redis.conf"
        write_private(config, self._config())
        self._process.spawn(
            [self.binary.server, config], cwd=self._directory, account=SystemUser(), end_signal=signal.SIGTERM
        )

    def _config(self) -> str:
        settings = {
            **self._access.redis_settings(self.port),
            "daemonize": "no",
            "pidfile": "./redis.pid",
            "dir": "./",
            "appendonly": "yes",
            # With everysec Redis confirms entries that it has not written yet while an older fsync is running: a
            # kill
            # would lose confirmed clicks.
            "appendfsync": "always" if self._durable else "no",
            "save": '""',
            "maxmemory-policy": "noeviction",  # evicting would drop clicks that are not yet counted
        }
        return "".join(f"{key} {value}\n" for key, value in settings.items())

    async def _is_ready(self) -> bool:
        client = Redis.from_url(
            self.url(), socket_timeout=1.0, socket_connect_timeout=1.0, single_connection_client=True
        )
        try:
            return bool(await client.ping())
        except (RedisError, OSError):
            return False  # not listening yet, or still loading
        finally:
            await client.aclose()

    async def _stop_stale(self) -> None:
        file = self._directory / "redis.pid"
        text = file.read_text().strip() if file.exists() else ""
        pid = int(text) if text.isdigit() else 0
        if not pid or not is_running(pid):
            return
        command = command_of(pid)
        # Redis replaces its command line by its name and its first address.
        if self._access.redis_address(self.port) in command or str(self._directory) in command:
            await stop_stale(pid, STOP_STEPS)


def written_by(directory: Path) -> RedisVersion | None:
    """Returns the version that last wrote the files in `directory`; None if there are none."""
    file = directory / "version"
    return RedisVersion.parse(file.read_text()) if file.exists() else None
