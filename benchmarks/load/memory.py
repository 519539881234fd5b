"""Memory of a worker with 100,000 cached links: requests each link once, then measures the process."""

from __future__ import annotations

import asyncio

from benchmarks.accounting import children, resident_mib
from benchmarks.bed import HOST, Bed, serving
from benchmarks.client import Connection
from benchmarks.programs import BenchmarkFailed
from benchmarks.seeding import code_of

CONNECTIONS = 32
SETTLE_S = 1.0


async def worker_mib(bed: Bed, links: int) -> tuple[float, float]:
    """Returns the resident MiB of one worker with an empty cache and with `links` cached links."""
    async with serving(bed, 1, SNAPURL_L1_MAX_AGE_S="3600", SNAPURL_L1_LINKS=str(links)) as service:
        await asyncio.sleep(SETTLE_S)
        (worker,) = children(service.workers.pid)
        empty = resident_mib(worker)
        numbers = iter(range(links))

        async def visit() -> None:
            connection = Connection(HOST, service.port)
            for number in numbers:
                answer = await connection.get(f"/{code_of(number)}")
                if answer.status != 302:
                    raise BenchmarkFailed(f"/{code_of(number)} answers {answer.status}")
            await connection.close()

        await asyncio.gather(*(visit() for _ in range(CONNECTIONS)))
        await asyncio.sleep(SETTLE_S)
        return empty, resident_mib(worker)
