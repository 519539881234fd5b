"""Counts clicks in memory: all that a redirect does for its click. Pure."""

from __future__ import annotations

Sources = dict[tuple[str, str], int]
"""(referrer, browser) -> clicks, for one code."""


class Tally:
    """code -> clicks, and their sources.

    `codes_budget` bounds the codes held; clicks of further codes are dropped, and `dropped` counts them.
    `sources_budget` bounds the sources held, over all codes; a click beyond it counts without a source.
    """

    def __init__(self, codes_budget: int, sources_budget: int = 0) -> None:
        self.codes_budget = codes_budget
        self.sources_budget = sources_budget
        self.dropped = 0
        self._counts: dict[str, int] = {}
        self._sources: dict[str, Sources] = {}
        self._sources_held = 0

    def __len__(self) -> int:
        return len(self._counts)

    def record(self, code: str, referrer: str = "", browser: str = "") -> None:
        """Counts one click. Never waits, never fails."""
        counts = self._counts
        if code in counts:
            counts[code] += 1
        elif len(counts) < self.codes_budget:
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
        elif self._sources_held < self.sources_budget:
            self._sources.setdefault(code, {})[source] = 1
            self._sources_held += 1

    def take(self) -> dict[str, int]:
        """Returns and resets the counts. Resets the sources too: read them first."""
        counts, self._counts, self._sources, self._sources_held = self._counts, {}, {}, 0
        return counts

    def sources(self) -> dict[str, Sources]:
        """Returns the sources of the clicks that `take` will return: per code, at most as many clicks."""
        return self._sources
