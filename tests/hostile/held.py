"""Connections that are only held, half of them with half a head, through the proxy of `deploy/proxy`."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager

from tests.hostile.attacker import Attack
from tests.hostile.beside import Scene, measured, scene
from tests.hostile.table import Figure
from tests.integration.test_proxy import proxy
from tests.support.waits import until

PLACES = "2000"  # connections that the proxy takes, of which one client may have 1,000


def requests(codes: Sequence[str]) -> Iterator[bytes]:
    return itertools.cycle([b"GET /x HTTP/1.1\r\nHost: x\r\nX-Half: ", b"\r\n"])


ATTACK = Attack(requests, frozenset({400, 408}), connections=3_000, pipelined=1)


@asynccontextmanager
async def in_front() -> AsyncIterator[tuple[Scene, int]]:
    """Starts a service with the proxy in front of it. Yields the scene, and the port of the proxy."""
    async with scene(SNAPURL_PROXIES="127.0.0.1") as here:
        port = here.service.port
        async with proxy(here.bed.log("proxy"), API=f"api:{port}", CONNECTIONS_MAX=PLACES) as front:
            front.names.addresses.append("127.0.0.1")
            await until(front.healthy)
            yield here, front.port


async def run(seconds: float) -> list[Figure]:
    """Holds as many connections as it gets, and asks for more as fast as it is refused."""
    async with in_front() as (here, port):
        return await measured(here, f"{__name__}:ATTACK", seconds, port=port)
