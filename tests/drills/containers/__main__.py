"""Runs docker-compose.yml on a Docker engine of its own, under traffic: `make containers`.

    python -m tests.drills.containers --seed 7 [STEP …]

The engine and Compose come from Debian's packages, unpacked into build/containers, and so do the base images: they
are stand-ins of the names that the files use, since official images cannot be had everywhere. The engine runs in
network, mount and PID namespaces of its own. It, its containers and its data end with the drill, however that ends.
"""

from __future__ import annotations

import argparse
import json
import random
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from snapurl.parent_death import signal_at_parent_death
from tests.drills.containers.base import ROOT, CannotBeHad, fetch_engine, make_file_system, why_not
from tests.drills.containers.engine import isolated, remove_cgroups
from tests.drills.containers.steps import STEPS

HOME = ROOT / "build" / "containers"


def main() -> None:
    parser = argparse.ArgumentParser(
        description="Runs the containers on an engine of their own, under traffic."
    )
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument(
        "steps", nargs="*", metavar="STEP", help=f"which ones, all if none is named: {', '.join(STEPS)}"
    )
    asked = parser.parse_args()
    if unknown := set(asked.steps) - set(STEPS):
        parser.error(f"there is no step {', '.join(sorted(unknown))}")
    if reason := why_not():
        print(f"containers: skipped: {reason}")
        return
    HOME.mkdir(parents=True, exist_ok=True)
    try:
        environ = fetch_engine(HOME)
        packed = make_file_system(HOME)
    except CannotBeHad as error:
        print(f"containers: skipped: {error}")
        return
    sys.exit(_run(HOME, packed, environ, asked))


def _run(home: Path, packed: Path, environ: dict[str, str], asked: argparse.Namespace) -> int:
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    print(f"--seed {seed}", flush=True)
    place = Path(tempfile.mkdtemp(prefix="run-", dir=home))
    cgroup = f"snapurl-{place.name}"
    words = [
        "--place",
        str(place),
        "--packed",
        str(packed),
        "--environ",
        json.dumps(environ),
        "--cgroup",
        cgroup,
    ]
    inside = [
        sys.executable,
        "-m",
        "tests.drills.containers.inside",
        *words,
        "--seed",
        str(seed),
        *asked.steps,
    ]
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    ends_with_us = signal_at_parent_death(signal.SIGKILL)
    process = subprocess.Popen(isolated(*inside), preexec_fn=ends_with_us)  # noqa: PLW1509  # no threads here
    try:
        return process.wait()
    except KeyboardInterrupt:
        return 130
    finally:
        process.kill()  # the kernel ends everything in the namespaces
        process.wait()
        remove_cgroups(cgroup)
        shutil.rmtree(place, ignore_errors=True)


if __name__ == "__main__":
    main()
