"""Metrics that a process sets by itself: event loop lag, CPU, memory, and the gauges of its parts.

In multiprocess mode a gauge cannot be computed when it is scraped: its process has to set it. Each part of a
process has a function that sets its gauges (`measure`); `ProcessMetrics` calls them once a second, and every two
seconds while the process is idle. It also measures how late the event loop runs a timer: a request waits as long
before the worker reads it. It does so ten times a second, and once between two measurements of an idle process.
"""

from __future__ import annotations

import asyncio
import logging
import resource
from collections.abc import Callable, Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from snapurl.telemetry.metrics import (
    BUILD,
    CPU_SECONDS,
    LOOP_LAG_SECONDS,
    MEMORY_BYTES,
    flush_timings,
    timing,
)

log = logging.getLogger("snapurl.pulse")

LAG_SAMPLE_S = 0.1
SAMPLES_PER_MEASUREMENT = 10
IDLE_PAUSE_S = 2.0
IDLE_CPU_S = 0.05  # used since the last measurement; below it the process counts as idle

_LAG = timing(LOOP_LAG_SECONDS)
_STATM = Path("/proc/self/statm")


class ProcessMetrics:
    """Measures until it is cancelled. `measurements` set the gauges of the process's parts and must not block."""

    def __init__(self, measurements: Sequence[Callable[[], None]]) -> None:
        self._measurements = measurements
        self._cpu_s = 0.0

    async def run(self) -> None:
        BUILD.labels(program_version()).set(1)
        clock = asyncio.get_running_loop().time
        while True:
            is_idle = self._measure() < IDLE_CPU_S
            samples, pause_s = (1, IDLE_PAUSE_S) if is_idle else (SAMPLES_PER_MEASUREMENT, LAG_SAMPLE_S)
            for _ in range(samples):
                due = clock() + pause_s
                await asyncio.sleep(pause_s)
                _LAG.observe(max(0.0, clock() - due))

    def _measure(self) -> float:
        """Sets all gauges. Returns how many seconds of CPU time the process has used since the last time."""
        before_s = self._cpu_s
        try:
            self._measure_process()
            for measure in self._measurements:
                measure()
        except Exception:  # a failed measurement must not end all later ones
            log.exception("a measurement failed")
        flush_timings()
        return self._cpu_s - before_s

    def _measure_process(self) -> None:
        used = resource.getrusage(resource.RUSAGE_SELF)
        cpu_s = used.ru_utime + used.ru_stime
        CPU_SECONDS.inc(cpu_s - self._cpu_s)
        self._cpu_s = cpu_s
        if _STATM.exists():  # Linux
            MEMORY_BYTES.set(int(_STATM.read_text().split()[1]) * resource.getpagesize())


def program_version() -> str:
    """Returns the installed version, or "0" if the program is not installed."""
    try:
        return version("snapurl")
    except PackageNotFoundError:
        return "0"
