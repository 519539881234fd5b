"""The clicks of the links whose pages are open: each link is read once a second, for however many watch it.

The number is the total that the shard has counted, which a reload shows too. It is read, and nothing is written for
it. There are no more links to read than streams of events.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from functools import partial

from snapurl.errors import Gone, NotFound, SnapURLError
from snapurl.model import Link
from snapurl.ui.live import Sampler

SAMPLE_S = 1.0

ReadLink = Callable[[str, str | None], Awaitable[Link]]
"""Reads a link for those who see the links of an account, None for all. Raises NotFound, Gone, Unavailable."""


class LinkLive:
    """The samplers of one worker, one per link and account that watches."""

    def __init__(self, read: ReadLink) -> None:
        self._read = read
        self._samplers: dict[tuple[str, str | None], Sampler] = {}

    @contextmanager
    def watch(self, code: str, owner: str | None) -> Iterator[Callable[[], Awaitable[str]]]:
        """Gives a function that waits for clicks it has not told yet, and returns the data of an event."""
        place = code, owner
        sampler = self._samplers.get(place)
        if sampler is None:
            sampler = self._samplers[place] = Sampler(partial(self._event, *place), SAMPLE_S)
        try:
            with sampler.watch() as newest:
                yield newest
        finally:
            if not sampler.is_watched:
                del self._samplers[place]

    async def _event(self, code: str, owner: str | None) -> str:
        """Returns the data of an event about the newest number, "" if it cannot be told now."""
        try:
            return clicks_event((await self._read(code, owner)).clicks)
        except (NotFound, Gone):
            return clicks_event(None)
        except SnapURLError:
            return ""


def clicks_event(clicks: int | None) -> str:
    """Returns the data of an event: the clicks of a link, None if it is not to be seen any more."""
    return json.dumps({"clicks": clicks})
