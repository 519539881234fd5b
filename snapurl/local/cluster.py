"""The local cluster: one PostgreSQL per shard and one Redis, remembered in a home directory.

    home/lock            held for as long as the cluster runs
    home/cluster.json    ports and passwords (0600)
    home/<shard>/        data, server.log
    home/redis/          append-only files, redis.conf, server.log

All servers listen on loopback only, with passwords, on ports that stay the same for as long as nobody else
takes them.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
from collections.abc import Awaitable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from ring.topology import NAME_PATTERN
from snapurl.errors import ConfigError
from snapurl.local.binaries import BinarySource, find_postgres, find_redis
from snapurl.local.free_ports import free_port
from snapurl.local.postgres_server import PostgresServer, data_major, postgres_dsn
from snapurl.local.redis_server import RedisServer, redis_url, written_by
from snapurl.local.system_user import SystemUser, choose_system_user

SHARDS = ("db0", "db1", "db2", "db3")
RESERVED_NAMES = ("redis", "metrics")  # they have directories in the home, too
STATE_FILE = "cluster.json"


@dataclass(slots=True)
class _Memory:
    """What `cluster.json` holds. One PostgreSQL password for all shards: tools reach a shard that was added
    later with the credentials of the others."""

    postgres_password: str
    redis_password: str
    redis_port: int
    shard_ports: dict[str, int] = field(default_factory=dict)


class LocalCluster:
    """Starts, remembers and stops the servers under `home`.

    `shards` are the names to have; those remembered from earlier runs are started as well. `durable=False`
    saves the disk's time at the price of the data if the machine loses power. `source` restricts where the
    programs come from. All failures are ConfigError with one line.
    """

    def __init__(
        self,
        home: Path,
        shards: Sequence[str] = SHARDS,
        *,
        durable: bool = True,
        source: BinarySource = BinarySource.ANY,
        account: SystemUser | None = None,
    ) -> None:
        self.home = home.expanduser().resolve()
        self._wanted = tuple(shards)
        self._durable = durable
        self._source = source
        self._account = account
        self._lock: int | None = None
        self._memory: _Memory | None = None
        self._shards: dict[str, PostgresServer] = {}
        self._redis: RedisServer | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    @property
    def dsns(self) -> dict[str, str]:
        """Name -> DSN of every shard."""
        return {name: server.dsn() for name, server in self._shards.items()}

    @property
    def redis(self) -> RedisServer:
        assert self._redis is not None, "the cluster is not started"
        return self._redis

    @property
    def redis_url(self) -> str:
        return self.redis.url()

    def shard(self, name: str) -> PostgresServer:
        """The server of one shard, for stopping, killing and starting it by itself."""
        return self._shards[name]

    def environ(self) -> dict[str, str]:
        """The `SNAPURL_*` variables that lead a process to this cluster."""
        return {"SNAPURL_SHARDS": _shard_list(self.dsns), "SNAPURL_REDIS_URL": self.redis_url}

    def describe(self) -> str:
        """What runs, in a few words."""
        programs = dict.fromkeys(str(server.binaries) for server in self._shards.values())
        return f"{len(self._shards)} x {', '.join(programs)}, {self.redis.binary}"

    async def start(self) -> None:
        """Starts every server, all at once; returns when all answer, or stops them and raises."""
        self._take_home()
        try:
            self._memory = self._recall()
            self._redis = self._make_redis(self._memory)
            for name in sorted({*self._wanted, *self._memory.shard_ports}):
                self._shards[name] = self._make_shard(name, self._memory)
            self._keep()
            await _all(server.start() for server in self.servers())
            self._keep()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Ends every server, all at once, within 6 s; the data stay. Safe to repeat."""
        await _all(server.stop() for server in self.servers())
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def add_shard(self, name: str) -> str:
        """Starts a server for one more shard and remembers it; returns its DSN."""
        assert self._memory is not None, "the cluster is not started"
        if name in self._shards:
            raise ConfigError(f"there is already a shard {name}")
        server = self._make_shard(name, self._memory)
        try:
            await server.start()
        except BaseException:
            await server.stop()
            del self._memory.shard_ports[name]
            raise
        self._shards[name] = server
        self._keep()
        return server.dsn()

    def servers(self) -> list[PostgresServer | RedisServer]:
        """All of them."""
        return [*self._shards.values(), *([self._redis] if self._redis else [])]

    def _take_home(self) -> None:
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot use {self.home}: {error.strerror}") from None
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "?"
            os.close(lock)
            raise ConfigError(
                f"the cluster in {self.home} is already running (process {holder}): stop it first, or set "
                "SNAPURL_HOME to another directory"
            ) from None
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _recall(self) -> _Memory:
        state = self.home / STATE_FILE
        if not state.exists():
            if any((self.home / name / "data").exists() for name in self._wanted):
                raise ConfigError(
                    f"{state} is missing, and with it the passwords of the data in {self.home}: "
                    "bring it back, or move the directory away"
                )
            return _Memory(secrets.token_urlsafe(24), secrets.token_urlsafe(24), free_port(set()))
        return _read(state)

    def _keep(self) -> None:
        """Writes down ports and passwords, whole or not at all."""
        assert self._memory is not None
        self._memory.redis_port = self.redis.port
        self._memory.shard_ports |= {name: server.port for name, server in self._shards.items()}
        state = self.home / STATE_FILE
        draft = state.with_suffix(".new")
        draft.touch(mode=0o600)
        with draft.open("w") as file:
            json.dump(asdict(self._memory), file, indent=2)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(state)

    def _make_redis(self, memory: _Memory) -> RedisServer:
        directory = self.home / "redis"
        return RedisServer(
            directory,
            binary=find_redis(self._source, written_by(directory)),
            password=memory.redis_password,
            port=memory.redis_port,
            durable=self._durable,
        )

    def _make_shard(self, name: str, memory: _Memory) -> PostgresServer:
        if not NAME_PATTERN.fullmatch(name) or name in RESERVED_NAMES:
            raise ConfigError(f"{name!r} cannot be the name of a shard: take one like db4")
        directory = self.home / name
        binaries = find_postgres(self._source, data_major(directory / "data"))
        if self._account is None:
            self._account = choose_system_user(binaries.postgres, self.home)
        if name not in memory.shard_ports:
            memory.shard_ports[name] = free_port({memory.redis_port, *memory.shard_ports.values()})
        return PostgresServer(
            name,
            directory,
            binaries=binaries,
            account=self._account,
            password=memory.postgres_password,
            port=memory.shard_ports[name],
            durable=self._durable,
        )


def remembered(home: Path) -> dict[str, str]:
    """The settings (`shards`, `redis_url`) of the cluster that last ran in `home`; empty if none ever did."""
    state = home.expanduser() / STATE_FILE
    if not state.exists():
        return {}
    memory = _read(state)
    dsns = {name: postgres_dsn(memory.postgres_password, port) for name, port in memory.shard_ports.items()}
    return {"shards": _shard_list(dsns), "redis_url": redis_url(memory.redis_password, memory.redis_port)}


def _read(state: Path) -> _Memory:
    try:
        memory = _Memory(**json.loads(state.read_text()))
        _ = [*map(int, memory.shard_ports.values()), int(memory.redis_port)]
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"{state} is damaged: bring it back, or move {state.parent} away") from None
    return memory


def _shard_list(dsns: Mapping[str, str]) -> str:
    return " ".join(f"{name}={dsn}" for name, dsn in sorted(dsns.items()))


async def _all(steps: Iterable[Awaitable[Any]]) -> None:
    """Runs all to their ends, and only then raises the first failure: nothing goes on behind its back."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
