"""The metrics of several processes in one directory, and what becomes of those of a process that has ended.

Theory. Each process writes files of its own, and who is asked adds all of them up. A counter must not go back
because its process has ended, and processes may end without a bound; so the files of one that has ended are added
to one file of the dead and deleted (`bury`). In between they would be counted twice or not at all, hence the lock:
many may read (`collect`), one may bury, and nobody does both at once. Gauges say what is: those of the dead go.
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

DEAD = "dead"
ADDED_UP = ("counter", "histogram")
UNREADABLE = (RuntimeError, ValueError, struct.error, OSError)


class _Files(Collector):
    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        # A process that is just starting may have made a file without anything in it yet.
        files = [str(file) for file in self._directory.glob("*.db") if file.stat().st_size]
        yield from MultiProcessCollector.merge(files)  # type: ignore[no-untyped-call]


def collect(directory: Path) -> bytes:
    """The metrics of all processes, as Prometheus reads them. It takes milliseconds of work and waits for a lock:
    not to be called where others wait."""
    registry = CollectorRegistry()
    with _locked(directory, fcntl.LOCK_SH):
        registry.register(_Files(directory))
        return generate_latest(registry)


def begin(directory: Path) -> None:
    """Makes an empty directory ready: what is counted here begins at 0, so that a first increase is seen."""
    with _locked(directory, fcntl.LOCK_EX):
        _count(directory, CHILDREN_ENDED, 0)


def merge_dead(directory: Path, pid: int) -> None:
    """Keeps what an ended process has counted, in the file of the dead, and forgets its gauges; counts its end."""
    with _locked(directory, fcntl.LOCK_EX):
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
        for kind in ADDED_UP:
            file = directory / f"{kind}_{pid}.db"
            if not file.exists():
                continue
            try:
                _add(file, directory / f"{kind}_{DEAD}.db")
            except UNREADABLE as error:
                log.error("what process %d has counted is lost: %s", pid, type(error).__name__)
            file.unlink()
        _count(directory, CHILDREN_ENDED, 1)


def _add(file: Path, dead: Path) -> None:
    values = list(MmapedDict.read_all_values_from_file(str(file)))  # type: ignore[no-untyped-call]
    with _opened(dead) as kept:
        for key, value, _, _ in values:
            kept.write_value(key, kept.read_value(key)[0] + value, 0.0)


def _count(directory: Path, counter: Counter, by: int) -> None:
    key = mmap_key(counter._name, f"{counter._name}_total", [], [], counter._documentation)
    with _opened(directory / f"counter_{DEAD}.db") as kept:
        kept.write_value(key, kept.read_value(key)[0] + by, 0.0)


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    kept: Any = MmapedDict(str(file))  # type: ignore[no-untyped-call]
    try:
        yield kept
    finally:
        kept.close()


@contextlib.contextmanager
def _locked(directory: Path, how: int) -> Iterator[None]:
    with (directory / "lock").open("a") as file:
        fcntl.flock(file, how)  # goes with the file, and so with a process that is killed
        yield
