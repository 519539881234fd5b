"""One server process: starts in its own session, and is stopped by a sequence of signals."""

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
from snapurl.private_files import create_exclusively

_POLL_S = 0.01
_LOG_TAIL_BYTES = 4_096


class ServerProcess:
    """A child process with a log file, in its own session: Ctrl-C reaches only this program, which stops it in
    order."""

    def __init__(self, name: str, log: Path) -> None:
        self.name = name
        self.log = log
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int | None:
        """The process id while it runs."""
        return self._popen.pid if self._popen and self._popen.poll() is None else None

    @property
    def exit_code(self) -> int | None:
        """How the process ended, -N by signal N; None while it runs, or if this program ended it."""
        return self._popen.poll() if self._popen else None

    def spawn(self, argv: Sequence[str | Path], *, cwd: Path, account: SystemUser, end_signal: int) -> None:
        """Starts `argv`. Keeps the log of the last run as `….1`."""
        # The directory belongs to the account of the server, which must not be able to have root write elsewhere.
        if os.path.lexists(self.log):
            self.log.replace(self.log.with_name(self.log.name + ".1"))
        with os.fdopen(create_exclusively(self.log), "wb") as log:
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
        """Waits until `is_ready`. Returns False if the process exited first. Raises ConfigError after
        `patience_s`."""
        deadline = monotonic() + patience_s
        while self.pid is not None:
            if await is_ready():
                return True
            if monotonic() > deadline:
                raise ConfigError(f"{self.name} is not ready after {patience_s:.0f} s: see {self.log}")
            await asyncio.sleep(_POLL_S)
        return False

    async def end(self, steps: Sequence[tuple[int, float]]) -> None:
        """Sends each signal in turn and waits up to its seconds, until the process has exited."""
        for signum, patience_s in steps:
            if (pid := self.pid) is None:
                break
            os.kill(pid, signum)
            await wait_until(lambda: self.pid is None, patience_s)
        self._popen = None

    def log_tail(self) -> str:
        """Returns the end of the log."""
        try:
            with os.fdopen(os.open(self.log, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as log:
                text = log.read()
        except OSError:
            return ""
        return text[-_LOG_TAIL_BYTES:].decode(errors="replace")

    def why_ended(self) -> str:
        """Returns the last line of the log that names an error, else the last line."""
        lines = [line for line in self.log_tail().splitlines() if line.strip()]
        telling = [line for line in lines if any(word in line for word in ("FATAL", "PANIC", "rror"))]
        return (telling or lines or ["it left no message"])[-1].strip()


def server_environment() -> dict[str, str]:
    """Returns the environment without variables that change PostgreSQL's behaviour, and with English messages."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("PG", "LC_", "LANG"))}
    return {**kept, "LC_ALL": "C"}


async def wait_until(done: Callable[[], bool], patience_s: float) -> bool:
    """Waits until `done`, for at most `patience_s`. Returns whether it came true."""
    deadline = monotonic() + patience_s
    while not done():
        if monotonic() > deadline:
            return False
        await asyncio.sleep(_POLL_S)
    return True


def is_running(pid: int) -> bool:
    """Whether the process runs. A zombie does not: it has no command line."""
    return exists(pid) and command_of(pid) != ""


def exists(pid: int) -> bool:
    """Whether the PID is in use, if only by a zombie."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def command_of(pid: int) -> str:
    """Returns the command line of a process; "" if it cannot be read."""
    file = Path(f"/proc/{pid}/cmdline")
    if Path("/proc/self").exists():
        try:
            return file.read_bytes().replace(b"\0", b" ").decode(errors="replace")
        except OSError:  # it has exited meanwhile
            return ""
    try:
        done = subprocess.run(  # noqa: S603
            ["ps", "-ww", "-o", "command=", "-p", str(pid)],  # noqa: S607  # its path differs by system
            capture_output=True,
            text=True,
            timeout=5,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    return done.stdout.strip()


async def stop_stale(pid: int, steps: Sequence[tuple[int, float]]) -> None:
    """Stops a server that an earlier run left behind."""
    for signum, patience_s in steps:
        try:
            os.kill(pid, signum)
        except ProcessLookupError:
            return
        if await wait_until(lambda: not is_running(pid), patience_s):
            return
