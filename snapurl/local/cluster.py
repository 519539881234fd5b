"""The local cluster: one PostgreSQL per shard and one Redis, with their state in a home directory.

    home/lock            held for as long as the cluster runs
    home/cluster.json    ports and passwords (0600)
    home/<shard>/        data, server.log
    home/redis/          append-only files, redis.conf, server.log

All servers listen on loopback only, with passwords. They keep their ports unless another program takes one.
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
RESERVED_NAMES = ("redis", "metrics")  # these directories exist in the home too
STATE_FILE = "cluster.json"


@dataclass(slots=True)
class _State:
    """The content of `cluster.json`. All shards have one PostgreSQL password, since tools reach an added shard
    with the credentials of the others."""

    postgres_password: str
    redis_password: str
    redis_port: int
    shard_ports: dict[str, int] = field(default_factory=dict)


class LocalCluster:
    """Starts and stops the servers under `home`, and keeps their state there.

    `shards` are the shards to start, beside those of earlier runs. `durable=False` turns fsync off: data may be
    lost if the machine loses power. `source` restricts where the programs come from. Every failure is a
    ConfigError of one line.
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
        self._state: _State | None = None
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
        """Shard -> DSN."""
        return {name: server.dsn() for name, server in self._shards.items()}

    @property
    def redis(self) -> RedisServer:
        assert self._redis is not None, "the cluster is not started"
        return self._redis

    @property
    def redis_url(self) -> str:
        return self.redis.url()

    def shard(self, name: str) -> PostgresServer:
        """Returns the server of one shard, to stop, kill or start it alone."""
        return self._shards[name]

    def environ(self) -> dict[str, str]:
        """Returns the `SNAPURL_*` variables with which a process connects to this cluster."""
        return {"SNAPURL_SHARDS": _shard_list(self.dsns), "SNAPURL_REDIS_URL": self.redis_url}

    def describe(self) -> str:
        """Returns the versions of the servers, for people."""
        programs = dict.fromkeys(str(server.binaries) for server in self._shards.values())
        return f"{len(self._shards)} x {', '.join(programs)}, {self.redis.binary}"

    async def start(self) -> None:
        """Starts all servers in parallel. Returns when all answer, or stops them and raises."""
        self._lock_home()
        try:
            self._state = self._load_state()
            self._redis = self._make_redis(self._state)
            for name in sorted({*self._wanted, *self._state.shard_ports}):
                self._shards[name] = self._make_shard(name, self._state)
            self._save_state()
            await _wait_for_all(server.start() for server in self.servers())
            self._save_state()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        """Stops all servers in parallel, within 6 s, and keeps their data. Safe to repeat."""
        await _wait_for_all(server.stop() for server in self.servers())
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    async def add_shard(self, name: str) -> str:
        """Starts a server for a further shard and saves it in the state. Returns its DSN."""
        assert self._state is not None, "the cluster is not started"
        if name in self._shards:
            raise ConfigError(f"there is already a shard {name}")
        server = self._make_shard(name, self._state)
        try:
            await server.start()
        except BaseException:
            await server.stop()
            del self._state.shard_ports[name]
            raise
        self._shards[name] = server
        self._save_state()
        return server.dsn()

    def servers(self) -> list[PostgresServer | RedisServer]:
        """Returns all servers."""
        return [*self._shards.values(), *([self._redis] if self._redis else [])]

    def _lock_home(self) -> None:
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

    def _load_state(self) -> _State:
        file = self.home / STATE_FILE
        if not file.exists():
            if any((self.home / name / "data").exists() for name in self._wanted):
                raise ConfigError(
                    f"{file} is missing, and with it the passwords of the data in {self.home}: "
                    "bring it back, or move the directory away"
                )
            return _State(secrets.token_urlsafe(24), secrets.token_urlsafe(24), free_port(set()))
        return _read_state(file)

    def _save_state(self) -> None:
        """Saves ports and passwords atomically."""
        assert self._state is not None
        self._state.redis_port = self.redis.port
        self._state.shard_ports |= {name: server.port for name, server in self._shards.items()}
        file = self.home / STATE_FILE
        draft = file.with_suffix(".new")
        draft.touch(mode=0o600)
        with draft.open("w") as out:
            json.dump(asdict(self._state), out, indent=2)
            out.flush()
            os.fsync(out.fileno())
        draft.replace(file)

    def _make_redis(self, state: _State) -> RedisServer:
        directory = self.home / "redis"
        return RedisServer(
            directory,
            binary=find_redis(self._source, written_by(directory)),
            password=state.redis_password,
            port=state.redis_port,
            durable=self._durable,
        )

    def _make_shard(self, name: str, state: _State) -> PostgresServer:
        check_shard_name(name)
        directory = self.home / name
        binaries = find_postgres(self._source, data_major(directory / "data"))
        if self._account is None:
            self._account = choose_system_user(binaries.postgres, self.home)
        if name not in state.shard_ports:
            state.shard_ports[name] = free_port({state.redis_port, *state.shard_ports.values()})
        return PostgresServer(
            name,
            directory,
            binaries=binaries,
            account=self._account,
            password=state.postgres_password,
            port=state.shard_ports[name],
            durable=self._durable,
        )


def check_shard_name(name: str) -> None:
    """Raises ConfigError if no shard of a local cluster can have that name."""
    if not NAME_PATTERN.fullmatch(name) or name in RESERVED_NAMES:
        raise ConfigError(f"{name!r} cannot be the name of a shard: take one like db4")


def saved_settings(home: Path) -> dict[str, str]:
    """Returns the settings (`shards`, `redis_url`) of the cluster that last ran in `home`; {} if none did."""
    file = home.expanduser() / STATE_FILE
    if not file.exists():
        return {}
    state = _read_state(file)
    dsns = {name: postgres_dsn(state.postgres_password, port) for name, port in state.shard_ports.items()}
    return {"shards": _shard_list(dsns), "redis_url": redis_url(state.redis_password, state.redis_port)}


def _read_state(file: Path) -> _State:
    try:
        state = _State(**json.loads(file.read_text()))
        _ = [*map(int, state.shard_ports.values()), int(state.redis_port)]
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"{file} is damaged: bring it back, or move {file.parent} away") from None
    return state


def _shard_list(dsns: Mapping[str, str]) -> str:
    return " ".join(f"{name}={dsn}" for name, dsn in sorted(dsns.items()))


async def _wait_for_all(steps: Iterable[Awaitable[Any]]) -> None:
    """Waits for all of them, then raises the first failure: none is left running."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
