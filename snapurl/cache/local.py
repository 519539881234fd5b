"""L1: what one worker remembers, bounded in number and in age."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from snapurl.ports import CachedLink


@dataclass(slots=True)
class Entry:
    """A link until its age. `answer` is room for the bytes that are made of it, which go when it goes."""

    until_s: float
    link: CachedLink
    answer: bytes | None = None


class LocalCache:
    """code -> link, least recently used out first. Ages are on the monotonic `clock`.

    While it is disabled (nobody tells this worker of changes) it holds nothing and takes nothing. `generation`
    grows each time it is emptied: what was read before that must not be put in after it.
    """

    def __init__(
        self, links_max: int, max_age_s: float, miss_max_age_s: float, clock: Callable[[], float]
    ) -> None:
        self._links_max = links_max
        self._max_age_s = max_age_s
        self._miss_max_age_s = miss_max_age_s
        self._clock = clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()
        self._enabled = False
        self.generation = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, code: str) -> CachedLink | None:
        """The link if it is here and young enough; MISSING if it is known that there is none."""
        entry = self.entry(code)
        return None if entry is None else entry.link

    def entry(self, code: str) -> Entry | None:
        """What is here of the link, if it is young enough."""
        entry = self._entries.get(code)
        if entry is None:
            return None
        if entry.until_s < self._clock():
            del self._entries[code]
            return None
        self._entries.move_to_end(code)
        return entry

    def put(self, code: str, link: CachedLink, generation: int) -> None:
        """Takes a link that was read in `generation`, unless a newer version is here."""
        if not self._enabled or generation != self.generation or not self._links_max:
            return
        known = self._entries.get(code)
        if known is not None and known.link.version > link.version:
            return
        age_s = self._miss_max_age_s if link.is_missing else self._max_age_s
        self._entries[code] = Entry(self._clock() + age_s, link)
        self._entries.move_to_end(code)
        if len(self._entries) > self._links_max:
            self._entries.popitem(last=False)

    def drop(self, code: str, version: int) -> None:
        """Forgets a link that is older than `version`."""
        entry = self._entries.get(code)
        if entry is not None and entry.link.version < version:
            del self._entries[code]

    def enable(self) -> None:
        """From now on this worker hears of changes."""
        self._empty()
        self._enabled = True

    def disable(self) -> None:
        """Changes may pass unheard: nothing here can be believed."""
        self._empty()
        self._enabled = False

    def _empty(self) -> None:
        self._entries.clear()
        self.generation += 1
