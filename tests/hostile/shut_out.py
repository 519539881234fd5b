"""A client that asks for one missing link after another, until it is blocked and beyond, behind a proxy.

Attacker and modest client arrive through the same trusted proxy: only the header that it writes tells them apart.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import httpx

from tests.hostile.attacker import Attack
from tests.hostile.beside import Scene, measured, scene
from tests.hostile.table import Figure

THROUGH_PROXY = "X-Forwarded-For: {}\r\n"
GUESSER, VISITOR = map(THROUGH_PROXY.format, ("198.51.100.9", "198.51.100.7"))
AHEAD, REDIRECTS = "snapurl_redirects_ahead_total", 'snapurl_redirects_total{outcome="redirected"}'


def requests(codes: Sequence[str]) -> Iterator[bytes]:
    for number in itertools.count():
        yield f"GET /none-{number} HTTP/1.1\r\nHost: x\r\n{GUESSER}\r\n".encode()


ATTACK = Attack(requests, frozenset({404, 429, 503}))


async def total(here: Scene, name: str) -> float:
    """Returns the sum of a counter over the workers."""
    async with httpx.AsyncClient() as client:
        text = (await client.get(f"http://127.0.0.1:{here.service.metrics_port}/metrics")).text
    return sum(float(line.rsplit(" ", 1)[1]) for line in text.splitlines() if line.startswith(name))


async def run(seconds: float) -> list[Figure]:
    """Guesses codes."""
    async with scene(SNAPURL_PROXIES="127.0.0.0/8") as here:
        figures = await measured(here, f"{__name__}:ATTACK", seconds, more=VISITOR)
        redirects, ahead = await total(here, REDIRECTS), await total(here, AHEAD)
    is_ahead = ahead > 0.99 * redirects
    return [
        *figures,
        Figure("redirects of others on the fast path", f"{ahead / redirects:.1%}", "99 %", is_ahead),
    ]
