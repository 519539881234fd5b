"""A migrator in its own process, which the tests kill, stop and continue.

It works until nothing is left to do, and exits with 0.
"""

from __future__ import annotations

import asyncio
import logging
import sys

import tools.cluster.calls
import tools.migrator.loop
from snapurl.config import load_settings
from tests.support.waits import HANG_S
from tools.migrator.loop import Migrator, Options
from tools.migrator.throttle import Throttle

SLOTS_FIRST = 4  # of the dozen: both lanes have several to move when a fault strikes


async def main() -> None:
    options = Options(grace_s=0.0, throttle=Throttle(slots=SLOTS_FIRST))
    migrator = Migrator(load_settings(), options)
    await migrator.run(asyncio.Event(), until_settled=True)


if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO, stream=sys.stderr)
    tools.migrator.loop.IDLE_S = 0.05  # the tests run it dozens of times
    tools.migrator.loop.HEARTBEAT_S = 0.1
    # A busy machine does not make it give up a step that a test holds back.
    tools.cluster.calls.CALL_S_MAX = HANG_S
    asyncio.run(main())
