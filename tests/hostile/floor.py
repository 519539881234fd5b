"""No attack: a process that takes the CPU time of an attacker and sends nothing.

What the modest client then notices is the machine's share of every other figure. No service is faster beside an
attacker on the same cores.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from tests.hostile.attacker import Attack
from tests.hostile.beside import measured, scene
from tests.hostile.held import in_front
from tests.hostile.table import Figure


def requests(codes: Sequence[str]) -> Iterator[bytes]:
    return iter(())


ATTACK = Attack(requests, frozenset(), connections=0)


async def run(seconds: float) -> list[Figure]:
    """Takes CPU time, beside the service."""
    async with scene() as here:
        return await measured(here, f"{__name__}:ATTACK", seconds)


async def run_behind_proxy(seconds: float) -> list[Figure]:
    """Takes CPU time, beside the service and the proxy in front of it."""
    async with in_front() as (here, port):
        return await measured(here, f"{__name__}:ATTACK", seconds, port=port)
