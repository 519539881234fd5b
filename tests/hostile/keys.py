"""API keys that somebody makes up, each with an id of its own."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from snapurl.keys import PlainKey
from tests.hostile.attacker import Attack
from tests.hostile.beside import LINKS_PATH, measured, scene
from tests.hostile.bodies import posted
from tests.hostile.table import Figure

BODY = b'{"url":"https://example.org/"}'


def requests(codes: Sequence[str]) -> Iterator[bytes]:
    """Yields creates, lists and reads."""
    while True:
        yield posted(LINKS_PATH, BODY, f"X-Api-Key: {PlainKey.random()}")
        for path in (LINKS_PATH, f"{LINKS_PATH}/{codes[0]}"):
            yield f"GET {path} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {PlainKey.random()}\r\n\r\n".encode()


ATTACK = Attack(requests, frozenset({401, 429, 503}))


async def run(seconds: float) -> list[Figure]:
    """Sends such keys; most of them the default limit refuses."""
    async with scene() as here:
        return await measured(here, f"{__name__}:ATTACK", seconds)
