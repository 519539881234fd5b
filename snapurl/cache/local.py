"""L1: the links that one worker caches, bounded in number, bytes and age. Pure; the clock is passed in.

A full cache evicts by second chance: a hand goes round the places of the entries, spares once what has been used
since it last came by, and evicts what has not. That evicts almost what LRU would. It costs 8 bytes per link, where
the list of an OrderedDict costs 80, and a use sets one mark instead of moving an entry.

What almost all links have in common they share: their terms, and the end of their age, which is rounded down.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from snapurl.model import CachedLink, LinkOptions

ENTRY_BYTES = 240
"""Memory of an entry, its code and their places in the tables, without the URL and the options."""

OPTIONS_BYTES = 256
"""Memory of the options of a link, without their texts."""

AGE_STEPS = 256  # into which an age is divided: entries that are put in one of them share their end
PLACES_SPARE = 64
SHARED_VERSION_MAX = 8  # links with these versions share their terms


@dataclass(frozen=True, slots=True)
class Terms:
    """What a link has besides its URL and expiry."""

    redirect_status: int
    version: int
    deleted: bool = False
    options: LinkOptions | None = None


_PLAIN = {
    (status, version): Terms(status, version)
    for status in (301, 302, 307, 308)
    for version in range(1, SHARED_VERSION_MAX + 1)
}


def _terms_of(link: CachedLink) -> Terms:
    shared = _PLAIN.get((link.redirect_status, link.version))
    if shared is not None and link.options is None and not link.deleted:
        return shared
    return Terms(link.redirect_status, link.version, link.deleted, link.options)


@dataclass(slots=True)
class Entry:
    """A cached link, as small as possible: there are as many of these as there is memory for.

    `until_s` is its end on the clock of the cache. `frame` are the bytes before and after the URL in the response,
    one object for all links with the same status; whoever answers with the link sets it, and may change its bytes.
    `is_used` says whether it has been asked for since the hand came by.
    """

    until_s: float
    url: bytes
    expires_at_ms: int | None
    terms: Terms
    frame: list[bytes] | None = None
    is_used: bool = False

    @classmethod
    def of(cls, link: CachedLink, until_s: float = 0.0) -> Entry:
        return cls(until_s, link.url.encode(), link.expires_at_ms, _terms_of(link))

    @property
    def link(self) -> CachedLink:
        terms = self.terms
        return CachedLink(
            self.url.decode(),
            terms.redirect_status,
            terms.version,
            self.expires_at_ms,
            terms.deleted,
            terms.options,
        )

    @property
    def bytes(self) -> int:
        """About how much memory it takes, with its code."""
        options = self.terms.options
        return ENTRY_BYTES + len(self.url) + (0 if options is None else OPTIONS_BYTES + options.chars)


class _Ends:
    """The ends of the ages of entries: one object for all that are put within a step. Never later than the age."""

    def __init__(self, age_s: float) -> None:
        self._age_s = age_s
        self._step_s = age_s / AGE_STEPS
        self._end_s = 0.0

    def after(self, now_s: float) -> float:
        latest_s = now_s + self._age_s
        if not latest_s - self._step_s < self._end_s <= latest_s:
            self._end_s = latest_s
        return self._end_s


class LocalCache:
    """code -> link. Ages are on the monotonic `clock`; `bytes` is the memory of all entries.

    While it is disabled (this worker receives no invalidations) it is empty and takes nothing. `generation` grows
    each time it is emptied: what was read before that must not be put in after it.
    """

    def __init__(
        self,
        links_max: int,
        bytes_max: int,
        max_age_s: float,
        miss_max_age_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._links_max = links_max
        self._bytes_max = bytes_max
        self._ends = _Ends(max_age_s)
        self._miss_ends = _Ends(miss_max_age_s)
        self._clock = clock
        self._entries: dict[str, Entry] = {}
        self._places: list[str] = []  # the codes of all entries, some twice, and of some that were removed
        self._hand = 0
        self._enabled = False
        self.generation = 0
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._entries)

    def get(self, code: str) -> CachedLink | None:
        """Returns the link if it is cached and not too old; version 0 if it is known that there is none."""
        entry = self.entry(code)
        return None if entry is None else entry.link

    def entry(self, code: str) -> Entry | None:
        """Returns the entry of the link if it is cached and not too old."""
        entry = self._entries.get(code)
        if entry is None:
            return None
        if entry.until_s < self._clock():
            self._remove(code)
            return None
        entry.is_used = True
        return entry

    def put(self, code: str, link: CachedLink, generation: int) -> None:
        """Caches a link that was read in `generation`, unless a newer version is cached."""
        if not self._enabled or generation != self.generation or not self._links_max:
            return
        known = self._entries.get(code)
        if known is not None:
            if known.terms.version > link.version:
                return
            self._remove(code)
        ends = self._miss_ends if link.is_missing else self._ends
        entry = Entry.of(link, ends.after(self._clock()))
        size = entry.bytes
        while len(self._entries) >= self._links_max or self.bytes + size > self._bytes_max:
            if not self._entries:
                return  # it alone is too large
            self._evict()
        self._place(code)
        self._entries[code] = entry
        self.bytes += size

    def drop(self, code: str, version: int) -> None:
        """Removes a link that is older than `version`."""
        entry = self._entries.get(code)
        if entry is not None and entry.terms.version < version:
            self._remove(code)

    def enable(self) -> None:
        """From now on this worker receives invalidations."""
        self._empty()
        self._enabled = True

    def disable(self) -> None:
        """Invalidations may be missed: any entry may be stale."""
        self._empty()
        self._enabled = False

    def _place(self, code: str) -> None:
        if len(self._places) > 2 * len(self._entries) + PLACES_SPARE:
            self._places, self._hand = list(self._entries), 0
        self._places.append(code)

    def _evict(self) -> None:
        """Takes the hand one place further. The entry there is evicted if it has not been used since last time.

        Its place goes to the last one, which is the last that the hand comes to.
        """
        hand = self._hand = self._hand % len(self._places)
        code = self._places[hand]
        entry = self._entries.get(code)
        if entry is not None and entry.is_used:
            entry.is_used = False
        else:
            if entry is not None:
                self._remove(code)
            self._places[hand] = self._places[-1]
            self._places.pop()
        self._hand = hand + 1

    def _remove(self, code: str) -> None:
        self.bytes -= self._entries.pop(code).bytes

    def _empty(self) -> None:
        self._entries.clear()
        self._places.clear()
        self._hand = 0
        self.bytes = 0
        self.generation += 1
