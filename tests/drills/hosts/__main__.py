"""A whole cluster on separate hosts, whose network fails.

    python -m tests.drills.hosts --seed 7 --fault-s 5 [SCENARIO …]

Two API hosts, five shards, a Redis and a migrator, each in a separate network namespace with a separate address.
They are connected by a switch in user space (`switch.py`), since not every kernel has netem, and a cut has to be
silent. Needs Linux, util-linux, and the right to make namespaces and a tun device. The machine's own network is
not changed, and nothing is left behind.
"""

from __future__ import annotations

import argparse
import asyncio
import random
import signal
import sys

from snapurl.parent_death import signal_at_parent_death
from tests.drills.hosts.network import isolated, why_not

RUN_S_MAX = 400.0


async def run_isolated(*words: str, timeout_s: float = RUN_S_MAX) -> tuple[int, str]:
    """Returns the exit code and output of a run, and leaves no process behind. Raises TimeoutError."""
    process = await asyncio.create_subprocess_exec(
        *isolated(sys.executable, "-m", "tests.drills.hosts.inside", *words),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=signal_at_parent_death(signal.SIGKILL),
    )
    assert process.stdout is not None
    said = []
    try:
        async with asyncio.timeout(timeout_s):
            async for line in process.stdout:
                said.append(line.decode(errors="replace"))
                print(said[-1], end="", flush=True)
            return await process.wait(), "".join(said)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description="Cuts links between hosts, during traffic and a reshard.")
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--fault-s", type=float, default=5.0, help="how long each fault lasts")
    parser.add_argument("scenarios", nargs="*", help="which ones; all if none is named")
    asked = parser.parse_args()
    if reason := why_not():
        sys.exit(f"cannot be shown here: {reason}")
    seed = random.randrange(2**32) if asked.seed is None else asked.seed
    print(f"--seed {seed}", flush=True)
    words = ("--seed", str(seed), "--fault-s", str(asked.fault_s), *asked.scenarios)
    code, _ = asyncio.run(run_isolated(*words))
    sys.exit(code)


if __name__ == "__main__":
    main()
