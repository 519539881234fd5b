"""Counts clicks in memory: all that a redirect does for its click. Pure.

What the requests said is kept as they said it, until the flush in which `classifier.py` makes classes of it. So a
redirect costs one look-up in a dictionary. Clients choose what they say: SAID_MAX bounds how much of it is kept. A
click is counted whatever becomes of the rest.
"""

from __future__ import annotations

from collections.abc import Callable

from snapurl.clicks.origins import Origin

Said = tuple[bytes | None, bytes | None, bytes | None, bytes | None, bytes | None]
"""The query, Referer, User-Agent and Accept-Language, each cut to HEADER_BYTES_MAX, and `1` if DNT or Sec-GPC
is."""

Click = tuple[str, Said | None, Origin, bytes]
"""Code; what the request said; the address it came from, as `http/wire/said.py` has it; the URL it was sent to."""

SAID_MAX = 8_192  # different clicks between two flushes, each of 2 kB at most beside a URL that the cache has


class Tally:
    """Click -> how often.

    `codes_max` bounds the codes of clicks whose request says nothing, or whose sayings are not kept. Clicks of
    further codes are dropped, and `dropped` counts them. `unsaid` counts the clicks beyond `said_max`.
    `on_first` is called before the first click since the last `take`; again before the first that says nothing.
    """

    def __init__(self, codes_max: int, said_max: int = SAID_MAX) -> None:
        self.codes_max = codes_max
        self.dropped = 0
        self.unsaid = 0
        self.on_first: Callable[[], None] = _ignore
        self._said_max = said_max
        self._said: dict[Click, list[int]] = {}
        self._alone: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._said) + len(self._alone)

    @property
    def clicks(self) -> int:
        return sum(count for (count,) in self._said.values()) + sum(self._alone.values())

    def record(self, code: str, said: Said | None = None, origin: Origin = "", target: bytes = b"") -> None:
        """Counts one click. Never waits, never fails."""
        click = code, said, origin, target
        found = self._said.get(click)
        if found is not None:
            found[0] += 1
        elif said is not None and len(self._said) < self._said_max:
            if not self._said:
                self.on_first()
            self._said[click] = [1]
        else:
            self._record_alone(code, said)

    def _record_alone(self, code: str, said: Said | None) -> None:
        if said is not None and self._said_max:
            self.unsaid += 1
        if code in self._alone:
            self._alone[code] += 1
        elif len(self._alone) < self.codes_max:
            if not self._alone:
                self.on_first()
            self._alone[code] = 1
        else:
            self.dropped += 1

    def take(self) -> dict[Click, int]:
        """Returns and resets the counts."""
        taken = {click: count for click, (count,) in self._said.items()}
        taken.update(((code, None, "", b""), count) for code, count in self._alone.items())
        self._said, self._alone = {}, {}
        return taken


def _ignore() -> None:
    pass
