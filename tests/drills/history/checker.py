"""Checks a history of operations on one link for linearizability.

Theory. A link is a register whose writes carry consecutive versions, so their order is known and need not be
searched for. Give the write of version v the rank 2v, what saw that version 2v + 1, and what found nothing 1. An
operation that shows less has several possible ranks: "gone" that of any version that a delete made, a mismatch
that of any later version, "taken" any but those before the create. The history is linearizable exactly if each
operation can have one of its ranks so that none has a lower one than another that ended before it began. Sorted by
rank, and by begin where ranks are equal, the operations are then a legal order. Ranks that are as low as possible
decide it: an operation takes the lowest of its ranks that no operation before it has passed.

Who wrote which version is searched, version by version, with what the link has then: the fields, and whether it is
deleted. A write whose answer names a version made that one. Every other version was made by a write of unknown
outcome (which may take effect at any later time, or never) or by one whose answer names no version. Such a write
fits if the link can have it then, if it gives what each answer shows of that version, and if it began before an
operation that shows a later version had ended. Writes tied to that version by If-Match are tried first, since they
fit nowhere else, then those that began first. What the link's own history says of a version must be true too: who
reads it learns of each version how it was made, and which fields it changed. A refused write must never be seen.
"""

from __future__ import annotations

import heapq
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from math import inf

from snapurl.history import CHANGES_MAX

Fields = Mapping[str, object]


class Kind(StrEnum):
    CREATE = "create"
    CHANGE = "change"
    DELETE = "delete"
    RESTORE = "restore"
    TRANSFER = "transfer"
    RENAME = "rename"
    READ = "read"
    HISTORY = "history"

    @property
    def is_write(self) -> bool:
        return self not in (Kind.READ, Kind.HISTORY)


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
class Entry:
    """What a link's history says of one version: how it was made, and the new values of the fields that changed."""

    version: int
    kind: Kind
    fields: Fields


@dataclass(frozen=True, slots=True)
class Operation:
    """One client's request on one link, and its answer. Times are from one clock, in any unit.

    `sets` is what a write sets, `shown` the fields in the answer, `log` the history in it. `version` is the version
    in the answer; those to a delete and a rename need not have one. A restore names the version that it restores. A
    rename is one that keeps the old code; its answer shows what the new link has.
    """

    kind: Kind
    outcome: Outcome
    invoked: float
    returned: float
    sets: Fields = field(default_factory=dict)
    version: int | None = None
    if_match: int | None = None
    shown: Fields = field(default_factory=dict)
    log: tuple[Entry, ...] = ()


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
    search = _Search(operations)
    if not search.explains(_Link(), search.loose, ()):
        raise Impossible(search.why)


@dataclass(frozen=True, slots=True)
class _Link:
    """What a link has at one version; version 0 is no link."""

    version: int = 0
    fields: Fields = field(default_factory=dict)
    is_deleted: bool = False

    def after(self, write: Operation) -> _Link | None:
        """Returns the link after that write, None if it would be refused."""
        if (write.kind is Kind.CREATE) != (self.version == 0) or write.if_match not in (None, self.version):
            return None
        if (write.kind is Kind.RESTORE) != self.is_deleted:
            return None
        return _Link(self.version + 1, {**self.fields, **write.sets}, write.kind is Kind.DELETE)


class _Search:
    """Searches for the writer of each version."""

    def __init__(self, operations: Sequence[Operation]) -> None:
        self.why = ""
        self._deepest = -1
        self._operations = sorted(operations, key=lambda item: item.invoked)
        self._known: dict[int, Operation] = {}
        self._seen: defaultdict[int, list[Operation]] = defaultdict(list)
        self._log: dict[int, Entry] = {}
        loose: list[Operation] = []
        for operation in self._operations:
            if operation.outcome is Outcome.DONE:
                self._take(operation)
            may_be_done = operation.outcome in (Outcome.DONE, Outcome.UNKNOWN)
            if operation.kind.is_write and operation.version is None and may_be_done:
                loose.append(operation)
        # A write that began first fits wherever a later one does: versions that come later are seen later.
        self.loose = tuple(sorted(loose, key=lambda item: (item.if_match is None, item.invoked)))
        self._top = max([*self._known, *self._seen, *self._log], default=0)
        self._deadlines = self._find_deadlines()

    def _take(self, operation: Operation) -> None:
        version = operation.version
        if version is None:
            return
        self._seen[version].append(operation)
        if operation.kind.is_write:
            if version in self._known:
                other = self._known[version]
                raise Impossible(f"two winners of version {version}: {_words(operation)}, {_words(other)}")
            self._known[version] = operation
        newest = [entry.version for entry in operation.log]
        if operation.kind is Kind.HISTORY and newest != [*range(2, version + 1)][-CHANGES_MAX:]:
            raise Impossible(f"{_words(operation)}: it has the versions {newest}")
        for entry in operation.log:
            if self._log.setdefault(entry.version, entry) != entry:
                raise Impossible(
                    f"{_words(operation)}: {entry} was {self._log[entry.version]} in another answer"
                )

    def _find_deadlines(self) -> list[float]:
        """Returns, by version, when the first operation had ended that shows this version or a later one."""
        deadlines = [inf] * (self._top + 2)
        for version in range(self._top, -1, -1):
            ends = (item.returned for item in self._seen[version] if not item.kind.is_write)
            written = self._known.get(version + 1)
            later = inf if written is None else written.returned
            deadlines[version] = min([deadlines[version + 1], later, *ends])
        return deadlines

    def explains(self, link: _Link, loose: tuple[Operation, ...], writes: tuple[Operation, ...]) -> bool:
        """Whether some order explains all answers, given the writes that made the versions up to that of `link`."""
        if link.version >= self._top and self._is_order(writes, loose):
            return True
        version = link.version + 1
        known = self._known.get(version)
        tried: list[tuple[object, ...]] = []
        for write in loose if known is None else (known,):
            alone = write.invoked if write.outcome is Outcome.DONE else None  # any other could be left out
            alike = (write.kind, write.sets, write.if_match, alone)
            if known is None and (alike in tried or write.invoked > self._deadline(version)):
                continue
            tried.append(alike)
            after = link.after(write)
            if after is None:
                self._say(version, f"{_words(write)} cannot have made version {version}")
            elif fault := self._contradiction(link, after, write):
                self._say(version, fault)
            elif self.explains(after, tuple(item for item in loose if item is not write), (*writes, write)):
                return True
        if not tried and link.version < self._top:
            self._say(version, f"nobody can have written version {version}")
        return False

    def _deadline(self, version: int) -> float:
        return self._deadlines[version] if version <= self._top else inf

    def _contradiction(self, before: _Link, after: _Link, write: Operation) -> str:
        """Returns what of the answers is not so if `write` made the version of `after`."""
        entry = self._log.get(after.version)
        if entry is not None and entry != _entry(before, after, write):
            return f"the history has {entry}, and that was {_words(write)}"
        for operation in (*self._seen[after.version], write):
            if operation.kind is Kind.READ and after.is_deleted:
                return f"{_words(operation)}, and {_words(write)} had deleted it"
            for name, value in operation.shown.items():
                if after.fields.get(name, value) != value:
                    return f"{_words(operation)}: {name} was {after.fields[name]!r}, by {_words(write)}"
                if name not in after.fields:
                    return f"{_words(operation)}: nobody wrote {name}"
        return ""

    def _is_order(self, writes: Sequence[Operation], loose: Sequence[Operation]) -> bool:
        """Whether the operations have an order, if these writes made the versions and `loose` had no effect."""
        for left in loose:
            if left.outcome is Outcome.DONE:
                return self._say(len(writes), f"{_words(left)}, and it had no effect")
        made_by = {id(write): version for version, write in enumerate(writes, 1)}
        deleted = [write.kind is Kind.DELETE for write in writes]
        ended: list[tuple[float, int, int]] = []
        low, last = 0, None
        for place, operation in enumerate(self._operations):
            while ended and ended[0][0] < operation.invoked:
                _, rank, before = heapq.heappop(ended)
                if rank > low:
                    low, last = rank, self._operations[before]
            if id(operation) in made_by:
                ranks: Iterator[int] = iter((2 * made_by[id(operation)],))
            elif operation.outcome in (Outcome.UNKNOWN, Outcome.REFUSED):
                continue
            else:
                ranks = _ranks(operation, deleted)
            chosen = next((rank for rank in ranks if rank >= low), None)
            if chosen is None:
                after = f" after {_words(last)}" if last is not None else ""
                return self._say(len(writes), f"{_words(operation)} cannot be{after}")
            returned = inf if operation.outcome is Outcome.UNKNOWN else operation.returned
            heapq.heappush(ended, (returned, chosen, place))
        return True

    def _say(self, depth: int, why: str) -> bool:
        """Remembers why it is impossible, as far as the search came. Returns False."""
        if depth >= self._deepest:
            self._deepest, self.why = depth, why
        return False


def _entry(before: _Link, after: _Link, write: Operation) -> Entry:
    """Returns what the link's history must say of the version of `after`."""
    fields = {name: value for name, value in after.fields.items() if before.fields.get(name) != value}
    is_given = write.kind is Kind.TRANSFER and not fields  # to the account that it has: a change of nothing
    return Entry(after.version, Kind.CHANGE if is_given else write.kind, fields)


def _ranks(operation: Operation, deleted: Sequence[bool]) -> Iterator[int]:
    """Returns the ranks that the operation may have, ascending; `deleted` says it of each version from 1."""
    first = operation.if_match or 0
    for version in range(len(deleted) + 1):
        is_deleted = version > 0 and deleted[version - 1]
        match operation.outcome:
            case Outcome.DONE:
                fits = version == operation.version
            case Outcome.MISSING:
                fits = version == 0
            case Outcome.TAKEN:
                fits = version > 0
            case Outcome.GONE:
                fits = is_deleted
            case _:  # a mismatch: the client had read the version in its If-Match, so it was a later one
                fits = version > first and (not is_deleted or operation.kind is Kind.RESTORE)
        if fits:
            yield 2 * version + 1


def _words(operation: Operation) -> str:
    told = f" {operation.outcome}" if operation.outcome is not Outcome.DONE else ""
    version = f" @{operation.version}" if operation.version is not None else ""
    match = f" if {operation.if_match}" if operation.if_match is not None else ""
    fields = ", ".join(f"{name}={value!r}" for name, value in (operation.sets or operation.shown).items())
    times = f"[{operation.invoked:.4f}, {operation.returned:.4f}]"
    return f"{operation.kind}{f' {fields}' if fields else ''}{match}{told}{version} {times}"
