"""What a cluster without traffic costs: the CPU time of each process of `snapurl up`.

    python -m tests.drills.idle --seconds 60

CPU time and not elapsed time, so other work on the machine matters little. It fails above CORE_MAX of one core.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from snapurl.local.free_ports import free_port
from snapurl.probe import fault
from snapurl.run.supervisor import environ_with, python_argv

CORE_MAX = 0.02
# After the start, until nothing of it is left to do. The daily folding of clicks begins after a minute.
SETTLE_S = 80.0
READY_S_MAX = 120.0


@dataclass(frozen=True)
class Used:
    """CPU seconds and wake-ups of a process so far."""

    cpu_s: float
    wakeups: int


def read(pid: int) -> Used:
    """Returns what a process has used. Raises OSError if it has ended."""
    cpu_ns = int(Path(f"/proc/{pid}/schedstat").read_text().split()[0])
    status = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return Used(cpu_ns / 1e9, int(status["voluntary_ctxt_switches"]))


def family(root: int) -> list[int]:
    """Returns a process and all below it."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                stat = (entry / "stat").read_text()
            except OSError:
                continue
            parents.setdefault(int(stat.rpartition(")")[2].split()[1]), []).append(int(entry.name))
    found, todo = [], [root]
    while todo:
        pid = todo.pop()
        found.append(pid)
        todo += parents.get(pid, [])
    return found


def kind(pid: int) -> str:
    """Returns what a process is, without its number, addresses and paths."""
    command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    for part, name in (
        ("snapurl.run.worker", "worker"),
        ("snapurl.clicks", "click consumer"),
        ("tools.cli run", "migrator"),
        ("snapurl up", "snapurl up"),
        ("redis-server", "Redis"),
    ):
        if part in command:
            return name
    if command.startswith("postgres: "):
        return (
            "PostgreSQL: connections"
            if "[local]" in command or "(" in command
            else "PostgreSQL: own processes"
        )
    return "PostgreSQL: own processes" if "postgres" in command else command[:40]


@contextmanager
def running(directory: Path) -> Iterator[int]:
    """Runs `snapurl up` with two workers in an empty home; yields its process id once it is ready."""
    port = free_port(set())
    environ = environ_with(
        {"SNAPURL_HOME": str(directory / "home"), "SNAPURL_PORT": str(port), "SNAPURL_WORKERS": "2"}
    )
    with (directory / "up.log").open("wb") as log:
        process = subprocess.Popen(
            python_argv("-m", "snapurl", "up"), env=environ, stdout=log, stderr=log, stdin=subprocess.DEVNULL
        )
    try:
        deadline = time.monotonic() + READY_S_MAX
        while fault(f"http://127.0.0.1:{port}/health/ready"):
            if process.poll() is not None or time.monotonic() > deadline:
                sys.exit((directory / "up.log").read_text())
            time.sleep(0.2)
        yield process.pid
    finally:
        process.terminate()
        process.wait()


def measure(root: int, seconds: float) -> tuple[Counter[str], dict[str, float], dict[str, float]]:
    """Returns by kind of process how many there are, their part of a core, and their wake-ups per second."""
    before = {pid: read(pid) for pid in family(root)}
    began = time.monotonic()
    time.sleep(seconds)
    took = time.monotonic() - began
    count: Counter[str] = Counter()
    core: dict[str, float] = defaultdict(float)
    wakeups: dict[str, float] = defaultdict(float)
    for pid in family(root):
        now, earlier, name = read(pid), before.get(pid, Used(0.0, 0)), kind(pid)
        count[name] += 1
        core[name] += (now.cpu_s - earlier.cpu_s) / took
        wakeups[name] += (now.wakeups - earlier.wakeups) / took
    return count, core, wakeups


def main() -> None:
    """Prints a line per kind of process and the sum; exits with 1 if the sum is too much."""
    parser = argparse.ArgumentParser(prog="python -m tests.drills.idle")
    parser.add_argument("--seconds", type=float, default=60.0)
    seconds = parser.parse_args().seconds
    with tempfile.TemporaryDirectory(prefix="snapurl-idle-") as directory, running(Path(directory)) as root:
        time.sleep(SETTLE_S)
        count, core, wakeups = measure(root, seconds)
    print(f"{'processes':>9}  {'of a core':>9}  {'wake-ups/s':>10}")
    for name, part in sorted(core.items(), key=lambda item: -item[1]):
        print(f"{count[name]:>9}  {part:>9.2%}  {wakeups[name]:>10.1f}  {name}")
    total = sum(core.values())
    print(
        f"{count.total():>9}  {total:>9.2%}  {sum(wakeups.values()):>10.1f}  together; at most {CORE_MAX:.0%}"
    )
    sys.exit(total > CORE_MAX)


if __name__ == "__main__":
    main()
