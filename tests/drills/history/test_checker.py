"""The history checker: the histories that it accepts, and each kind of error that it must detect."""

from __future__ import annotations

import random
from dataclasses import dataclass, replace
from math import inf

import pytest

from tests.drills.history.checker import (
    Entry,
    Fields,
    Impossible,
    Kind,
    Operation,
    Outcome,
    check_history,
    check_link,
)

DONE, UNKNOWN = Outcome.DONE, Outcome.UNKNOWN


def create(value: str, at: tuple[float, float], outcome: Outcome = DONE, **fields: object) -> Operation:
    version = 1 if outcome is DONE else None
    return Operation(Kind.CREATE, outcome, *at, {"value": value, **fields}, version)


def change(
    value: str,
    version: int | None,
    at: tuple[float, float],
    outcome: Outcome = DONE,
    if_match: int | None = None,
    **fields: object,
) -> Operation:
    return Operation(Kind.CHANGE, outcome, *at, {"value": value, **fields}, version, if_match)


def delete(at: tuple[float, float], outcome: Outcome = DONE, version: int | None = None) -> Operation:
    return Operation(Kind.DELETE, outcome, *at, version=version)


def restore(deleted: int, at: tuple[float, float], outcome: Outcome = DONE) -> Operation:
    version = deleted + 1 if outcome is DONE else None
    return Operation(Kind.RESTORE, outcome, *at, version=version, if_match=deleted)


def transfer(
    account: str, version: int | None, at: tuple[float, float], outcome: Outcome = DONE
) -> Operation:
    return Operation(Kind.TRANSFER, outcome, *at, {"account": account}, version)


def read(
    value: str | None, version: int | None, at: tuple[float, float], outcome: Outcome = DONE, **fields: object
) -> Operation:
    shown = {"value": value, **fields} if outcome is DONE else {}
    return Operation(Kind.READ, outcome, *at, version=version, shown=shown)


def history(version: int, at: tuple[float, float], *log: tuple[str, Fields]) -> Operation:
    first = version - len(log) + 1
    entries = tuple(Entry(first + place, Kind(kind), fields) for place, (kind, fields) in enumerate(log))
    return Operation(Kind.HISTORY, DONE, *at, version=version, log=entries)


def missing(at: tuple[float, float]) -> Operation:
    return read(None, None, at, Outcome.MISSING)


def gone(at: tuple[float, float]) -> Operation:
    return read(None, None, at, Outcome.GONE)


GOOD = {
    "one after the other": [
        missing((0, 1)), create("a", (1, 2)), read("a", 1, (3, 4)), change("b", 2, (5, 6)), read("b", 2, (7, 8)),
        delete((9, 10)), gone((11, 12)),
    ],
    "a read beside a write sees the old value or the new": [
        create("a", (0, 1)), change("b", 2, (2, 9)), read("a", 1, (3, 4)), read("b", 2, (5, 6)),
    ],
    "a write of unknown outcome that somebody saw": [
        create("a", (0, 1)), change("b", None, (2, 3), UNKNOWN), read("a", 1, (4, 5)), read("b", 2, (6, 7)),
    ],
    "a write of unknown outcome that never happened": [
        create("a", (0, 1)), change("b", None, (2, 3), UNKNOWN), change("c", 2, (4, 5)), read("c", 2, (6, 7)),
    ],
    "a version that only a write of unknown outcome can have made": [
        create("a", (0, 1)), change("b", None, (2, 3), UNKNOWN), change("c", 3, (4, 5)),
    ],
    "a race for an alias with one winner": [
        create("a", (0, 5)), create("b", (1, 6), Outcome.TAKEN), create("c", (2, 7), Outcome.TAKEN),
    ],
    "taken by a create of unknown outcome": [
        create("a", (0, 1), UNKNOWN), create("b", (2, 3), Outcome.TAKEN),
    ],
    "a delete of unknown outcome that took effect late": [
        create("a", (0, 1)), delete((2, 3), UNKNOWN), read("a", 1, (4, 5)), gone((6, 7)),
    ],
    "a delete whose answer names no version, between two changes of unknown outcome": [
        create("a", (0, 1)), change("b", None, (2, 3), UNKNOWN), delete((4, 5)), gone((6, 7)),
        restore(3, (8, 9)), change("c", None, (10, 11), UNKNOWN), read("c", 5, (12, 13)),
    ],
    "deleted and restored, again and again": [
        create("a", (0, 1)), delete((2, 3)), gone((4, 5)), restore(2, (6, 7)), read("a", 3, (8, 9)),
        delete((10, 11)), gone((12, 13)), restore(4, (14, 15)), transfer("x", 6, (16, 17)), read("a", 6, (18, 19)),
    ],
    "a restore of unknown outcome that somebody saw": [
        create("a", (0, 1)), delete((2, 3)), restore(2, (4, 5), UNKNOWN), gone((6, 7)), read("a", 3, (8, 9)),
    ],
    "gone beside a delete and a restore": [
        create("a", (0, 1)), delete((2, 9)), gone((3, 4)), restore(2, (5, 8)), read("a", 3, (6, 7)),
    ],
    "each field as its last write left it": [
        create("a", (0, 1), enabled=True, tags=()), change("b", 2, (2, 3), enabled=False),
        change("c", 3, (4, 5), tags=("t",)), read("c", 3, (6, 7), enabled=False, tags=("t",)),
    ],
    "a history that says what happened": [
        create("a", (0, 1), on=True), change("b", 2, (2, 3), on=False), delete((4, 5)),
        history(3, (6, 7), ("change", {"value": "b", "on": False}), ("delete", {})),
    ],
    "a history that has a write of unknown outcome": [
        create("a", (0, 1)), change("b", None, (2, 3), UNKNOWN), delete((4, 5), UNKNOWN), delete((6, 7), UNKNOWN),
        history(3, (8, 9), ("change", {"value": "b"}), ("delete", {})),
    ],
    "a mismatch with a version that has been replaced": [
        create("a", (0, 1)), change("b", 2, (2, 6)), change("c", None, (3, 4), Outcome.MISMATCH, 1),
        read("b", 2, (7, 8)),
    ],
}  # fmt: skip

BAD = {
    "a lost write": [create("a", (0, 1)), change("b", 2, (2, 3)), read("a", 1, (4, 5))],
    "a lost write that was overwritten": [create("a", (0, 1)), change("b", 2, (2, 3)), change("c", 2, (4, 5))],
    "a lost create": [create("a", (0, 1)), missing((2, 3))],
    "a stale read": [
        create("a", (0, 1)), change("b", 2, (2, 9)), read("b", 2, (3, 4)), read("a", 1, (5, 6)),
    ],
    "a resurrected value": [create("a", (0, 1)), delete((2, 3)), read("a", 1, (4, 5))],
    "a resurrected link that is written": [create("a", (0, 1)), delete((2, 3)), change("b", 2, (4, 5))],
    "a double winner of an alias": [create("a", (0, 5)), create("b", (1, 6))],
    "a double winner of a version": [
        create("a", (0, 1)), change("b", 2, (2, 5), if_match=1), change("c", 2, (2, 5), if_match=1),
    ],
    "two deletes": [create("a", (0, 1)), delete((2, 3)), delete((4, 5))],
    "a read of the future": [create("a", (0, 1)), read("b", 2, (2, 3)), change("b", 2, (4, 5))],
    "a value that nobody wrote": [create("a", (0, 1)), read("x", 1, (2, 3))],
    "a write that was refused and is seen": [
        create("a", (0, 1)), change("b", None, (2, 3), Outcome.REFUSED), read("b", 2, (4, 5)),
    ],
    "a version that nobody can have written": [create("a", (0, 1)), change("c", 3, (4, 5))],
    "a version that could only be written too late": [
        create("a", (0, 1)), change("c", 3, (4, 5)), change("b", None, (6, 7), UNKNOWN),
    ],
    "gone though nobody deleted it": [create("a", (0, 1)), gone((2, 3))],
    "taken before anybody created it": [create("b", (0, 1), Outcome.TAKEN), create("a", (2, 3))],
    "a mismatch although the version matched": [
        create("a", (0, 1)), change("c", None, (2, 3), Outcome.MISMATCH, 1), change("b", 2, (4, 5)),
    ],
    "a write of unknown outcome that happened twice": [
        create("a", (0, 1)), change("b", None, (2, 3), UNKNOWN), read("b", 2, (4, 5)), change("c", 3, (6, 7)),
        read("b", 4, (8, 9)),
    ],
    "restored without a restore": [
        create("a", (0, 1)), delete((2, 3)), gone((4, 5)), read("a", 1, (6, 7)),
    ],
    "a restore that is lost": [
        create("a", (0, 1)), delete((2, 3)), restore(2, (4, 5)), gone((6, 7)),
    ],
    "a restore that brings back what was before": [
        create("a", (0, 1)), change("b", 2, (2, 3)), delete((4, 5)), restore(3, (6, 7)), read("a", 4, (8, 9)),
    ],
    "two restores of one version": [
        create("a", (0, 1)), delete((2, 3)), restore(2, (4, 9)), restore(2, (5, 8)),
    ],
    "a restore of what was not deleted": [create("a", (0, 1)), restore(1, (2, 3))],
    "a change of a deleted link": [
        create("a", (0, 1)), delete((2, 3)), change("b", 3, (4, 5)), restore(3, (6, 7)),
    ],
    "a transfer that is lost": [
        create("a", (0, 1), account="x"), transfer("y", 2, (2, 3)), read("a", 2, (4, 5), account="x"),
    ],
    "a change that undoes a transfer": [
        create("a", (0, 1), account="x"), transfer("y", 2, (2, 3)), change("b", 3, (4, 5)),
        read("b", 3, (6, 7), account="x"),
    ],
    "a field that a change of another one undid": [
        create("a", (0, 1), on=True), change("b", 2, (2, 3), on=False), change("c", 3, (4, 5)),
        read("c", 3, (6, 7), on=True),
    ],
    "an option that was lost": [
        create("a", (0, 1), max_clicks=None), change("b", 2, (2, 3), max_clicks=5),
        read("b", 2, (4, 5), max_clicks=None),
    ],
    "an option of a write that was refused": [
        create("a", (0, 1), on=True), change("b", None, (2, 3), Outcome.REFUSED, on=False),
        read("a", 1, (4, 5), on=False),
    ],
    "a history without a change": [
        create("a", (0, 1)), change("b", 2, (2, 3)), change("c", 3, (4, 5)),
        history(3, (6, 7), ("change", {"value": "c"})),
    ],
    "a history with a change that nobody made": [
        create("a", (0, 1)), history(2, (2, 3), ("delete", {})),
    ],
    "a history that is older than what was read": [
        create("a", (0, 1)), change("b", 2, (2, 3)), read("b", 2, (4, 5)), history(1, (6, 7)),
    ],
    "a history with another value": [
        create("a", (0, 1), on=True), change("b", 2, (2, 3), on=False),
        history(2, (4, 5), ("change", {"value": "b"})),
    ],
    "two histories that differ": [
        create("a", (0, 1)), delete((2, 3), UNKNOWN), transfer("x", None, (2, 3), UNKNOWN),
        history(2, (4, 5), ("delete", {})), history(2, (6, 7), ("transfer", {"account": "x"})),
    ],
}  # fmt: skip


@pytest.mark.parametrize("operations", GOOD.values(), ids=GOOD)
def test_a_possible_history_passes(operations: list[Operation]) -> None:
    """A history that some order of its operations explains is accepted."""
    check_link(operations)


@pytest.mark.parametrize("operations", BAD.values(), ids=BAD)
def test_an_impossible_history_is_caught(operations: list[Operation]) -> None:
    """A history that no order of its operations explains is reported."""
    with pytest.raises(Impossible):
        check_link(operations)


# -- against the definition ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Register:
    """A link as it should be: all versions that it had, the last of them now."""

    versions: tuple[tuple[Kind, Fields], ...] = ()

    @property
    def version(self) -> int:
        return len(self.versions)

    @property
    def fields(self) -> Fields:
        return {name: value for _, sets in self.versions for name, value in sets.items()}

    @property
    def is_deleted(self) -> bool:
        return bool(self.versions) and self.versions[-1][0] is Kind.DELETE

    def outcome(self, item: Operation) -> Outcome:
        if not self.versions:
            return DONE if item.kind is Kind.CREATE else Outcome.MISSING
        if item.kind is Kind.CREATE:
            return Outcome.TAKEN
        if item.kind is Kind.HISTORY:
            return DONE
        if self.is_deleted and item.kind is not Kind.RESTORE:
            return Outcome.GONE
        if item.kind is Kind.RESTORE and not self.is_deleted:
            return Outcome.REFUSED  # it makes no version, and no history here has one like that
        return DONE if item.if_match in (None, self.version) else Outcome.MISMATCH

    def log(self) -> tuple[Entry, ...]:
        entries, fields = [], dict(self.versions[0][1])
        for version, (kind, sets) in enumerate(self.versions[1:], 2):
            changed = {name: value for name, value in sets.items() if fields.get(name) != value}
            is_given = kind is Kind.TRANSFER and not changed
            entries.append(Entry(version, Kind.CHANGE if is_given else kind, changed))
            fields.update(sets)
        return tuple(entries)

    def step(self, item: Operation) -> Register | None:
        """Returns the register after an operation, None if it could not have given that answer."""
        outcome = self.outcome(item)
        if item.outcome is UNKNOWN:
            return self.after(item) if outcome is DONE else None  # it had no effect: the search leaves it out
        if item.outcome is not outcome:
            return None
        if outcome is not DONE:
            return self
        if item.kind is Kind.READ:
            same = (item.version, item.shown) == (self.version, self.fields)
            return self if same else None
        if item.kind is Kind.HISTORY:
            return self if (item.version, item.log) == (self.version, self.log()) else None
        return self.after(item) if item.version in (None, self.version + 1) else None

    def after(self, item: Operation) -> Register:
        return Register((*self.versions, (item.kind, item.sets)))


def linearizable_by_search(operations: list[Operation]) -> bool:
    """Checks the definition itself: whether a register explains some order that respects real time."""

    def go(left: tuple[int, ...], register: Register) -> bool:
        if all(operations[n].outcome in (UNKNOWN, Outcome.REFUSED) for n in left):
            return True
        ends = min(operations[n].returned for n in left if operations[n].outcome is not UNKNOWN)
        for n in left:
            if operations[n].invoked > ends:
                continue
            after = register.step(operations[n])
            if after is not None and go(tuple(m for m in left if m != n), after):
                return True
        return False

    return go(
        tuple(n for n, item in enumerate(operations) if item.outcome is not Outcome.REFUSED), Register()
    )


KINDS = {
    Kind.CREATE: 3, Kind.CHANGE: 4, Kind.DELETE: 2, Kind.RESTORE: 2, Kind.TRANSFER: 1, Kind.READ: 4,
    Kind.HISTORY: 1,
}  # fmt: skip


def random_history(rng: random.Random) -> list[Operation]:
    """Returns a register's answers to overlapping calls; in half of the cases one answer is then falsified."""
    register = Register()
    found: list[Operation] = []
    for n in range(rng.randint(3, 8)):
        kind = rng.choices(list(KINDS), list(KINDS.values()))[0]
        if kind is Kind.RESTORE and not register.is_deleted:
            kind = Kind.CHANGE
        version = max(1, register.version)
        match = version if kind is Kind.RESTORE else None
        if kind is Kind.CHANGE and register.versions:
            match = rng.choice((None, max(1, version - 1), version))
        at = float(n)
        item = Operation(
            kind, DONE, at - rng.uniform(0, 2), at + rng.uniform(0, 2), _random_sets(kind, n, rng), None, match,
        )  # fmt: skip
        outcome = register.outcome(item)
        after = register.after(item) if outcome is DONE and kind.is_write else register
        if kind.is_write and rng.random() < 0.2:
            found.append(replace(item, outcome=UNKNOWN, returned=inf))
        else:
            shows = outcome is DONE and kind is not Kind.DELETE
            found.append(
                replace(
                    item,
                    outcome=outcome,
                    version=after.version if shows else None,
                    shown=after.fields if shows and kind is Kind.READ else {},
                    log=after.log() if shows and kind is Kind.HISTORY else (),
                )
            )
        register = after
    if rng.random() < 0.5:
        n, shift = rng.randrange(len(found)), rng.uniform(-4, 4)
        item = found[n]
        found[n] = replace(item, invoked=item.invoked + shift, returned=item.returned + shift)
    return found


def _random_sets(kind: Kind, n: int, rng: random.Random) -> Fields:
    match kind:
        case Kind.CREATE:
            return {"value": f"v{n}", "on": True, "account": "x"}
        case Kind.CHANGE:
            return {"value": f"v{n}", **({"on": rng.random() < 0.5} if rng.random() < 0.5 else {})}
        case Kind.TRANSFER:
            return {"account": rng.choice("xy")}
        case _:
            return {}


def test_the_checker_agrees_with_the_definition(request: pytest.FixtureRequest) -> None:
    """On thousands of small histories the checker agrees with a search through all orders."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    rng = random.Random(seed)
    verdicts = {True: 0, False: 0}
    for _ in range(4_000):
        history = random_history(rng)
        if any(item.outcome is Outcome.MISMATCH and not _had_been(item, history) for item in history):
            continue  # clients send only versions that they have read
        expected = linearizable_by_search(history)
        wrong = check_history(("code", item) for item in history)
        assert (not wrong) == expected, (seed, history, wrong)
        verdicts[expected] += 1
    assert min(verdicts.values()) > 100, verdicts


def _had_been(mismatch: Operation, history: list[Operation]) -> bool:
    return any(
        item.version == mismatch.if_match and item.returned < mismatch.invoked
        for item in history
        if item.outcome is DONE
    )
