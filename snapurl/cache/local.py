"""L1: the links that one worker caches, bounded in number, bytes and age. Pure; the clock is passed in."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass

from snapurl.model import CachedLink, LinkOptions

_STATUSES = {status: status for status in (301, 302, 307, 308)}
"""Entries share these objects: each number that is parsed would be an object of its own."""


ENTRY_BYTES = 384
"""Memory of an entry, its code and their places in the table, without the URL and the options."""

OPTIONS_BYTES = 256
"""Memory of the options of a link, without their texts."""


@dataclass(slots=True)
class Entry:
    """A cached link, as small as possible: there are as many of these as there is memory for.

    `until_s` is its end on the clock of the cache. `frame` are the bytes before and after the URL in the response,
    one object for all links with the same status; whoever answers with the link sets it, and may change its bytes.
    """

    until_s: float
    url: bytes
    redirect_status: int
    version: int
    expires_at_ms: int | None
    deleted: bool
    frame: list[bytes] | None = None
    options: LinkOptions | None = None

    @classmethod
    def of(cls, link: CachedLink, until_s: float = 0.0) -> Entry:
        status = _STATUSES.get(link.redirect_status, link.redirect_status)
        return cls(
            until_s,
            link.url.encode(),
            status,
            link.version,
            link.expires_at_ms,
            link.deleted,
            options=link.options,
        )

    @property
    def link(self) -> CachedLink:
        url = self.url.decode()
        return CachedLink(
            url, self.redirect_status, self.version, self.expires_at_ms, self.deleted, self.options
        )

    @property
    def bytes(self) -> int:
        """About how much memory it takes, with its code."""
        options = 0 if self.options is None else OPTIONS_BYTES + self.options.chars
        return ENTRY_BYTES + len(self.url) + options


class LocalCache:
    """code -> link, with LRU eviction. Ages are on the monotonic `clock`; `bytes` is the memory of all entries.

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
        self._max_age_s = max_age_s
        self._miss_max_age_s = miss_max_age_s
        self._clock = clock
        self._entries: OrderedDict[str, Entry] = OrderedDict()
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
        self._entries.move_to_end(code)
        return entry

    def put(self, code: str, link: CachedLink, generation: int) -> None:
        """Caches a link that was read in `generation`, unless a newer version is cached."""
        if not self._enabled or generation != self.generation or not self._links_max:
            return
        known = self._entries.get(code)
        if known is not None and known.version > link.version:
            return
        if known is not None:
            self._remove(code)
        age_s = self._miss_max_age_s if link.is_missing else self._max_age_s
        entry = self._entries[code] = Entry.of(link, self._clock() + age_s)
        self.bytes += entry.bytes
        while len(self._entries) > self._links_max or self.bytes > self._bytes_max:
            self._remove(next(iter(self._entries)))

    def drop(self, code: str, version: int) -> None:
        """Removes a link that is older than `version`."""
        entry = self._entries.get(code)
        if entry is not None and entry.version < version:
            self._remove(code)

    def enable(self) -> None:
        """From now on this worker receives invalidations."""
        self._empty()
        self._enabled = True

    def disable(self) -> None:
        """Invalidations may be missed: any entry may be stale."""
        self._empty()
        self._enabled = False

    def _remove(self, code: str) -> None:
        self.bytes -= self._entries.pop(code).bytes

    def _empty(self) -> None:
        self._entries.clear()
        self.bytes = 0
        self.generation += 1
