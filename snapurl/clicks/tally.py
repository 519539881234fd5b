"""Clicks counted in memory: what a redirect does, and no more. Pure."""

from __future__ import annotations

Sources = dict[tuple[str, str], int]
"""(referrer, browser) -> clicks, of one code."""


class Tally:
    """code -> clicks, and where they come from.

    `room` bounds how many codes are held; clicks of further codes are dropped and counted. `sources_room` bounds
    how many sources are held, over all codes; clicks of further sources count, but without one, as do those whose
    request does not say where it comes from.
    """

    def __init__(self, room: int, sources_room: int = 0) -> None:
        self.room = room
        self.sources_room = sources_room
        self.dropped = 0
        self._counts: dict[str, int] = {}
        self._sources: dict[str, Sources] = {}
        self._sources_held = 0

    def __len__(self) -> int:
        return len(self._counts)

    def record(self, code: str, referrer: str = "", browser: str = "") -> None:
        """One click. Never waits and never fails."""
        counts = self._counts
        if code in counts:
            counts[code] += 1
        elif len(counts) < self.room:
            counts[code] = 1
        else:
            self.dropped += 1
            return
        if not referrer and not browser:
            return
        sources = self._sources.get(code)
        source = (referrer, browser)
        if sources is not None and source in sources:
            sources[source] += 1
        elif self._sources_held < self.sources_room:
            self._sources.setdefault(code, {})[source] = 1
            self._sources_held += 1

    def take(self) -> dict[str, int]:
        """All that was counted since the last time; forgets the sources, so ask for them first."""
        counts, self._counts, self._sources, self._sources_held = self._counts, {}, {}, 0
        return counts

    def sources(self) -> dict[str, Sources]:
        """Where the clicks that `take` will give come from; no more than those clicks, of a code."""
        return self._sources
