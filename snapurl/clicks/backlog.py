"""The clicks of a stream that a consumer has read and no shard has counted yet, by slot and in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import chain, groupby
from operator import attrgetter

from snapurl.clicks.sources import OTHER
from snapurl.model import VALUES_MAX, ClickRow, ClicksBySlot, SourceKind, Sources

SOURCES_MAX = 800_000  # that wait; further clicks wait without theirs

ROWS_PER_CALL = 5_000
SOURCES_PER_CALL = 40_000  # eight kinds of each row
BYTES_PER_CALL = 2_097_152
UNCHECKED_MAX = 100  # values of a code and day in a call that are not compared with each other
_ROW_BYTES = 80  # of a row in a call, besides its code
_SOURCE_BYTES = 16  # of a source, besides its value


@dataclass(slots=True)
class Size:
    """How much a call carries."""

    rows: int = 0
    sources: int = 0
    bytes: int = 0

    def add(self, row: ClickRow) -> None:
        self.rows += 1
        self.sources += row.values
        self.bytes += len(row.code) + _ROW_BYTES
        if row.values:
            self.bytes += _SOURCE_BYTES * row.values
            self.bytes += sum(map(len, chain.from_iterable(row.sources.values())))

    @property
    def fits(self) -> bool:
        """Whether one call to a shard may carry it."""
        return (
            self.rows <= ROWS_PER_CALL and self.sources <= SOURCES_PER_CALL and self.bytes <= BYTES_PER_CALL
        )


class _Values:
    """Bounds the values of one call to VALUES_MAX per code, day and kind, as a worker does per entry.

    Otherwise a call would grow with the number of entries in it, and strangers could fill every call. The first
    UNCHECKED_MAX values of a code and day are not looked at: most codes have fewer.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, date], list[ClickRow]] = {}
        self._known: dict[tuple[str, date], dict[SourceKind, set[str]]] = {}

    def bounded(self, row: ClickRow) -> ClickRow:
        """Returns the row; clicks of values beyond the bound count under OTHER."""
        if not row.values:
            return row
        key = (row.code, row.day)
        known = self._known.get(key)
        if known is None:
            first = self._first.setdefault(key, [])
            if sum(each.values for each in first) + row.values <= UNCHECKED_MAX:
                first.append(row)
                return row
            known = self._known[key] = {kind: set() for kind in SourceKind}
            for each in first:
                for kind, values in each.sources.items():
                    known[kind].update(values)
        is_bounded = True
        for kind, values in row.sources.items():
            seen = known[kind]
            if len(seen) + len(values) <= VALUES_MAX[kind]:
                seen.update(values)
                continue
            for value in values:
                if value not in seen and value != OTHER:
                    if len(seen) < VALUES_MAX[kind]:
                        seen.add(value)
                    else:
                        is_bounded = False
        return row if is_bounded else replace(row, sources=_bounded(row.sources, known))


def _bounded(sources: Sources, known: Mapping[SourceKind, set[str]]) -> Sources:
    found: dict[SourceKind, dict[str, int]] = {}
    for kind, values in sources.items():
        sums = found[kind] = {}
        for value, clicks in values.items():
            kept = value if value in known[kind] else OTHER
            sums[kept] = sums.get(kept, 0) + clicks
    return found


def _by_entry(rows: list[ClickRow]) -> Iterable[Iterable[ClickRow]]:
    if len(rows) == 1:
        return (rows,)
    return (entry for _, entry in groupby(rows, attrgetter("entry")))


@dataclass(slots=True)
class Backlog:
    """One stream: how far it has been read and trimmed, and the rows that are not counted yet.

    `waiting` is in the order in which slots take their turns.
    """

    name: str
    read_to: int = -1
    trimmed_to: int = -1
    waiting: dict[int, list[ClickRow]] = field(default_factory=dict)
    shipments: dict[int, str] = field(default_factory=dict)  # entry -> its id in the log of its worker
    rows: int = 0
    sources: int = 0

    def add(self, rows: Iterable[ClickRow]) -> int:
        """Adds the rows of the next entry. Returns how many sources were left out at SOURCES_MAX."""
        left_out = 0
        for row in rows:
            if self.sources + row.values > SOURCES_MAX:
                left_out += row.values
                kept = replace(row, sources={})
            else:
                kept = row
            self.waiting.setdefault(row.slot, []).append(kept)
            self.rows += 1
            self.sources += kept.values
        return left_out

    def take(self, slots: Iterable[int], entries_max: int | None = None) -> dict[int, list[ClickRow]]:
        """Returns the next rows of `slots` that one call may carry, of each at most `entries_max` entries.

        They are not removed, and their sources are bounded per code (`_Values`). The rows of a slot in one entry
        stay together, since a slot's cursor is an entry. So a first entry is returned even above the bounds.
        """
        found: dict[int, list[ClickRow]] = {}
        size, values = Size(), _Values()
        for slot in slots:
            for number, entry in enumerate(_by_entry(self.waiting.get(slot, []))):
                if number == entries_max:
                    break
                rows = [values.bounded(row) for row in entry]
                for row in rows:
                    size.add(row)
                if found and not size.fits:
                    return found
                found.setdefault(slot, []).extend(rows)
        return found

    def drop(self, sent: ClicksBySlot) -> int:
        """Removes rows that have been counted. Returns how many clicks they held.

        A slot that has more goes behind all others, so that a busy one delays nobody.
        """
        clicks = 0
        for slot, counted in sent.items():
            last = counted[-1].entry
            waiting = self.waiting.pop(slot, [])
            rest = [row for row in waiting if row.entry > last]
            for row in waiting[: len(waiting) - len(rest)]:
                clicks += row.clicks
                self.rows -= 1
                self.sources -= row.values
            if rest:
                self.waiting[slot] = rest
        return clicks

    def forget_shipments(self, applied_to: int) -> None:
        """Drops the shipment ids of entries up to `applied_to`."""
        while self.shipments and (first := next(iter(self.shipments))) <= applied_to:
            del self.shipments[first]

    @property
    def applied_to(self) -> int:
        """The last entry up to which everything has been applied."""
        return min((rows[0].entry - 1 for rows in self.waiting.values()), default=self.read_to)
