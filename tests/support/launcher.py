"""`python -m tests.support.launcher FD`: starts programs for tests. It imports them once, and forks for each start.

To import a program costs ten times what most tests have it do. What is forked is a process like any other: it has
its own id, environment and open files, runs its module as `python -m` does, and ends by itself. `programs.py` asks
for it over a connection to the socket FD:

    asks      the size of the rest (4 bytes), with the open files as ancillary data; then a JSON object, see `Asked`
    answers   the process id; when the process has ended, its exit code, -N by signal N (4 bytes each)

It ends when its stdin does.
"""

from __future__ import annotations

import contextlib
import fcntl
import gc
import importlib
import json
import os
import runpy
import select
import signal
import socket
import struct
import sys
import threading
from collections.abc import Sequence
from typing import TypedDict

NUMBER = struct.Struct("!i")
FILES_MAX = 16

IMPORTED = (
    "snapurl.cli",
    "snapurl.clicks.consumer",
    "snapurl.clicks.health",
    "snapurl.run.serve",
    "snapurl.run.worker",
    "snapurl.store.cluster.bootstrap",
    "tools.cli",
    "tools.migrator.loop",
    "tools.repair.doctor",
)
"""What the programs import sooner or later. To import one of these changes nothing outside of it."""


class Asked(TypedDict):
    """A program to start: `files` are the numbers that the open files are to have in it, in their order."""

    module: str
    words: Sequence[str]
    environ: dict[str, str]
    files: list[int]


class Launcher:
    """Forks a process for each connection, and tells there when it ends."""

    def __init__(self, listener: socket.socket) -> None:
        self._listener = listener
        self._children: dict[int, socket.socket] = {}
        self._woken, self._wakes = socket.socketpair()
        self._wakes.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda number, frame: None)
        signal.set_wakeup_fd(self._wakes.fileno(), warn_on_full_buffer=False)
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the tests

    def run(self) -> Asked | None:
        """Serves until stdin ends. Returns None then, and in each process that it forks what that one is to be."""
        while True:
            ready, _, _ = select.select([sys.stdin.fileno(), self._woken, self._listener], [], [])
            if self._woken in ready:
                self._woken.recv(4096)
                self._tell()
            if self._listener in ready and (asked := self._fork()) is not None:
                return asked
            if sys.stdin.fileno() in ready:
                return None

    def _fork(self) -> Asked | None:
        connection, _ = self._listener.accept()
        asked, files = _receive(connection)
        if (pid := os.fork()) == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            signal.signal(signal.SIGINT, signal.default_int_handler)
            for each in (connection, self._listener, self._woken, self._wakes, *self._children.values()):
                os.close(each.detach())
            _place(files, asked["files"])
            return asked
        for file in files:
            os.close(file)
        self._children[pid] = connection
        _send(connection, pid)
        return None

    def _tell(self) -> None:
        """Tells who has ended."""
        while self._children:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            with self._children.pop(pid) as connection:
                _send(connection, os.waitstatus_to_exitcode(status))


def _receive(connection: socket.socket) -> tuple[Asked, list[int]]:
    head, files, _, _ = socket.recv_fds(connection, NUMBER.size, FILES_MAX)
    (size,) = NUMBER.unpack(head)
    return json.loads(connection.recv(size, socket.MSG_WAITALL)), files


def _send(connection: socket.socket, number: int) -> None:
    with contextlib.suppress(BrokenPipeError):  # nobody wants to know
        connection.sendall(NUMBER.pack(number))


def _place(files: list[int], numbers: list[int]) -> None:
    """Gives open files these numbers, and closes those that they have now."""
    above = max([*numbers, 2]) + 1
    moved = [fcntl.fcntl(file, fcntl.F_DUPFD, above) for file in files]
    for file in files:
        os.close(file)
    for file, number in zip(moved, numbers, strict=True):
        os.dup2(file, number)
        os.close(file)


def main(listener: socket.socket) -> None:
    """Imports the programs, then forks until stdin ends."""
    for module in IMPORTED:
        importlib.import_module(module)
    assert threading.active_count() == 1, "a fork would have lost the other threads"
    gc.collect()
    gc.freeze()
    if asked := Launcher(listener).run():
        os.environ.clear()
        os.environ.update(asked["environ"])
        sys.argv[1:] = asked["words"]
        sys.modules.pop(asked["module"], None)
        runpy.run_module(asked["module"], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main(socket.socket(fileno=int(sys.argv[1])))
