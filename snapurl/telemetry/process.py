"""What a process says of itself without being asked: how late its event loop is, what it uses, how its parts fare.

Where several processes share their metrics, a gauge cannot be asked when somebody looks: it has to be set by its
process now and then. Each part sets its own (`measure`); this calls them once a second. Ten times a second it looks
how late the loop lets it have its turn, which is what a request waits too before anybody looks at it.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from snapurl.telemetry.metrics import BUILD, CPU_SECONDS, LOOP_LAG_SECONDS, MEMORY_BYTES, settle_all, timing

log = logging.getLogger("snapurl.pulse")

BEAT_S = 0.1
BEATS_PER_LOOK = 10

_LAG = timing(LOOP_LAG_SECONDS)
_STATM = Path("/proc/self/statm")


class ProcessMetrics:
    """Beats until it is cancelled; `looks` set the gauges of the process's parts and must not wait."""

    def __init__(self, looks: Sequence[Callable[[], None]]) -> None:
        self._looks = looks
        self._cpu_s = 0.0

    async def run(self) -> None:
        BUILD.labels(program_version()).set(1)
        clock = asyncio.get_running_loop().time
        while True:
            self._look()
            for _ in range(BEATS_PER_LOOK):
                due = clock() + BEAT_S
                await asyncio.sleep(BEAT_S)
                _LAG.observe(max(0.0, clock() - due))

    def _look(self) -> None:
        try:
            self._measure_process()
            for look in self._looks:
                look()
        except Exception:  # what cannot be measured must not end the measuring of the rest for ever
            log.exception("a measurement failed")
        settle_all()

    def _measure_process(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = used.ru_utime + used.ru_stime
        CPU_SECONDS.inc(cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        if _STATM.exists():  # Linux
            MEMORY_BYTES.set(int(_STATM.read_text().split()[1]) * resource.getpagesize())


def program_version() -> str:
    """The version that is installed; "0" in a tree that never was."""
    try:
        return version("snapurl")
    except PackageNotFoundError:
        return "0"
