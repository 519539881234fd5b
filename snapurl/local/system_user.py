"""The account that PostgreSQL runs as. PostgreSQL refuses root; any other user runs it as is.

For root on Linux, a user namespace maps root to user 1000: that satisfies PostgreSQL, and the files still belong to
root. Where namespaces are not allowed (some containers) or do not exist (macOS), the servers run as a system
user, who must be able to reach the data and the programs.
"""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from snapurl.errors import ConfigError

SYSTEM_USERS = ("postgres", "_postgres", "nobody")

_NAMESPACE_OPTIONS = ("--user", "--map-user=1000", "--map-group=1000")
_PROBE_TIMEOUT_S = 10.0


@dataclass(frozen=True, slots=True)
class SystemUser:
    """`prefix` goes before a command line. `uid` and `gid` are the account; None is the current user."""

    prefix: tuple[str, ...] = ()
    uid: int | None = None
    gid: int | None = None

    @property
    def ids(self) -> tuple[int, int] | None:
        """The user id and group id of the account; None if it is the current user."""
        return None if self.uid is None or self.gid is None else (self.uid, self.gid)

    def own(self, path: Path) -> None:
        """Makes the account the owner of a file or directory; of a symbolic link, not of what it leads to."""
        if self.ids is not None:
            os.chown(path, *self.ids, follow_symlinks=False)

    def popen_options(self) -> dict[str, Any]:
        """Returns the options with which `subprocess.Popen` runs a program as this account."""
        if self.uid is None:
            return {}
        return {"user": self.uid, "group": self.gid, "extra_groups": []}


def choose_system_user(postgres: Path, home: Path) -> SystemUser:
    """Returns the account that runs `postgres` on data under `home`. Raises ConfigError if root finds none."""
    if os.geteuid() != 0:
        return SystemUser()
    return in_namespace() or as_system_user(postgres, home)


def in_namespace() -> SystemUser | None:
    """Returns root in a user namespace; None where that is not allowed."""
    unshare = shutil.which("unshare")
    if not unshare:
        return None
    account = SystemUser(prefix=(unshare, *_NAMESPACE_OPTIONS))
    return account if _succeeds(account, "true") else None


def as_system_user(postgres: Path, home: Path) -> SystemUser:
    """Returns a system user of this machine, and lets it traverse `home`. Raises ConfigError."""
    name, account = _system_user()
    home.chmod(0o711)
    if not _succeeds(account, "test", "-x", str(home)):
        raise ConfigError(
            f"PostgreSQL does not run as root, and user {name} cannot reach {home}: set SNAPURL_HOME to a "
            "directory it can reach (/var/lib/snapurl), or run SnapURL as another user than root"
        )
    if not _succeeds(account, str(postgres), "--version"):
        raise ConfigError(
            f"PostgreSQL does not run as root, and user {name} cannot run {postgres}: install SnapURL where "
            "it can be reached, or run it as another user than root"
        )
    return account


def _system_user() -> tuple[str, SystemUser]:
    for name in SYSTEM_USERS:
        try:
            entry = pwd.getpwnam(name)
        except KeyError:
            continue
        return name, SystemUser(uid=entry.pw_uid, gid=entry.pw_gid)
    raise ConfigError(
        "PostgreSQL does not run as root, and there is no user `postgres` or `nobody`: "
        "run SnapURL as another user"
    )


def _succeeds(account: SystemUser, *command: str) -> bool:
    try:
        done = subprocess.run(  # noqa: S603  # our own command lines
            [*account.prefix, *command],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=_PROBE_TIMEOUT_S,
            check=False,
            cwd="/",
            **account.popen_options(),
        )
    except (OSError, subprocess.SubprocessError):
        return False
    return done.returncode == 0
