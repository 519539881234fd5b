"""Metrics of several processes in one directory, and of processes that have ended.

Theory. In multiprocess mode of prometheus_client each process writes its own files, and `collect` adds them up. A
counter must not decrease when its process ends, and any number of processes may end. So `merge_dead` adds the
files of an ended process to one file of dead processes and deletes them. In between, its values would be counted
twice or not at all, hence the lock: many may `collect` at a time, or one may `merge_dead`. Gauges of dead
processes are dropped.

prometheus_client cannot merge counters and histograms of dead processes, so this module reads and writes its
files with `mmap_dict.MmapedDict` and `mmap_dict.mmap_key`: undocumented, and the same in versions 0.21 to 0.26,
which were tested. A test names what a later version has renamed.
"""

from __future__ import annotations

import contextlib
import fcntl
import logging
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Metric, generate_latest
from prometheus_client.mmap_dict import MmapedDict, mmap_key
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead
from prometheus_client.registry import Collector

from snapurl.telemetry.metrics import CHILDREN_ENDED

log = logging.getLogger("snapurl.metrics")

DEAD = "dead"  # in place of the process id in a file's name
MERGED = ("counter", "histogram")
UNREADABLE = (RuntimeError, ValueError, struct.error, OSError)


class _Files(Collector):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        # The file of a process that is just starting may still be empty.
        files = [str(file) for file in self._directory.glob("*.db") if file.stat().st_size]
        yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]


def collect(directory: Path) -> bytes:
    """Returns the metrics of all processes in the text format.

    Takes milliseconds and waits for the lock, so it must not be called on an event loop.
    """
    registry = CollectorRegistry()
    with _locked(directory, fcntl.LOCK_SH):
        registry.register(_Files(directory))
        return generate_latest(registry)


def initialise(directory: Path) -> None:
    """Prepares an empty directory: sets our own counter to 0, so that Prometheus sees the first increase."""
    with _locked(directory, fcntl.LOCK_EX):
        _count(directory, CHILDREN_ENDED, 0)


def merge_dead(directory: Path, pid: int) -> None:
    """Merges the counters of an ended process into the file of dead processes, drops its gauges, counts its end."""
    with _locked(directory, fcntl.LOCK_EX):
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        for kind in MERGED:
            file = directory / f"{kind}_{pid}.db"
            if not file.exists():
                continue
            try:
                _add(file, directory / f"{kind}_{DEAD}.db")
            except UNREADABLE as error:
                log.error("the metrics of process %d are lost: %s", pid, type(error).__name__)
            file.unlink()
        _count(directory, CHILDREN_ENDED, 1)


def _add(file: Path, dead: Path) -> None:
    values = list(MmapedDict.read_all_values_from_file(str(file)))  # type: ignore[no-untyped-call]
    with _opened(dead) as merged:
        for key, value, _, _ in values:
            merged.write_value(key, merged.read_value(key)[0] + value, 0.0)


def _count(directory: Path, counter: Counter, by: int) -> None:
    (described,) = counter.describe()
    key = mmap_key(described.name, f"{described.name}_total", [], [], described.documentation)
    with _opened(directory / f"counter_{DEAD}.db") as merged:
        merged.write_value(key, merged.read_value(key)[0] + by, 0.0)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    values: Any = MmapedDict(str(file))  # type: ignore[no-untyped-call]
    try:
        yield values
    finally:
        values.close()


@contextlib.contextmanager
def _locked(directory: Path, operation: int) -> Iterator[None]:
    with (directory / "lock").open("a") as file:
        fcntl.flock(file, operation)  # released when the file is closed, also by kill -9
        yield
