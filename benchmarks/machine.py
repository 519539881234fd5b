"""The machine that the figures were measured on. No figure is shown without it."""

from __future__ import annotations

import os
import platform
import re
import sys
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path


@dataclass(frozen=True, slots=True)
class Machine:
    """The machine, the programs and the time. `load_before` is the load average at the start of the run."""

    cpu: str
    cores: int
    memory_gib: float
    system: str
    python: str
    cluster: str
    load_before: float
    at: str

    def __str__(self) -> str:
        return (
            f"{self.cpu}, {self.cores} cores shared by everything that takes part, {self.memory_gib:.0f} GiB, "
            f"{self.system}, Python {self.python}, {self.cluster}; {self.at}, "
            f"load average before: {self.load_before:.2f}"
        )


def this_machine(cluster: str) -> Machine:
    """Describes this machine. `cluster` names PostgreSQL and Redis, as `LocalCluster.describe` does."""
    return Machine(
        cpu=_cpu(),
        cores=len(os.sched_getaffinity(0)),
        memory_gib=os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30,
        system=f"{platform.system()} {platform.release()}",
        python=sys.version.split()[0],
        cluster=cluster,
        load_before=os.getloadavg()[0],
        at=datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
    )


def _cpu() -> str:
    try:
        found = re.search(r"^model name\s*:\s*(.+)$", Path("/proc/cpuinfo").read_text(), re.MULTILINE)
    except OSError:
        found = None
    return found[1] if found else platform.processor() or platform.machine()
