"""Bounds of a request body: how many bytes and JSON values it may have, and where it is parsed.

Theory. A body costs what its bytes and values cost, whether it is accepted or refused. So both bounds follow from
how many links the client may create with it, and both are checked before anything is parsed. A body that is small
by both measures is parsed on the event loop, in microseconds. A larger one is parsed and checked in a thread, so
that the worker answers others meanwhile. Threads share one interpreter lock, so more of them parse no faster:
THREADS_MAX run at a time. The clients take turns for them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeVar

from snapurl.config import Settings
from snapurl.http.schema.requests import LINK_VALUES_MAX, RULES_CHARS_MAX, RULES_VALUES_MAX, values_at_most
from snapurl.http.wire.fair_queue import FairQueue

CHAR_BYTES_MAX = 6  # of a character of a URL in JSON: \u00e9
URLS_MAX = 2  # of a link: its target, and where it leads once it has expired
FIELDS_BYTES_MAX = (
    49_152  # of a link besides these: 3,500 characters of title, tags, note and password, 12 bytes each at most
    + CHAR_BYTES_MAX * RULES_CHARS_MAX
)
LOOP_BYTES_MAX = 16_384  # of a body that is parsed on the event loop
LOOP_VALUES_MAX = LINK_VALUES_MAX  # of such a body: those of one link
THREADS_MAX = 2  # that parse bodies or draw QR codes, per worker
THREAD_WAIT_S_MAX = 5.0

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class BodyBound:
    """What a body of at most `links` links may hold."""

    links: int
    bytes_max: int
    link_bytes_max: int
    values_max: int

    @classmethod
    def of(cls, links: int, settings: Settings) -> BodyBound:
        return _bound(links, settings.url_chars_max, settings.body_bytes_max)

    def links_at_least(self, count: int) -> int:
        """Returns how many links a body of `count` bytes holds at least; one if it is too large anyway."""
        return max(1, -(-count // self.link_bytes_max)) if count <= self.bytes_max else 1


@lru_cache
def _bound(links: int, url_chars_max: int, body_bytes_max: int) -> BodyBound:
    link_bytes_max = CHAR_BYTES_MAX * URLS_MAX * url_chars_max + FIELDS_BYTES_MAX
    values_max = links * LINK_VALUES_MAX + RULES_VALUES_MAX
    return BodyBound(links, min(links * link_bytes_max, body_bytes_max), link_bytes_max, values_max)


def is_large(raw: bytes) -> bool:
    """Whether a body is too large to be parsed on the event loop."""
    return len(raw) > LOOP_BYTES_MAX or values_at_most(raw) > LOOP_VALUES_MAX


class BodyThreads:
    """The threads in which one worker parses large bodies, and does whatever else takes milliseconds."""

    def __init__(self) -> None:
        self._turns = FairQueue(THREADS_MAX, THREADS_MAX, THREAD_WAIT_S_MAX)

    async def run(self, client: str, call: Callable[[], T]) -> T:
        """Returns what `call` returns in a thread. Raises what it raises; Unavailable after THREAD_WAIT_S_MAX.

        A cancelled request leaves its thread running, and its turn lasts as long as the thread.
        """
        await self._turns.acquire(client)
        running = asyncio.get_running_loop().run_in_executor(None, call)
        running.add_done_callback(lambda _: self._turns.release(client))
        return await asyncio.shield(running)
