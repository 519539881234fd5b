"""A short run in which each fault occurs once and nothing is measured: see `make drill NAME=availability`."""

from __future__ import annotations

import asyncio
import os
import random
import signal

from snapurl.parent_death import signal_at_parent_death
from tests.drills.availability.__main__ import command

RUN_S_MAX = 240.0


async def test_nothing_is_lost_while_parts_are_killed_and_frozen() -> None:
    """No write is lost and clicks are exact while workers, servers, consumer and migrator are killed and frozen."""
    seed = int(os.environ.get("TEST_SEED") or random.randrange(2**32))
    print(f"TEST_SEED={seed}")
    process = await asyncio.create_subprocess_exec(
        *command("--seconds", "9", "--short", "--seed", str(seed), "--rate", "50"),
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        preexec_fn=signal_at_parent_death(signal.SIGKILL),
    )
    try:
        async with asyncio.timeout(RUN_S_MAX):
            output, _ = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    said = output.decode(errors="replace")
    print(said)
    assert process.returncode == 0, said
    assert "nothing acknowledged was lost" in said
