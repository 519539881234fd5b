"""Starts programs as processes of their own, forked from one that has imported them (`launcher.py`)."""

from __future__ import annotations

import asyncio
import atexit
import functools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO

from tests.support.launcher import NUMBER, Asked

ROOT = Path(__file__).parents[2]
PIPE = subprocess.PIPE
STDOUT = subprocess.STDOUT

READ_AT_IMPORT = ("OTEL_", "PROMETHEUS_")
"""Variables that begin like this count when a library is imported: with one of them a program is not forked."""


class Program:
    """A running program; it has what the tests use of asyncio's Process."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._has_ended = asyncio.Event()
        self.pid = 0
        self.returncode: int | None = None
        self.stdout: asyncio.StreamReader | None = None
        self.stderr: asyncio.StreamReader | None = None

    async def begin(self) -> None:
        """Waits for its process id."""
        loop = asyncio.get_running_loop()
        self._connection.setblocking(False)
        (self.pid,) = NUMBER.unpack(await loop.sock_recv(self._connection, NUMBER.size))
        loop.add_reader(self._connection, self._end)

    def _end(self) -> None:
        asyncio.get_running_loop().remove_reader(self._connection)
        with self._connection:
            (self.returncode,) = NUMBER.unpack(self._connection.recv(NUMBER.size))
        self._has_ended.set()

    async def wait(self) -> int:
        """Returns its exit code, -N by signal N."""
        await self._has_ended.wait()
        assert self.returncode is not None
        return self.returncode

    async def communicate(self) -> tuple[bytes, bytes]:
        """Returns what it writes until it ends."""
        out, err, _ = await asyncio.gather(_all_of(self.stdout), _all_of(self.stderr), self.wait())
        return out, err

    def send_signal(self, signum: int) -> None:
        if self.returncode is None:
            os.kill(self.pid, signum)

    def terminate(self) -> None:
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.send_signal(signal.SIGKILL)


Process = Program | asyncio.subprocess.Process


async def start(
    module: str,
    *words: str,
    env: Mapping[str, str],
    stdout: IO[bytes] | int | None = None,
    stderr: IO[bytes] | int | None = None,
    pass_fds: Sequence[int] = (),
) -> Process:
    """Starts `python -m module words` with nothing to read from stdin, in the repository's directory.

    The other arguments are those of `asyncio.create_subprocess_exec`.
    """
    if any(name.startswith(READ_AT_IMPORT) for name in env):
        return await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", module, *words),
            env=env, cwd=ROOT, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stderr, pass_fds=pass_fds,
        )  # fmt: skip
    asked = Asked(module=module, words=words, environ=dict(env), files=[0, 1, 2, *pass_fds])
    with ExitStack() as stack:
        nothing = stack.enter_context(Path(os.devnull).open("rb"))
        out, of_out = _opened(stdout, 1, stack)
        err, of_err = (out, None) if stderr == STDOUT else _opened(stderr, 2, stack)
        connection = _ask(asked, [nothing.fileno(), out, err, *pass_fds])
    program = Program(connection)
    await program.begin()
    program.stdout, program.stderr = await _stream_of(of_out), await _stream_of(of_err)
    return program


def _opened(given: IO[bytes] | int | None, own: int, stack: ExitStack) -> tuple[int, IO[bytes] | None]:
    """Returns the file that a program writes to, which is `own` by default, and the other end if it is a pipe."""
    if given == PIPE:
        reading, writing = os.pipe()
        stack.callback(os.close, writing)
        return writing, os.fdopen(reading, "rb")
    if given is None or isinstance(given, int):
        return own if given is None else given, None
    return given.fileno(), None


def _ask(asked: Asked, files: Sequence[int]) -> socket.socket:
    """Asks the launcher for a program. Returns the connection over which it answers."""
    text = json.dumps(asked).encode()
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(_launcher())
    socket.send_fds(connection, [NUMBER.pack(len(text))], files)
    connection.sendall(text)
    return connection


@functools.cache
def _launcher() -> str:
    """Starts the launcher of this process, which ends with it. Returns the path of its socket."""
    directory = tempfile.mkdtemp(prefix="launcher-")
    path = str(Path(directory) / "socket")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.support.launcher", str(listener.fileno())],
            cwd=ROOT,
            stdin=PIPE,
            pass_fds=[listener.fileno()],
        )
    atexit.register(shutil.rmtree, directory)
    atexit.register(process.communicate)
    return path


async def _stream_of(pipe: IO[bytes] | None) -> asyncio.StreamReader | None:
    if pipe is None:
        return None
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), pipe)
    return reader


async def _all_of(reader: asyncio.StreamReader | None) -> bytes:
    return b"" if reader is None else await reader.read()
