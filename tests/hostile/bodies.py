"""Bodies that cost more than they should: megabytes, hundreds of thousands of JSON values, a thousand errors."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator, Sequence

from tests.hostile.attacker import Attack
from tests.hostile.beside import LINKS_PATH, measured, scene
from tests.hostile.table import Figure

BULK_PATH = f"{LINKS_PATH}/bulk"
VALUES = 400_000  # of a body of 4 MB
WRONG = {"url": "nonsense", "alias": "/", "tags": [1] * 20, "expires_at": "never"}
BODIES = (
    (LINKS_PATH, b"{%s}" % b",".join(b'"%d":0' % number for number in range(VALUES))),
    (BULK_PATH, b'{"links":[%s{}]}' % (b"{}," * VALUES)),
    (BULK_PATH, json.dumps({"links": [WRONG] * 1_000}).encode()),
    (BULK_PATH, json.dumps({"links": [{"url": f"https://example.org/{'x' * 4_000}"}] * 1_000}).encode()),
    (LINKS_PATH, b'{"url":%s}' % (b"[" * 30_000 + b"]" * 30_000)),
    (LINKS_PATH, b'{%s"url":0}' % (b'"x":0,' * 2_500)),
    (
        LINKS_PATH,
        json.dumps({"url": "https://example.org/", **{f"unknown {n}": n for n in range(50)}}).encode(),
    ),
)


def requests(codes: Sequence[str]) -> Iterator[bytes]:
    return itertools.cycle([posted(path, body) for path, body in BODIES])


def posted(path: str, body: bytes, *lines: str) -> bytes:
    """Returns a POST of JSON with these header lines."""
    more = "".join(f"{line}\r\n" for line in lines)
    head = f"POST {path} HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return f"{head}{more}\r\n".encode() + body


ATTACK = Attack(requests, frozenset({200, 400, 413, 422, 429, 503}), pipelined=1)


async def run(seconds: float) -> list[Figure]:
    """Sends such bodies without a key, most of which the default limit of creates refuses."""
    async with scene() as here:
        return await measured(here, f"{__name__}:ATTACK", seconds)
