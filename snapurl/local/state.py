"""The state of a local cluster, in its home: which shards it has, whether it runs, and how programs reach it.

Commands read it without the programs that start servers (`cluster.py`), which take long to import.
"""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from ring.topology import NAME_PATTERN
from snapurl.errors import ConfigError
from snapurl.local.access import Access, LocalUser, LoopbackAccess, SocketAccess
from snapurl.local.sockets import SocketDirectory
from snapurl.private_files import check_directory

RESERVED_NAMES = ("redis", "metrics", "sockets")  # these directories exist in the home too
STATE_FILE = "cluster.json"


@dataclass(slots=True)
class State:
    """The content of `cluster.json`. `password` is empty unless the servers listen on loopback."""

    sockets: str = ""
    password: str = ""
    redis_port: int = 0
    shard_ports: dict[str, int] = field(default_factory=dict)

    @property
    def access(self) -> Access:
        """How clients reach the servers."""
        return LoopbackAccess(self.password) if self.password else SocketAccess(self.socket_directory)

    @property
    def socket_directory(self) -> SocketDirectory:
        return SocketDirectory(Path(self.sockets))

    def settings(self, user: LocalUser) -> dict[str, str]:
        """Returns the settings (`shards`, `redis_url`) of a process that logs in as `user`."""
        dsns = {name: self.access.dsn(port, user=user) for name, port in self.shard_ports.items()}
        return {"shards": shard_list(dsns), "redis_url": self.access.redis_url(self.redis_port)}


def check_shard_name(name: str) -> None:
    """Raises ConfigError if no shard of a local cluster can have that name."""
    if not NAME_PATTERN.fullmatch(name) or name in RESERVED_NAMES:
        raise ConfigError(f"{name!r} cannot be the name of a shard: take one like db4")


def running_settings(home: Path, user: LocalUser) -> dict[str, str]:
    """Returns the settings (`shards`, `redis_url`) of `user` for the cluster in `home`; {} if there is none.

    Raises ConfigError if it does not run: whatever listened at its addresses would be somebody else's.
    """
    settings = saved_settings(home, user)
    if settings and not is_cluster_running(home):
        raise ConfigError(f"the cluster in {home} is not running: start it with `snapurl up`")
    return settings


def saved_settings(home: Path, user: LocalUser) -> dict[str, str]:
    """Returns the settings of the cluster that last ran in `home`; {} if none did. Not for connecting."""
    file = home.expanduser() / STATE_FILE
    if not file.exists():
        return {}
    check_directory(file.parent, "SNAPURL_HOME")
    return read_state(file).settings(user)


def saved_sockets(home: Path) -> SocketDirectory:
    """Returns where the sockets of the cluster in `home` are. Raises ConfigError if none ever ran there."""
    file = home.expanduser() / STATE_FILE
    if not file.exists():
        raise ConfigError(f"there is no cluster in {home}: start it with `snapurl up`")
    check_directory(file.parent, "SNAPURL_HOME")
    return read_state(file).socket_directory


def is_cluster_running(home: Path) -> bool:
    """Whether a process has the lock of `home`."""
    try:
        lock = os.open(home.expanduser() / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(lock, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
        return True
    finally:
        os.close(lock)
    return False


def read_state(file: Path) -> State:
    names = {field.name for field in fields(State)}
    try:
        found = json.loads(file.read_text())
        state = State(**{name: value for name, value in found.items() if name in names})
        _ = [*map(int, state.shard_ports.values()), int(state.redis_port)]
    except (ValueError, TypeError, AttributeError):
        raise ConfigError(f"{file} is damaged: bring it back, or move {file.parent} away") from None
    return state


def shard_list(dsns: Mapping[str, str]) -> str:
    return " ".join(f"{name}={dsn}" for name, dsn in sorted(dsns.items()))
