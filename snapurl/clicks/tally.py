"""Clicks counted in memory: what a redirect does, and no more. Pure."""

from __future__ import annotations


class Tally:
    """code -> clicks. `room` bounds how many codes are held; clicks of further codes are dropped and counted."""

    def __init__(self, room: int) -> None:
        self.room = room
        self.dropped = 0
        self._counts: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._counts)

    def record(self, code: str) -> None:
        """One click. Never waits and never fails."""
        counts = self._counts
        if code in counts:
            counts[code] += 1
        elif len(counts) < self.room:
            counts[code] = 1
        else:
            self.dropped += 1

    def take(self) -> dict[str, int]:
        """All that was counted since the last time."""
        counts, self._counts = self._counts, {}
        return counts
