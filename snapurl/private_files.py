"""Files and directories that no other user can change: how they are checked before they are believed, and written.

Root counts as trusted everywhere: it can change every file anyway.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from snapurl.errors import ConfigError

_LINKS_MAX = 40  # as many as Linux follows


def check_directory(path: Path, name: str) -> None:
    """Raises ConfigError of one line, beginning with `name`, if other users can decide what is in a directory.

    They can if the directory or a symbolic link on the way to it is theirs, or if they may write the directory. A
    read-only file system is beyond their reach, whatever its modes say: Kubernetes mounts Secrets with mode 1777.
    """
    if link := _foreign_link(path):
        raise ConfigError(f"{name}: {link} is a symbolic link of another user: use a directory of your own")
    try:
        info = path.stat()
        is_read_only = bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be used: {error.strerror}") from None
    if not stat.S_ISDIR(info.st_mode):
        raise ConfigError(f"{name}: {path} is not a directory")
    if not _is_trusted(info):
        raise ConfigError(f"{name}: {path} belongs to another user: use a directory of your own")
    if info.st_mode & 0o022 and not is_read_only:
        raise ConfigError(
            f"{name}: other users can write to {path}: chmod go-w {path}, after a look at its files"
        )


def write_private(path: Path, text: str, owner: tuple[int, int] | None = None) -> None:
    """Writes a file of mode 0600 in place of what is there, at once and on disk. Follows no link.

    `owner` is the user id and group id to give it to. Raises OSError.
    """
    draft = path.with_name(f"{path.name}.new")
    draft.unlink(missing_ok=True)
    with os.fdopen(create_exclusively(draft), "w", encoding="utf-8") as out:
        if owner is not None:
            os.fchown(out.fileno(), *owner)
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    draft.replace(path)


def read_private(path: Path, name: str) -> str:
    """Returns the text of a file that only its owner can read.

    Raises ConfigError of one line, beginning with `name`, if it cannot be used or if others can read it.
    """
    try:
        with path.open(encoding="utf-8") as file:
            info = os.fstat(file.fileno())
            if info.st_mode & 0o077 or not _is_trusted(info):
                raise ConfigError(f"{name}: other users can read or change {path}: chmod 600 {path}")
            return file.read()
    except UnicodeDecodeError:
        raise ConfigError(f"{name}: {path} is not text") from None
    except OSError as error:
        raise ConfigError(f"{name}: {path} cannot be read: {error.strerror}") from None


def create_exclusively(path: Path) -> int:
    """Creates a file of mode 0600 and returns its descriptor, open for writing. Raises OSError if there is one."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)


def _is_trusted(info: os.stat_result) -> bool:
    return info.st_uid in (0, os.geteuid())


def _foreign_link(path: Path, links_left: int = _LINKS_MAX) -> Path | None:
    """Returns the first symbolic link of an untrusted user on the way to `path`."""
    current = Path("/")
    parts = path.absolute().parts[1:]
    for position, part in enumerate(parts, 1):
        current /= part
        if not current.is_symlink():
            continue
        if not _is_trusted(current.lstat()):
            return current
        if links_left == 0:
            return None  # a loop: whoever opens it gets the error
        return _foreign_link(current.parent.joinpath(current.readlink(), *parts[position:]), links_left - 1)
    return None
