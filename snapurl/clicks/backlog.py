"""The clicks of a stream that a consumer has read and no shard has counted yet, by slot and in order. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date
from itertools import groupby
from operator import attrgetter

from snapurl.clicks.sources import OTHER
from snapurl.model import VALUES_MAX, ClickRow, ClicksBySlot, SourceKind, Sources

SOURCES_MAX = 800_000  # that wait; further clicks wait without theirs

ROWS_PER_CALL = 5_000
SOURCES_PER_CALL = 40_000  # eight kinds of each row
BYTES_PER_CALL = 2_097_152
_ROW_BYTES = 80  # of a row in a call, besides its code
_SOURCE_BYTES = 16  # of a source, besides its value


@dataclass(frozen=True, slots=True)
class Size:
    """How much a call carries."""

    rows: int = 0
    sources: int = 0
    bytes: int = 0

    @classmethod
    def of(cls, rows: Iterable[ClickRow]) -> Size:
        count = sources = size = 0
        for row in rows:
            count += 1
            size += len(row.code) + _ROW_BYTES
            if row.values:
                sources += row.values
                size += _SOURCE_BYTES * row.values + sum(
                    [sum(map(len, each)) for each in row.sources.values()]
                )
        return cls(count, sources, size)

    def __add__(self, other: Size) -> Size:
        return Size(self.rows + other.rows, self.sources + other.sources, self.bytes + other.bytes)

    @property
    def fits(self) -> bool:
        """Whether one call to a shard may carry it."""
        return (
            self.rows <= ROWS_PER_CALL and self.sources <= SOURCES_PER_CALL and self.bytes <= BYTES_PER_CALL
        )


class _Values:
    """Bounds the values of one call to VALUES_MAX per code, day and kind, as a worker does per entry.

    Otherwise a call would grow with the number of entries in it, and strangers could fill every call.
    """

    def __init__(self) -> None:
        self._first: dict[tuple[str, date], ClickRow] = {}
        self._known: dict[tuple[str, date], dict[SourceKind, set[str]]] = {}

    def bounded(self, row: ClickRow) -> ClickRow:
        """Returns the row; clicks of values beyond the bound count under OTHER."""
        if not row.values:
            return row
        key = (row.code, row.day)
        first = self._first.get(key)
        if first is None:
            self._first[key] = row  # what a worker has bounded; most codes are in one row
            return row
        known = self._known.get(key)
        if known is None:
            known = self._known[key] = {kind: {*values} - {OTHER} for kind, values in first.sources.items()}
        is_bounded = True
        for kind, values in row.sources.items():
            seen = known.setdefault(kind, set())
            if len(seen) + len(values) <= VALUES_MAX[kind]:
                seen.update(values)
                seen.discard(OTHER)
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
            for number, (_, entry) in enumerate(groupby(self.waiting.get(slot, ()), attrgetter("entry"))):
                if number == entries_max:
                    break
                rows = [values.bounded(row) for row in entry]
                size += Size.of(rows)
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
