"""Passwords of links: hashed and verified with Argon2id, in one thread per process that gives way to everything
else.

A hash is made to be expensive, and strangers may ask for one. So a process computes one at a time, outside the
event loop and at a low priority; some more wait, and beyond them the answer is 503. Redirects of other links do not
wait for any of it.
"""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TypeVar

from argon2 import PasswordHasher
from argon2.exceptions import Argon2Error, InvalidHashError

from snapurl.errors import Unavailable
from snapurl.telemetry.metrics import PASSWORD_SECONDS, timed, timing

MEMORY_KIB, PASSES = 19_456, 2  # of one hash: about 20 ms
WAITING_MAX = 32  # hashes that wait for the thread; then 503
NICENESS = 10  # of the thread

_SECONDS = timing(PASSWORD_SECONDS)
_HASHER = PasswordHasher(time_cost=PASSES, memory_cost=MEMORY_KIB, parallelism=1)

T = TypeVar("T")


class Passwords:
    """Hashes and verifies passwords, one at a time."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "passwords", _give_way)
        self._waiting = 0

    async def hash(self, password: str) -> str:
        """Returns the hash of a password, with its salt and parameters. Raises Unavailable."""
        return await self._run(lambda: _HASHER.hash(password))

    async def is_right(self, password: str, password_hash: str) -> bool:
        """Whether `password` is the one that was hashed. Raises Unavailable."""
        return await self._run(lambda: _verify(password, password_hash))

    def close(self) -> None:
        """Drops what waits."""
        self._thread.shutdown(wait=False, cancel_futures=True)

    async def _run(self, call: Callable[[], T]) -> T:
        if self._waiting > WAITING_MAX:
            raise Unavailable("too many passwords are being checked", is_public=True, retry_after_s=1.0)
        self._waiting += 1
        running = asyncio.get_running_loop().run_in_executor(self._thread, call)
        running.add_done_callback(self._done)
        with timed(_SECONDS):
            return await asyncio.shield(running)

    def _done(self, _: object) -> None:
        self._waiting -= 1


def _verify(password: str, password_hash: str) -> bool:
    try:
        return _HASHER.verify(password_hash, password)
    except (Argon2Error, InvalidHashError):  # another password, or a row that was written by other means
        return False


def _give_way() -> None:
    with suppress(OSError, AttributeError):  # only Linux has priorities of threads
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
