"""The Redis of the local cluster: append-only, without eviction, on loopback."""

from __future__ import annotations

import signal
from pathlib import Path

from redis.asyncio import Redis
from redis.exceptions import RedisError

from snapurl.errors import ConfigError
from snapurl.local.binaries import RedisBinary, RedisVersion
from snapurl.local.free_ports import HOST, free_port, is_free
from snapurl.local.process import ServerProcess, command_of, is_running, stop_stale
from snapurl.local.system_user import SystemUser

START_ATTEMPTS_MAX = 5
READY_PATIENCE_S = 60.0
STOP_STEPS = ((signal.SIGTERM, 2.0), (signal.SIGKILL, 2.0))


class RedisServer:
    """One server under `directory`. It may be started and stopped any number of times."""

    def __init__(
        self, directory: Path, *, binary: RedisBinary, password: str, port: int, durable: bool = True
    ) -> None:
        self.port = port
        self.binary = binary
        self._directory = directory
        self._password = password
        self._durable = durable
        self._process = ServerProcess("Redis", directory / "server.log")

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._process.pid

    def url(self, database: int = 0) -> str:
        return redis_url(self._password, self.port, database)

    async def start(self) -> None:
        """Starts the server and waits until it answers. Keeps its port if it is free, else takes another.

        Raises ConfigError of one line.
        """
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._stop_stale()
        for _ in range(START_ATTEMPTS_MAX):
            if not is_free(self.port):
                self.port = free_port({self.port})
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
        config.touch(mode=0o600)
        config.write_text(self._config())
        self._process.spawn(
            [self.binary.server, config], cwd=self._directory, account=SystemUser(), end_signal=signal.SIGTERM
        )

    def _config(self) -> str:
        settings = {
            "bind": HOST,
            "port": self.port,
            "requirepass": self._password,
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
        if f"{HOST}:{self.port}" in command or str(self._directory) in command:
            await stop_stale(pid, STOP_STEPS)


def redis_url(password: str, port: int, database: int = 0) -> str:
    return f"redis://:{password}@{HOST}:{port}/{database}"


def written_by(directory: Path) -> RedisVersion | None:
    """Returns the version that last wrote the files in `directory`; None if there are none."""
    file = directory / "version"
    return RedisVersion.parse(file.read_text()) if file.exists() else None
