"""Checks a history of operations on one link for linearizability.

Theory. A link is a register whose writes carry consecutive versions, so their order is known and need not be
searched for. Give the write of version v the rank 2v, its readers 2v + 1, those who found nothing 1, and the
delete, which is the last write, a rank above all. An operation that only tells that a write had happened
("taken", "gone", a version that no longer matches) has a range of ranks. The history is linearizable exactly
if no operation ended before another began that must come before it:

    for every b:  b.returned >= max(a.invoked for every a whose highest rank is below b's lowest)

Why that is enough: say boundary(r) = max(a.invoked for a with highest rank < r), which grows with r, and have b
take effect at max(b.invoked, boundary(lowest of b)). That is before b returned, not before the ranks below b
may end, and not after boundary(highest of b + 1), since b.invoked is part of that.

A write of which nothing is known may take effect at any later time, or never. If somebody saw its value it is
the write of that version. If a version is left that nobody is known to have written, one of the writes of unknown
outcome must have: those tied to that version by If-Match first, of the others the earliest, which fits wherever
a later one does. A write that was refused must never be seen.
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
    """`UNKNOWN`: it may happen, now, later or never. `REFUSED`: it has not happened and will not."""

    DONE = "done"
    UNKNOWN = "unknown"
    REFUSED = "refused"
    TAKEN = "taken"
    MISSING = "missing"
    GONE = "gone"
    MISMATCH = "mismatch"


@dataclass(frozen=True, slots=True)
class Operation:
    """What one client asked of one link and was told. Times are of one clock, in any unit.

    `value` is what a write sets, unique among all writes of the link, or what a read found. `version` is
    what the answer said; a delete need not say one.
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
    """An operation that must take effect among the ranks from `low` to `high`."""

    operation: Operation
    low: float
    high: float


class Impossible(Exception):
    """No order of the operations explains the answers. The message says why."""


def check_history(history: Iterable[tuple[str, Operation]]) -> dict[str, str]:
    """Code -> what is wrong with it, for (code, operation) in any order; empty if the history is linearizable."""
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
    """Raises Impossible if the history of one link cannot be."""
    writes = _Writes(operations)
    placed = [spot for operation in operations if (spot := writes.place(operation)) is not None]
    placed += writes.fill(placed)
    _check_order(placed)


def _check_order(placed: list[_Placed]) -> None:
    ordered = sorted(placed, key=lambda spot: spot.high)
    highs = [spot.high for spot in ordered]
    latest = list(accumulate(ordered, lambda a, b: max(a, b, key=lambda spot: spot.operation.invoked)))
    for spot in placed:
        below = bisect_left(highs, spot.low)
        if below and spot.operation.returned < latest[below - 1].operation.invoked:
            raise Impossible(
                f"{_words(spot.operation)} ended before the beginning of what it must come after: "
                f"{_words(latest[below - 1].operation)}"
            )


class _Writes:
    """Which operation wrote which version, as far as answers tell."""

    def __init__(self, operations: Sequence[Operation]) -> None:
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
        self.top = max(self.by_version, default=0)
        self.delete = self._the_delete(operations)

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
            raise Impossible(f"two winners of version {version}: {_words(operation)}, {_words(self.by_version[version])}")
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

    def _the_delete(self, operations: Sequence[Operation]) -> Operation | None:
        """The delete that worked, if one must have."""
        if len(self._deletes) > 1:
            raise Impossible(f"two winners: {_words(self._deletes[0])}, {_words(self._deletes[1])}")
        if self._deletes:
            return self._deletes[0]
        if not any(operation.outcome is Outcome.GONE for operation in operations):
            return None
        maybe = [
            item
            for item in self._unknown
            if item.kind is Kind.DELETE and item.if_match in (None, self.top)
        ]
        if not maybe:
            raise Impossible("it is gone, and nobody deleted it")
        return min(maybe, key=lambda item: item.invoked)

    def place(self, operation: Operation) -> _Placed | None:
        """The ranks of an operation; None if it says nothing. Unknown writes are placed by `fill`."""
        end = inf if self.delete is None else self._end
        match operation.kind, operation.outcome:
            case _, Outcome.UNKNOWN | Outcome.REFUSED:
                return None
            case _, Outcome.MISSING:
                return _Placed(operation, 1, 1)
            case _, Outcome.TAKEN:
                return _Placed(operation, 3, inf)
            case _, Outcome.GONE:
                return _Placed(operation, end + 1, inf)
            case _, Outcome.MISMATCH:
                # The client had read the version it names, so it is a later one that did not match.
                assert operation.if_match is not None
                return _Placed(operation, 2 * operation.if_match + 3, end - 1)
            case Kind.DELETE, _:
                return _Placed(operation, end, end)
            case Kind.READ, _:
                assert operation.version is not None
                return _Placed(operation, 2 * operation.version + 1, 2 * operation.version + 1)
        assert operation.version is not None
        return _Placed(operation, 2 * operation.version, 2 * operation.version)

    @property
    def _end(self) -> int:
        """The rank of the delete: above every version that was seen, and where its own says, if it says one."""
        assert self.delete is not None
        version = self.delete.version or (self.delete.if_match or 0) + 1
        if self.delete.version is not None or self.delete.if_match is not None:
            if version <= self.top:
                raise Impossible(f"{_words(self.delete)}, and version {self.top} was seen")
            return 2 * version
        return 2 * self.top + 2

    def fill(self, placed: Sequence[_Placed]) -> list[_Placed]:
        """The writes of unknown outcome that must have happened, at their places."""
        filled = [
            _Placed(write, 2 * version, 2 * version)
            for version, write in self.by_version.items()
            if write.returned == inf
        ]
        if self.delete is not None and self.delete.returned == inf:
            filled.append(_Placed(self.delete, self._end, self._end))
        top = self.top
        if any(spot.operation.outcome in (Outcome.TAKEN, Outcome.MISMATCH, Outcome.GONE) for spot in placed):
            top = max(top, 1)
        top = max([top, *(spot.operation.if_match + 1 for spot in placed if self._tells(spot))])
        if self.delete is not None:
            top = max(top, self._end // 2 - 1)
        for version in range(1, top + 1):
            if version not in self.by_version and not self._deleted_at(version):
                filled.append(_Placed(self._fill_one(version), 2 * version, 2 * version))
        return filled

    def _tells(self, spot: _Placed) -> bool:
        """Whether a mismatch shows that a version after the one it names was written."""
        return spot.operation.outcome is Outcome.MISMATCH

    def _deleted_at(self, version: int) -> bool:
        return self.delete is not None and 2 * version >= self._end

    def _fill_one(self, version: int) -> Operation:
        kind = Kind.CREATE if version == 1 else Kind.CHANGE
        fitting = [item for item in self._unknown if item.kind is kind and item.if_match in (None, version - 1)]
        if not fitting:
            raise Impossible(f"nobody can have written version {version}")
        chosen = min(fitting, key=lambda item: (item.if_match is None, item.invoked))
        self._unknown.remove(chosen)
        return chosen


def _words(operation: Operation) -> str:
    told = f" {operation.outcome}" if operation.outcome is not Outcome.DONE else ""
    version = f" @{operation.version}" if operation.version is not None else ""
    match = f" if {operation.if_match}" if operation.if_match is not None else ""
    return f"{operation.kind} {operation.value or ''}{match}{told}{version} [{operation.invoked:.4f}, {operation.returned:.4f}]"
