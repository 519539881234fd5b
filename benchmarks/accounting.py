"""CPU time and memory of groups of processes, from /proc.

A group is a set of root processes and their descendants. The CPU time of a process that has ended stays in
the sum if its parent waited for it: the kernel adds it to the parent's child time. PostgreSQL, gunicorn, nginx and
the supervisor all wait for their children.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024.0  # in KiB, the unit of /proc


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_s: float


def cpu_seconds(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Returns, per group, the CPU seconds (user and system) that its processes have used so far."""
    table = _table()
    return {
        name: sum(table[pid].cpu_s for pid in _trees(table, roots) if pid in table)
        for name, roots in groups.items()
    }


def memory_mib(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Returns MiB per group as proportional set sizes, so shared memory (PostgreSQL's buffers) is counted once."""
    table = _table()
    return {name: sum(map(_pss_mib, _trees(table, roots))) for name, roots in groups.items()}


def children(root: int) -> list[int]:
    """Returns the running child processes of `root`."""
    return [pid for pid, process in _table().items() if process.parent == root]


def resident_mib(pid: int) -> float:
    """Returns the resident memory of a process in MiB, or 0 if there is no such process."""
    return _field_kib(Path(f"/proc/{pid}/status"), "VmRSS:") / _MIB


def peak_resident_mib(pids: Sequence[int]) -> float:
    """Returns the sum of the peak resident memory of each process, in MiB."""
    return sum(_field_kib(Path(f"/proc/{pid}/status"), "VmHWM:") for pid in pids) / _MIB


def _pss_mib(pid: int) -> float:
    return _field_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / _MIB


def _field_kib(file: Path, name: str) -> float:
    try:
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return float(line.split()[1])
    except (OSError, ValueError):
        pass  # the process has ended meanwhile
    return 0.0


def _trees(table: Mapping[int, _Process], roots: Sequence[int]) -> list[int]:
    found = list(roots)
    for pid in found:  # the list grows during the iteration
        found += [child for child, process in table.items() if process.parent == pid]
    return found


def _table() -> dict[int, _Process]:
    found: dict[int, _Process] = {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            # The name in parentheses may contain any character. The state and the numbers follow it.
            words = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        cpu_s = sum(int(word) for word in words[11:15]) / _TICKS
        found[int(place.name)] = _Process(int(words[1]), cpu_s)
    return found
