"""A migrator in its own process, which the tests kill, stop and continue.

It prints "ready", waits for a line on standard input, works until nothing is left to do, and exits with 0.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import tools.cluster.calls
import tools.migrator.loop
from snapurl.config import load_settings
from tests.faults.pair import SLOTS_FIRST
from tests.support.waits import HANG_S
from tools.migrator.loop import Migrator, Options
from tools.migrator.throttle import Throttle

tools.migrator.loop.IDLE_S = 0.05  # the tests run it dozens of times
tools.migrator.loop.HEARTBEAT_S = 0.1
tools.cluster.calls.CALL_S_MAX = (
    HANG_S  # a busy machine does not make it give up a step that a test holds back
)


async def main() -> None:
    options = Options(grace_s=0.0, throttle=Throttle(slots=SLOTS_FIRST))
    migrator = Migrator(load_settings(), options)
    await migrator.run(asyncio.Event(), until_settled=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    print("ready", flush=True)
    if sys.stdin.readline():
        asyncio.run(main())
