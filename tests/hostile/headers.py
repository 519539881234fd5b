"""Heads with headers as long as a head may be, and longer, on redirects, refusals and the API."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tests.hostile.attacker import Attack
from tests.hostile.beside import LINKS_PATH, measured, scene
from tests.hostile.table import Figure

CHARS = 16_000  # of a head, which may have 16,384
LINES = (
    "Accept: " + "text/html,a/b;q=0.1," * (CHARS // 20),
    "Accept: a/b" + ";q=0.1" * (CHARS // 6),
    "Accept: " + "," * CHARS,
    "Cookie: " + "a=b; " * (CHARS // 5),
    "Referer: https://" + "made-up." * (CHARS // 8),
    "User-Agent: " + "Mozilla/5.0 (X) " * (CHARS // 16),
    "X-Forwarded-For: " + "10.0.0.1, " * (CHARS // 10),
    "Forwarded: " + "for=10.0.0.1, " * (CHARS // 14),
    "Baggage: " + "a=b," * (CHARS // 4),
    "Authorization: Bearer " + "x" * CHARS,
    "X-Request-Id: " + "x" * CHARS,
    "Idempotency-Key: " + "x" * CHARS,
    "If-Match: " + '"1", ' * (CHARS // 5),
    "\r\n".join(f"X-{number}: {'x' * 150}" for number in range(95)),
    "\r\n".join(f"X-{number}: x" for number in range(150)),
    "X-Long: " + "x" * 17_000,
)


def requests(codes: Sequence[str]) -> Iterator[bytes]:
    """Yields each header at a link, a code without a link, the API and no address at all."""
    addresses = [f"/{codes[0]}", "/none-such", LINKS_PATH, "/not/there"]
    pairs = itertools.product(addresses, LINES)
    return itertools.cycle(
        [f"GET {path} HTTP/1.1\r\nHost: x\r\n{line}\r\n\r\n".encode() for path, line in pairs]
    )


ATTACK = Attack(requests, frozenset({302, 400, 401, 404, 413, 429, 503}))


async def run(seconds: float) -> list[Figure]:
    """Sends such heads without a key."""
    async with scene() as here:
        return await measured(here, f"{__name__}:ATTACK", seconds)
