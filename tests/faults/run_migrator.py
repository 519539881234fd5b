"""A migrator in a process of its own, for the tests to kill, stop and wake.

It says "ready", waits for a line on its standard input, works until nothing is left to do, and ends with code 0.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import tools.migrator.loop
from snapurl.config import load_settings
from tests.faults.pair import SLOTS_FIRST
from tools.migrator.loop import Migrator, Options
from tools.migrator.throttle import Throttle

tools.migrator.loop.IDLE_S = 0.05  # a test has dozens of runs to get through
tools.migrator.loop.HEARTBEAT_S = 0.1


async def main() -> None:
    options = Options(grace_s=0.0, throttle=Throttle(slots=SLOTS_FIRST))
    migrator = Migrator(load_settings(), options)
    await migrator.run(asyncio.Event(), until_settled=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    print("ready", flush=True)
    if sys.stdin.readline():
        asyncio.run(main())
