"""One server process: started in a session of its own, watched, ended with growing force."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from time import monotonic

from snapurl.errors import ConfigError
from snapurl.local.system_user import SystemUser
from snapurl.parent_death import signal_at_parent_death

_POLL_S = 0.01
_LOG_TAIL_BYTES = 4_096


class ServerProcess:
    """A child with a log, in a session of its own: Ctrl-C on the terminal is for us, who stop it in order."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it lives."""
        return self._popen.pid if self._popen and self._popen.poll() is None else None

    def spawn(self, argv: Sequence[str | Path], *, cwd: Path, account: SystemUser, end_signal: int) -> None:
        """Starts `argv`; the log of the last run is kept as `….1`, the one before is dropped."""
        if self.log.exists():
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        with self.log.open("wb") as log:
            self.log.chmod(0o600)
            self._popen = subprocess.Popen(  # noqa: S603  # programs found by `binaries`
                [*account.prefix, *argv],
                cwd=cwd,
                env=server_environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                preexec_fn=signal_at_parent_death(end_signal),  # noqa: PLW1509  # one system call, no locks
                **account.popen_options(),
            )

    async def wait_ready(self, is_ready: Callable[[], Awaitable[bool]], patience_s: float) -> bool:
        """True once `is_ready`; False if the process ended first. Raises ConfigError when patience ends."""
        deadline = monotonic() + patience_s
        while self.pid is not None:
            if await is_ready():
                return True
            if monotonic() > deadline:
                raise ConfigError(f"{self.name} is not ready after {patience_s:.0f} s: see {self.log}")
            await asyncio.sleep(_POLL_S)
        return False

    async def end(self, steps: Sequence[tuple[int, float]]) -> None:
        """Sends each signal in turn, and waits up to its seconds, until the process is gone."""
        for signum, patience_s in steps:
            if (pid := self.pid) is None:
                break
            os.kill(pid, signum)
            await wait_until(lambda: self.pid is None, patience_s)
        self._popen = None

    def log_tail(self) -> str:
        """The end of the log, for finding out why the process ended."""
        text = self.log.read_bytes() if self.log.exists() else b""
        return text[-_LOG_TAIL_BYTES:].decode(errors="replace")

    def why_ended(self) -> str:
        """The line of the log that says most about it."""
        lines = [line for line in self.log_tail().splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "rror"))]
        return (telling or lines or ["it left no message"])[-1].strip()


def server_environment() -> dict[str, str]:
    """Our environment without what would steer PostgreSQL's programs, and with messages that can be read."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


async def wait_until(done: Callable[[], bool], patience_s: float) -> bool:
    """Whether `done` came true within `patience_s`."""
    deadline = monotonic() + patience_s
    while not done():
        if monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def is_running(pid: int) -> bool:
    """Whether there is such a process and it has not ended; one that nobody has reaped yet has no command."""
    return exists(pid) and command_of(pid) != ""


def exists(pid: int) -> bool:
    """Whether the number is taken, if only by a process that ended and was not reaped."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_of(pid: int) -> str:
    """The command line of a process; "" if it cannot be learnt."""
    file = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        try:
            return file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has ended meanwhile
            return ""
    try:
        done = subprocess.run(  # noqa: S603
            ["ps", "-ww", "-o", "command=", "-p", str(pid)],  # noqa: S607  # where it is differs by system
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


async def end_stranger(pid: int, steps: Sequence[tuple[int, float]]) -> None:
    """Ends a server that an earlier run left behind."""
    for signum, patience_s in steps:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return
        if await wait_until(lambda: not is_running(pid), patience_s):
            return
