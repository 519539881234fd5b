"""Blocked hosts: the list that a worker has of SNAPURL_BLOCKED_HOSTS_FILE, compiled anew when the file changes.

A file that was put in place of the old one at once (`mv`) is read CHECK_S later. One that is written in place must
have rested for CHECK_S, or for UNFINISHED_S if it is empty or its last line does not end. What cannot be read or is
no list of hosts leaves the list before it in use: that is a fault of the readiness, a metric and one line in the
log. Until a first list is there no link is made and no target is changed. `hosts_file.py` has the theory.
"""

from __future__ import annotations

import asyncio
import logging
import mmap
import os
import sys
import tempfile
from bisect import bisect_left
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import BinaryIO

from snapurl.errors import Unavailable, file_error
from snapurl.targets.hosts_file import HASH_BYTES, hash_of, with_parents
from snapurl.telemetry.metrics import BLOCKED_HOSTS, BLOCKLIST_FAULT, BLOCKLIST_LOADS
from snapurl.urls import comparable_host

log = logging.getLogger("snapurl.targets")

CHECK_S = 2.0  # how often the file is checked for a change
UNFINISHED_S = 60.0
RETRY_S = 60.0  # until a file that was refused is read again although it has not changed
COMPILE_S_MAX = 120.0
SAID_CHARS_MAX = 300
HEADER_NUMBERS = 3

Version = tuple[int, int, int, int]
"""What changes with a file: time of its last change and of its inode's, size, inode."""


@dataclass(frozen=True, slots=True)
class BlocklistState:
    """The list as one worker has it. `hosts` is None before the first list was loaded, `fault` if there is none."""

    file: str
    hosts: int | None
    unread_lines: int
    loaded_at: datetime | None
    fault: str | None


@dataclass(frozen=True, slots=True)
class _List:
    """Sorted hashes of hosts, in a file without a name that is mapped into memory."""

    hashes: memoryview
    unread_lines: int
    is_whole: bool

    @classmethod
    def of(cls, compiled: int) -> _List:
        """Raises ValueError for what the compiler has not finished."""
        if os.fstat(compiled).st_size < HEADER_NUMBERS * HASH_BYTES:
            raise ValueError("it was not compiled")
        numbers = memoryview(mmap.mmap(compiled, 0, access=mmap.ACCESS_READ)).cast("Q")
        count, unread_lines, is_whole = numbers[:HEADER_NUMBERS]
        if len(numbers) != HEADER_NUMBERS + count:
            raise ValueError("it was not compiled")
        return cls(numbers[HEADER_NUMBERS:], unread_lines, bool(is_whole))

    def has(self, host: str) -> bool:
        found = hash_of(host)
        place = bisect_left(self.hashes, found)
        return place < len(self.hashes) and self.hashes[place] == found


class _Refused(Exception):
    """Why the file could not be read, in words for operators."""


class BlockedHosts:
    """Host -> whether it is blocked. `clock` is monotonic, `now` the wall clock."""

    def __init__(self, file: Path, clock: Callable[[], float], now: Callable[[], datetime]) -> None:
        self._file = file.expanduser()
        self._clock = clock
        self._now = now
        self._list: _List | None = None
        self._loaded: Version | None = None
        self._loaded_at: datetime | None = None
        self._seen: Version | None = None
        self._seen_s = 0.0
        self._refused: Version | None = None
        self._refused_s = 0.0
        self._unfinished: Version | None = None
        self._fault: str | None = None
        self._set_fault(None)

    @property
    def fault(self) -> str | None:
        """What is wrong with the file, None if nothing is."""
        return self._fault or ("is being loaded" if self._list is None else None)

    @property
    def state(self) -> BlocklistState:
        found = self._list
        return BlocklistState(
            str(self._file),
            None if found is None else len(found.hashes),
            0 if found is None else found.unread_lines,
            self._loaded_at,
            self.fault,
        )

    def has(self, host: str) -> bool:
        """Whether a host of a stored URL, or one above it, is blocked. Raises Unavailable before the first list."""
        found = self._list
        if found is None:
            raise Unavailable(
                f"the list of blocked hosts: {self.fault}", cause="blocklist", retry_after_s=5.0
            )
        return any(map(found.has, with_parents(comparable_host(host))))

    async def run(self) -> None:
        """Reads the file whenever it has changed, until it is cancelled."""
        while True:
            await self.check()
            await asyncio.sleep(CHECK_S)

    async def check(self) -> None:
        """Reads the file if it has changed and rests, or if there is no list yet."""
        try:
            version = await asyncio.to_thread(_version, self._file)
        except OSError as error:
            self._set_fault(file_error(error))
            return
        now_s = self._clock()
        if version != self._seen:
            self._seen, self._seen_s = version, now_s
            if self._list is not None:
                return
        has_rested = now_s - self._seen_s >= UNFINISHED_S
        if version == self._loaded:
            self._set_fault(None)
        elif (version != self._refused or now_s - self._refused_s >= RETRY_S) and (
            version != self._unfinished or has_rested
        ):
            await self._read(version, has_rested)

    async def _read(self, version: Version, has_rested: bool) -> None:
        try:
            found = await self._compiled()
        except _Refused as refusal:
            self._refused, self._refused_s = version, self._clock()
            BLOCKLIST_LOADS.labels("failed").inc()
            self._set_fault(str(refusal))
            return
        if await asyncio.to_thread(_version_or_none, self._file) != version:
            return  # it changed meanwhile: the next check sees the new version
        if not (found.is_whole or has_rested) and self._list is not None:
            self._unfinished = version
            return
        self._list, self._loaded, self._loaded_at = found, version, self._now()
        BLOCKLIST_LOADS.labels("loaded").inc()
        BLOCKED_HOSTS.set(len(found.hashes))
        self._set_fault(None)
        log.info("%d blocked hosts, %d lines that name none", len(found.hashes), found.unread_lines)

    async def _compiled(self) -> _List:
        """Returns the list that the file has now. Raises _Refused."""
        with _unnamed_file() as compiled:
            try:
                process = await asyncio.create_subprocess_exec(
                    sys.executable,
                    "-m",
                    "snapurl.targets.hosts_file",
                    str(self._file),
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=compiled,
                    stderr=asyncio.subprocess.PIPE,
                )
            except OSError as error:
                raise _Refused(f"cannot start the program that reads it: {error.strerror}") from None
            try:
                async with asyncio.timeout(COMPILE_S_MAX):
                    _, said = await process.communicate()
            except TimeoutError:
                raise _Refused(f"it took longer than {COMPILE_S_MAX:g} s to read") from None
            finally:
                with suppress(ProcessLookupError):
                    process.kill()
            if process.returncode:
                raise _Refused(f"{self._file}: {_last_line(said) or f'exit code {process.returncode}'}")
            try:
                return await asyncio.to_thread(_List.of, compiled.fileno())
            except (OSError, ValueError) as error:
                raise _Refused(f"{self._file}: {error}") from None

    def _set_fault(self, fault: str | None) -> None:
        if fault is not None and fault != self._fault:
            log.error("the list of blocked hosts stays as it was: %s", fault)
        if fault is None and self._fault is not None:
            log.info("the list of blocked hosts can be read again")
        self._fault = fault
        BLOCKLIST_FAULT.set(fault is not None)


def _unnamed_file() -> BinaryIO:
    """Opens a file that ends with its last user: in memory where the platform can, since /tmp may be small."""
    if sys.platform == "linux":
        return os.fdopen(os.memfd_create("blocked hosts"), "w+b", buffering=0)
    return tempfile.TemporaryFile(buffering=0)


def _version(file: Path) -> Version:
    found = file.stat()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _version_or_none(file: Path) -> Version | None:
    try:
        return _version(file)
    except OSError:
        return None


def _last_line(said: bytes) -> str:
    lines = said.decode("utf-8", "replace").split("\n")
    return next((line.strip()[:SAID_CHARS_MAX] for line in reversed(lines) if line.strip()), "")
