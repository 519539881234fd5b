"""The directory of the sockets of a local cluster: closed to other users, and short enough for the kernel.

    root/postgres/     sockets of the PostgreSQL servers, owned by the account that they run as
    root/private/      sockets of Redis and of `snapurl up`

Whoever may enter these directories needs no password: the user who runs the cluster, and root. The name of a socket
may have 103 bytes on macOS and 107 on Linux, so a cluster whose home has a long name keeps them elsewhere: in
$XDG_RUNTIME_DIR, or in the directory for temporary files.
"""

from __future__ import annotations

import os
import shutil
import socket
import stat
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from snapurl.errors import ConfigError
from snapurl.local.system_user import SystemUser

PATH_BYTES_MAX = 103
_LONGEST = "/postgres/.s.PGSQL.65535"


@dataclass(frozen=True, slots=True)
class SocketDirectory:
    """Where the sockets of one cluster are."""

    root: Path

    @property
    def postgres(self) -> Path:
        return self.root / "postgres"

    @property
    def private(self) -> Path:
        return self.root / "private"

    def redis(self, port: int) -> Path:
        return self.private / f"redis.{port}"

    @property
    def start_requests(self) -> Path:
        return self.private / "up"

    def remove(self) -> None:
        """Removes the directory, once nothing listens there any more."""
        shutil.rmtree(self.root, ignore_errors=True)


def make_socket_directory(home: Path, account: SystemUser) -> SocketDirectory:
    """Makes the directories for the cluster in `home`, whose PostgreSQL runs as `account`.

    Raises ConfigError of one line if there is no place for them.
    """
    why = "the paths are too long"
    for root in _candidates(home, account):
        if len(os.fsencode(f"{root}{_LONGEST}")) > PATH_BYTES_MAX:
            continue
        made = SocketDirectory(root)
        try:
            _make(made, account)
            _try_socket(made.start_requests)
        except (OSError, ConfigError) as error:
            why = getattr(error, "strerror", None) or str(error)
            continue
        return made
    raise ConfigError(f"no place for the sockets of {home} ({why}): set SNAPURL_HOME to a shorter path")


def _candidates(home: Path, account: SystemUser) -> Iterator[Path]:
    name = f"snapurl-{os.geteuid()}-{sha256(os.fsencode(home)).hexdigest()[:12]}"
    yield home / "sockets"
    if (runtime := os.environ.get("XDG_RUNTIME_DIR")) and account.uid is None:  # closed to other accounts
        yield Path(runtime) / name
    yield Path(tempfile.gettempdir()) / name
    yield Path("/tmp") / name  # noqa: S108  # its owner is checked


def _make(directory: SocketDirectory, account: SystemUser) -> None:
    parent = directory.root.parent.stat()
    if parent.st_mode & 0o022 and not parent.st_mode & stat.S_ISVTX:
        raise ConfigError(f"other users can write to {directory.root.parent}")
    _own(directory.root, 0o700 if account.uid is None else 0o711)
    _own(directory.private, 0o700)
    _own(directory.postgres, 0o700, account)


def _own(path: Path, mode: int, account: SystemUser | None = None) -> None:
    """Makes a directory, or takes one over that this user or `account` made before. Raises ConfigError, OSError."""
    path.mkdir(mode=0o700, exist_ok=True)
    info = path.lstat()
    if not stat.S_ISDIR(info.st_mode) or info.st_uid not in {os.geteuid(), account.uid if account else None}:
        raise ConfigError(f"{path} belongs to another user")
    path.chmod(mode)
    if account is not None:
        account.own(path)


def _try_socket(path: Path) -> None:
    """Raises OSError where sockets cannot be made: not every file system has them."""
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as probe:
        probe.bind(str(path))
    path.unlink()
