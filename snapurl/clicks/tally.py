"""Counts clicks in memory: all that a redirect does for its click. Pure.

Clients choose the sources of their clicks. So VALUES_MAX bounds the values of a code per kind, and a budget bounds
all values together. A click is counted whatever becomes of its source.
"""

from __future__ import annotations

from snapurl.clicks.sources import OTHER

VALUES_MAX = 100  # per code and kind, as a shard keeps per day; clicks of further values count under OTHER

Sources = tuple[dict[str, int], dict[str, int]]
"""Referrer -> clicks and browser -> clicks, for one code."""


class Tally:
    """code -> clicks, and their sources.

    `codes_budget` bounds the codes held; clicks of further codes are dropped, and `dropped` counts them.
    `sources_budget` bounds the values held, over all codes; `sources_dropped` counts how often one was left out.
    With a budget of 0 at first no sources are kept at all.
    """

    def __init__(self, codes_budget: int, sources_budget: int = 0) -> None:
        self.codes_budget = codes_budget
        self.sources_budget = sources_budget
        self.dropped = 0
        self.sources_dropped = 0
        self._keeps_sources = sources_budget > 0
        self._counts: dict[str, int] = {}
        self._sources: dict[str, Sources] = {}
        self._sources_held = 0

    def __len__(self) -> int:
        return len(self._counts)

    @property
    def clicks(self) -> int:
        return sum(self._counts.values())

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
        found = self._sources.get(code)
        if found is None:
            if not self._keeps_sources:
                return
            found = self._sources[code] = {}, {}
        referrers, browsers = found
        if referrer in referrers:
            referrers[referrer] += 1
        elif referrer:
            self._add(referrers, referrer)
        if browser in browsers:
            browsers[browser] += 1
        elif browser:
            self._add(browsers, browser)

    def _add(self, values: dict[str, int], value: str) -> None:
        if len(values) >= VALUES_MAX:
            value = OTHER
        if value in values:
            values[value] += 1
        elif self._sources_held < self.sources_budget:
            values[value] = 1
            self._sources_held += 1
        else:
            self.sources_dropped += 1

    def take(self) -> dict[str, int]:
        """Returns and resets the counts. Resets the sources too: read them first."""
        counts, self._counts, self._sources, self._sources_held = self._counts, {}, {}, 0
        return counts

    def sources(self) -> dict[str, Sources]:
        """Returns the sources of the clicks that `take` will return: per code and kind, at most as many clicks."""
        return self._sources
