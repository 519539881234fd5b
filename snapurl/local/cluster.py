"""The local cluster: one PostgreSQL per shard and one Redis, with their state in a home directory.

    home/lock            held for as long as the cluster runs
    home/cluster.json    the shards, and where the sockets are (0600)
    home/<shard>/        data, server.log
    home/redis/          append-only files, redis.conf, server.log
    home/sockets/        the sockets, unless the path is too long (`sockets.py`)

No other user may write to the home, so what stands there is believed.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import time
from collections.abc import Awaitable, Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from snapurl.errors import ConfigError
from snapurl.local.access import LocalUser
from snapurl.local.binaries import BinarySource, find_postgres, find_redis
from snapurl.local.postgres_server import PostgresServer, data_major
from snapurl.local.redis_server import RedisServer, written_by
from snapurl.local.sockets import SocketDirectory, make_socket_directory
from snapurl.local.state import STATE_FILE, State, check_shard_name, read_state, shard_list
from snapurl.local.system_user import SystemUser, choose_system_user
from snapurl.private_files import check_directory, write_private

SHARDS = ("db0", "db1", "db2", "db3")
_LOCK_ATTEMPTS = 10
_LOCK_POLL_S = 0.02  # a command that asks whether the cluster runs holds the lock for an instant


class LocalCluster:
    """Starts and stops the servers under `home`, and keeps their state there.

    `shards` are the shards to start, beside those of earlier runs. `durable=False` turns fsync off: data may be
    lost if the machine loses power. `source` restricts where the programs come from. `loopback=True` has the
    servers listen there with a password, instead of on sockets. Every failure is a ConfigError of one line.
    """

    def __init__(
        self,
        home: Path,
        shards: Sequence[str] = SHARDS,
        *,
        durable: bool = True,
        source: BinarySource = BinarySource.ANY,
        account: SystemUser | None = None,
        loopback: bool = False,
    ) -> None:
        self._given_home = home.expanduser()
        self.home = self._given_home.resolve()
        self._wanted = tuple(shards)
        self._durable = durable
        self._source = source
        self._account = account
        self._loopback = loopback
        self._lock: int | None = None
        self._state: State | None = None
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
        """Shard -> DSN, as the owner of the tables."""
        return {name: server.dsn() for name, server in self._shards.items()}

    @property
    def sockets(self) -> SocketDirectory:
        assert self._state is not None, "the cluster is not started"
        return self._state.socket_directory

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

    def settings(self, user: LocalUser, names: Iterable[str] | None = None) -> dict[str, str]:
        """Returns the settings with which a process logs in as `user`, to all shards or to those of `names`."""
        dsns = {name: self._shards[name].dsn(user=user) for name in names or self._shards}
        return {"shards": shard_list(dsns), "redis_url": self.redis_url}

    def describe(self) -> str:
        """Returns the versions of the servers, for people."""
        programs = dict.fromkeys(str(server.binaries) for server in self._shards.values())
        return f"{len(self._shards)} x {', '.join(programs)}, {self.redis.binary}"

    async def start(self) -> None:
        """Starts all servers in parallel. Returns when all answer, or stops them and raises."""
        self._lock_home()
        try:
            self._state = self._load_state()
            self._account = self._account or self._choose_account()
            self._state.sockets = str(make_socket_directory(self.home, self._account).root)
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
            if self._state is not None and self._state.sockets:
                self.sockets.remove()
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
            self._shards[name] = server
            self._save_state()
        except BaseException:
            self._shards.pop(name, None)
            del self._state.shard_ports[name]
            await server.stop()
            raise
        return server.dsn()

    def servers(self) -> list[PostgresServer | RedisServer]:
        """Returns all servers."""
        return [*self._shards.values(), *([self._redis] if self._redis else [])]

    def _lock_home(self) -> None:
        try:
            self.home.mkdir(mode=0o700, parents=True, exist_ok=True)
            check_directory(self._given_home, "SNAPURL_HOME")
            lock = os.open(self.home / "lock", os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise ConfigError(f"cannot use {self.home}: {error.strerror}") from None
        for _ in range(_LOCK_ATTEMPTS):
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except OSError:
                time.sleep(_LOCK_POLL_S)
        else:
            holder = os.pread(lock, 20, 0).decode(errors="replace").strip() or "?"
            os.close(lock)
            raise ConfigError(
                f"the cluster in {self.home} is already running (process {holder}): stop it first, or set "
                "SNAPURL_HOME to another directory"
            )
        os.truncate(lock, 0)
        os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
        self._lock = lock

    def _load_state(self) -> State:
        """Returns the state of the last run, or a new one."""
        file = self.home / STATE_FILE
        if file.exists():
            state = read_state(file)
        elif any((self.home / name / "data").exists() for name in self._wanted):
            raise ConfigError(
                f"{file} is missing, and with it the list of the shards whose data are in {self.home}: "
                "bring it back, or move the directory away"
            )
        else:
            state = State()
        state.sockets = ""  # those of the last run are gone, and whatever is there may be another user's
        state.password = (state.password or secrets.token_urlsafe(24)) if self._loopback else ""
        return state

    def _save_state(self) -> None:
        """Saves the state atomically. Raises ConfigError."""
        assert self._state is not None
        self._state.redis_port = self.redis.port
        self._state.shard_ports |= {name: server.port for name, server in self._shards.items()}
        try:
            write_private(self.home / STATE_FILE, json.dumps(asdict(self._state), indent=2))
        except OSError as error:
            raise ConfigError(f"cannot write {self.home / STATE_FILE}: {error.strerror}") from None

    def _choose_account(self) -> SystemUser:
        name = self._wanted[0]
        binaries = find_postgres(self._source, data_major(self.home / name / "data"))
        return choose_system_user(binaries.postgres, self.home)

    def _make_redis(self, state: State) -> RedisServer:
        directory = self.home / "redis"
        return RedisServer(
            directory,
            binary=find_redis(self._source, written_by(directory)),
            access=state.access,
            port=state.access.port(state.shard_ports.values(), state.redis_port),
            durable=self._durable,
        )

    def _make_shard(self, name: str, state: State) -> PostgresServer:
        check_shard_name(name)
        directory = self.home / name
        binaries = find_postgres(self._source, data_major(directory / "data"))
        assert self._account is not None
        if name not in state.shard_ports:
            state.shard_ports[name] = state.access.port({self.redis.port, *state.shard_ports.values()})
        return PostgresServer(
            name,
            directory,
            binaries=binaries,
            account=self._account,
            access=state.access,
            port=state.shard_ports[name],
            durable=self._durable,
        )


async def _wait_for_all(steps: Iterable[Awaitable[Any]]) -> None:
    """Waits for all of them, then raises the first failure: none is left running."""
    outcomes = await asyncio.gather(*steps, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, BaseException):
            raise outcome
