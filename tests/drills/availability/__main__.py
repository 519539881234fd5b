"""Measures the share of correct redirects while parts of a cluster are killed, frozen, or out of disk.

    python -m tests.drills.availability --minutes 10 --seed 7

Visitors follow links at a steady rate, with a realistic popularity (Zipf) and warm caches, through the processes of
two API hosts; editors create, change and delete other links; slots move to a fifth shard and back all the time.
Every few seconds something is killed or frozen, or a disk fills up. The report gives the share of redirects that
were answered correctly. A late answer, a 503 and a lost connection count as wrong, and nothing is retried.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import subprocess
import sys

from snapurl.parent_death import signal_at_parent_death

ALONE = ("--mount", "--pid", "--fork", "--kill-child", "--mount-proc")


def isolated(*words: str) -> list[str]:
    """Returns a command line that runs `words`, if allowed in PID and mount namespaces that end with it."""
    for prefix in (("unshare", *ALONE), ("unshare", "--user", "--map-root-user", *ALONE)):
        if shutil.which("unshare") and _runs([*prefix, "true"]):
            return [*prefix, *words]
    return list(words)


def _runs(words: list[str]) -> bool:
    return subprocess.run(words, capture_output=True, check=False).returncode == 0


def command(*words: str) -> list[str]:
    return isolated(sys.executable, "-m", "tests.drills.availability.inside", *words)


def main() -> None:
    parser = argparse.ArgumentParser(description="Availability under random faults.")
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--rate", type=float, default=200.0, help="redirects per second")
    asked = parser.parse_args()
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    print(f"--minutes {asked.minutes} --seed {seed} --rate {asked.rate}", flush=True)
    words = ("--seconds", str(asked.minutes * 60), "--seed", str(seed), "--rate", str(asked.rate))
    ends_with_us = signal_at_parent_death(signal.SIGKILL)  # `unshare` ignores SIGTERM
    sys.exit(subprocess.run(command(*words), check=False, preexec_fn=ends_with_us).returncode)


if __name__ == "__main__":
    main()
