"""Visits to more links with long targets than the caches hold, and to codes without links."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from redis.asyncio import Redis

from benchmarks.client import Connection
from tests.hostile.attacker import HOST, Attack
from tests.hostile.beside import GROWTH_MIB_MAX, LINKS_PATH, Scene, measured, scene
from tests.hostile.table import Figure

MIB = 2**20
L1_BYTES, L2_BYTES = 16 * MIB, 24 * MIB
KINDS = (
    (6_000, 8_000),
    (20_000, 1_900),
)  # links, characters of their targets: the shorter ones go into Redis
BULK = 500
ROOM = 1.3  # what memory in use of Redis may be of its bound: clicks, and what is on its way at the bound


def requests(codes: Sequence[str]) -> Iterator[bytes]:
    """Yields each link in turn, and as many codes without links."""
    for number, code in enumerate(itertools.cycle(codes)):
        yield f"GET /{code} HTTP/1.1\r\nHost: x\r\n\r\n".encode()
        yield f"GET /none-{number} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


ATTACK = Attack(requests, frozenset({302, 404, 503}))


async def make_long_links(here: Scene) -> list[str]:
    connection = Connection(HOST, here.service.port)
    codes: list[str] = []
    for count, chars in KINDS:
        for _ in range(0, count, BULK):
            links = [{"url": "https://example.org/".ljust(chars, "x")}] * BULK
            answer = await connection.post(f"{LINKS_PATH}/bulk", {"links": links})
            assert answer.status == 200, answer
            codes += [each["link"]["code"] for each in answer.json()["results"]]
    await connection.close()
    return codes


async def run(seconds: float) -> list[Figure]:
    """Visits such links and codes; no limit ends it, and the caches are small enough to be filled."""
    bounds = {"SNAPURL_L1_BYTES": str(L1_BYTES), "SNAPURL_L2_BYTES": str(L2_BYTES)}
    async with scene(**bounds, SNAPURL_LIMIT_MISSING="none", SNAPURL_LIMIT_CREATE="none") as here:
        codes = await make_long_links(here)
        growth_mib_max = GROWTH_MIB_MAX + L1_BYTES / MIB
        figures = await measured(
            here, f"{__name__}:ATTACK", seconds, codes=codes, growth_mib_max=growth_mib_max
        )
        async with Redis.from_url(here.bed.cluster.redis_url) as redis:
            peak = int((await redis.info("memory"))["used_memory_peak"])
    return [
        *figures,
        Figure(
            "memory of Redis",
            f"{peak / MIB:.0f} MiB",
            f"{ROOM * L2_BYTES / MIB:.0f} MiB",
            peak <= ROOM * L2_BYTES,
        ),
    ]
