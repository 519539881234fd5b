"""Addresses that ask every shard, or that once did, from a client without a key."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tests.hostile.attacker import Attack
from tests.hostile.beside import measured, scene
from tests.hostile.table import Figure

PATHS = ("/health/ready", "/metrics", "/api/v1/ring", "/health/live")


def requests(codes: Sequence[str]) -> Iterator[bytes]:
    return itertools.cycle([f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode() for path in PATHS])


ATTACK = Attack(requests, frozenset({200, 401, 404, 429, 503}), connections=1_500, pipelined=1)


async def run(seconds: float) -> list[Figure]:
    """Asks over many connections."""
    async with scene() as here:
        return await measured(here, f"{__name__}:ATTACK", seconds)
