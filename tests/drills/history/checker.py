"""Checks a history of operations on one link for linearizability.

Theory. A link is a register whose writes carry consecutive versions, so their order is known and need not be
searched for. Give the write of version v the rank 2v, its readers 2v + 1, reads that found nothing 1, and the
delete, which is the last write, a rank above all. An operation that only shows that a write had happened
("taken", "gone", a version that no longer matches) has a range of ranks. The history is linearizable exactly
if no operation ended before another began that must precede it:

    for every b:  b.returned >= max(a.invoked for every a whose highest rank is below b's lowest)

Why that is enough: say boundary(r) = max(a.invoked for a with highest rank < r), which grows with r, and have b
take effect at max(b.invoked, boundary(lowest of b)). That is before b returned, not before the ranks below b
may end, and not after boundary(highest of b + 1), since b.invoked is part of that.

A write of unknown outcome may take effect at any later time, or never. If a read returned its value, it is the
write of that version. If a version remains without a known writer, one of the writes of unknown outcome must have
written it. That write must have begun before the end of any operation that shows a later version. Writes tied to
that version by If-Match are assigned first, since they fit nowhere else, then any other. If a link is gone and no
delete is known to have succeeded, each delete of unknown outcome is tried. A refused write must never be read.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from itertools import accumulate
from math import inf


class Kind(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    READ = "read"


class Outcome(StrEnum):
    """`UNKNOWN`: the operation may happen now, later or never. `REFUSED`: it has not happened and will not."""

    DONE = "done"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    TAKEN = "taken"
    MISSING = "missing"
    GONE = "gone"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class Operation:
    """One client's request on one link, and its answer. Times are from one clock, in any unit.

    `value` is what a write sets, unique among all writes of the link, or what a read returned. `version` is
    the version in the answer; the answer to a delete need not have one.
    """

    kind: Kind
    outcome: Outcome
    invoked: float
    returned: float
    value: str | None = None
    version: int | None = None
    if_match: int | None = None


@dataclass(frozen=True, slots=True)
class _Placed:
    """An operation that must take effect at a rank from `low` to `high`."""

    operation: Operation
    low: float
    high: float


class Impossible(Exception):
    """No order of the operations explains the answers. The message gives the reason."""


def check_history(history: Iterable[tuple[str, Operation]]) -> dict[str, str]:
    """Returns code -> error for a history of (code, operation) in any order; empty if it is linearizable."""
    by_code: defaultdict[str, list[Operation]] = defaultdict(list)
    for code, operation in history:
        by_code[code].append(operation)
    wrong = {}
    for code, operations in by_code.items():
        try:
            check_link(operations)
        except Impossible as error:
            wrong[code] = str(error)
    return wrong


def check_link(operations: Sequence[Operation]) -> None:
    """Raises Impossible if the history of one link is not linearizable."""
    writes = _Writes(operations)
    deletes = writes.possible_deletes(operations)
    for tried, delete in enumerate(deletes, 1):
        try:
            _check_order(_Ranks(writes, delete).of(operations))
            return
        except Impossible:
            if tried == len(deletes):
                raise


def _check_order(placed: list[_Placed]) -> None:
    ordered = sorted(placed, key=lambda spot: spot.high)
    highs = [spot.high for spot in ordered]
    latest: list[_Placed] = []  # for each prefix, the operation that was invoked last
    for spot in ordered:
        newest = not latest or spot.operation.invoked > latest[-1].operation.invoked
        latest.append(spot if newest else latest[-1])
    for spot in placed:
        below = bisect_left(highs, spot.low)
        if below and spot.operation.returned < latest[below - 1].operation.invoked:
            raise Impossible(
                f"{_words(spot.operation)} ended before the beginning of what it must come after: "
                f"{_words(latest[below - 1].operation)}"
            )


class _Writes:
    """Which operation wrote which version, as far as the answers show."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.top = 0
        self.by_version: dict[int, Operation] = {}
        self._by_value: dict[str, Operation] = {}
        self._unknown: list[Operation] = []
        self._deletes: list[Operation] = []
        for operation in operations:
            if operation.kind is not Kind.READ and operation.value is not None:
                assert operation.value not in self._by_value, "values must be unique"
                self._by_value[operation.value] = operation
        for operation in operations:
            self._take(operation)
        for operation in operations:
            if operation.kind is Kind.READ and operation.outcome is Outcome.DONE:
                self._take_read(operation)
        self.unknown = self._unknown
        self.top = max([*self.by_version, *(_proves(operation) for operation in operations)], default=0)

    def _take(self, operation: Operation) -> None:
        if operation.kind is Kind.READ:
            return
        if operation.outcome is Outcome.UNKNOWN:
            self._unknown.append(replace(operation, returned=inf))
        if operation.outcome is not Outcome.DONE:
            return
        if operation.kind is Kind.DELETE:
            self._deletes.append(operation)
            return
        version = operation.version
        assert version is not None
        if version in self.by_version:
            raise Impossible(
                f"two winners of version {version}: {_words(operation)}, {_words(self.by_version[version])}"
            )
        if operation.if_match is not None and version != operation.if_match + 1:
            raise Impossible(f"{_words(operation)} went past its If-Match")
        if (operation.kind is Kind.CREATE) != (version == 1):
            raise Impossible(f"{_words(operation)} cannot have made that version")
        self.by_version[version] = operation

    def _take_read(self, read: Operation) -> None:
        assert read.version is not None
        assert read.value is not None
        write = self._by_value.get(read.value)
        if write is None:
            raise Impossible(f"{_words(read)}: nobody wrote that")
        if write.outcome is Outcome.UNKNOWN:
            self._observe(write, read)
        elif self.by_version.get(read.version) is not write:
            raise Impossible(f"{_words(read)}: that was written by {_words(write)}")

    def _observe(self, write: Operation, read: Operation) -> None:
        version = read.version
        assert version is not None
        known = self.by_version.setdefault(version, replace(write, returned=inf, version=version))
        fits = write.if_match in (None, version - 1) and (write.kind is Kind.CREATE) == (version == 1)
        if known.value != write.value or not fits:
            raise Impossible(f"{_words(read)}: that version was written by {_words(known)}")
        if any(item.value == write.value and at != version for at, item in self.by_version.items()):
            raise Impossible(f"{_words(write)} took effect twice")
        self._unknown = [item for item in self._unknown if item.value != write.value]

    def possible_deletes(self, operations: Sequence[Operation]) -> Sequence[Operation | None]:
        """Returns the deletes of which one must have succeeded, or [None] if none need have."""
        if len(self._deletes) > 1:
            raise Impossible(f"two winners: {_words(self._deletes[0])}, {_words(self._deletes[1])}")
        if self._deletes:
            return self._deletes
        if not any(operation.outcome is Outcome.GONE for operation in operations):
            return [None]
        maybe = [item for item in self._unknown if item.kind is Kind.DELETE]
        if not maybe:
            raise Impossible("it is gone, and nobody deleted it")
        return maybe


class _Ranks:
    """The ranks of all operations if `delete` is the one that succeeded."""

    def __init__(self, writes: _Writes, delete: Operation | None) -> None:
        self._writes = writes
        self._delete = delete
        self._unknown = list(writes.unknown)
        self._end: float = inf
        self._top = writes.top
        if delete is not None:
            self._top = max(writes.top, (delete.version or 1) - 1, delete.if_match or 1)
            self._end = 2 * self._top + 2
            if delete.version not in (None, self._top + 1) or delete.if_match not in (None, self._top):
                raise Impossible(f"{_words(delete)}, and version {self._top} was there")

    def of(self, operations: Sequence[Operation]) -> list[_Placed]:
        """Returns the operations that constrain the order, among them unknown writes that must have happened."""
        placed = [spot for operation in operations if (spot := self._place(operation)) is not None]
        known = self._writes.by_version
        placed += [_Placed(write, 2 * at, 2 * at) for at, write in known.items() if write.returned == inf]
        if self._delete is not None and self._delete.returned == inf:
            placed.append(_Placed(self._delete, self._end, self._end))
        return placed + self._fill([at for at in range(1, self._top + 1) if at not in known], placed)

    def _place(self, operation: Operation) -> _Placed | None:
        if operation.outcome in (Outcome.UNKNOWN, Outcome.REFUSED):
            return None
        low, high = self._range(operation)
        return _Placed(operation, low, high)

    def _range(self, operation: Operation) -> tuple[float, float]:
        if operation.outcome is Outcome.DONE:
            rank = 2 * (operation.version or 0) + (operation.kind is Kind.READ)
            return (self._end, self._end) if operation.kind is Kind.DELETE else (rank, rank)
        return {
            Outcome.MISSING: (1, 1),
            Outcome.TAKEN: (3, inf),
            Outcome.GONE: (self._end + 1, inf),
            # The client had read the version in its If-Match, so the current version was a later one.
            Outcome.MISMATCH: (2 * (operation.if_match or 0) + 3, self._end - 1),
        }[operation.outcome]

    def _fill(self, versions: Sequence[int], placed: Sequence[_Placed]) -> list[_Placed]:
        """Assigns writers to the versions (ascending) whose writer is not known.

        A later version has a later deadline, so a write that began in time for one did so for all after it.
        """
        ordered = sorted(placed, key=lambda spot: spot.low, reverse=True)
        lows = [-spot.low for spot in ordered]
        soonest = list(accumulate((spot.operation.returned for spot in ordered), min))
        filled = []
        for version in versions:
            later = bisect_left(lows, -2 * version)
            by = soonest[later - 1] if later else inf
            filled.append(_Placed(self._writer_of(version, by), 2 * version, 2 * version))
        return filled

    def _writer_of(self, version: int, by: float) -> Operation:
        kind = Kind.CREATE if version == 1 else Kind.CHANGE
        fitting = [
            item
            for item in self._unknown
            if item.kind is kind and item.if_match in (None, version - 1) and item.invoked <= by
        ]
        if not fitting:
            raise Impossible(f"nobody can have written version {version}")
        chosen = min(fitting, key=lambda item: (item.if_match is None, item.invoked))
        self._unknown.remove(chosen)
        return chosen


def _proves(operation: Operation) -> int:
    """Returns the version that must have existed to explain the answer, whichever operation wrote it."""
    match operation.outcome:
        case Outcome.TAKEN | Outcome.GONE:
            return 1
        case Outcome.MISMATCH:
            return (operation.if_match or 0) + 1
        case Outcome.DONE if operation.kind is Kind.DELETE:
            return 1
    return 0


def _words(operation: Operation) -> str:
    told = f" {operation.outcome}" if operation.outcome is not Outcome.DONE else ""
    version = f" @{operation.version}" if operation.version is not None else ""
    match = f" if {operation.if_match}" if operation.if_match is not None else ""
    times = f"[{operation.invoked:.4f}, {operation.returned:.4f}]"
    return f"{operation.kind} {operation.value or ''}{match}{told}{version} {times}"
