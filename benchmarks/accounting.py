"""CPU time and memory of groups of processes, from /proc: of each root process and all that it has started.

What a process has used stays in the account when it ends, in its parent's time of children, if the parent has
asked for it; PostgreSQL, gunicorn, nginx and our supervisor all do.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_TICKS = os.sysconf("SC_CLK_TCK")
_MIB = 1024.0  # of the KiB in which /proc counts


@dataclass(frozen=True, slots=True)
class _Process:
    parent: int
    cpu_s: float


def cpu_seconds(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Group -> seconds of CPU, user and system, that its processes have used so far."""
    table = _table()
    return {
        name: sum(table[pid].cpu_s for pid in _trees(table, roots) if pid in table)
        for name, roots in groups.items()
    }


def memory_mib(groups: Mapping[str, Sequence[int]]) -> dict[str, float]:
    """Group -> MiB. What several processes share (PostgreSQL's buffers) is counted once: proportional set sizes."""
    table = _table()
    return {name: sum(map(_pss_mib, _trees(table, roots))) for name, roots in groups.items()}


def children(root: int) -> list[int]:
    """The processes that `root` has started and that still run."""
    return [pid for pid, process in _table().items() if process.parent == root]


def resident_mib(pid: int) -> float:
    """Resident memory of one process, in MiB; 0 if there is none of that number."""
    return _field_kib(Path(f"/proc/{pid}/status"), "VmRSS:") / _MIB


def peak_resident_mib(pids: Sequence[int]) -> float:
    """The sum of the most that each process ever had resident, in MiB."""
    return sum(_field_kib(Path(f"/proc/{pid}/status"), "VmHWM:") for pid in pids) / _MIB


def _pss_mib(pid: int) -> float:
    return _field_kib(Path(f"/proc/{pid}/smaps_rollup"), "Pss:") / _MIB


def _field_kib(file: Path, name: str) -> float:
    try:
        for line in file.read_text().splitlines():
            if line.startswith(name):
                return float(line.split()[1])
    except (OSError, ValueError):
        pass  # it has ended meanwhile
    return 0.0


def _trees(table: Mapping[int, _Process], roots: Sequence[int]) -> list[int]:
    found = list(roots)
    for pid in found:  # grows while it is walked
        found += [child for child, process in table.items() if process.parent == pid]
    return found


def _table() -> dict[int, _Process]:
    found: dict[int, _Process] = {}
    for place in Path("/proc").iterdir():
        if not place.name.isdigit():
            continue
        try:
            # The name in parentheses may hold anything; what follows it are numbers, the state first.
            words = (place / "stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        cpu_s = sum(int(word) for word in words[11:15]) / _TICKS
        found[int(place.name)] = _Process(int(words[1]), cpu_s)
    return found
