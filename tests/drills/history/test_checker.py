"""The history checker: the histories that it accepts, and each kind of error that it must detect."""

from __future__ import annotations

import random
from math import inf

import pytest

from tests.drills.history.checker import Impossible, Kind, Operation, Outcome, check_history, check_link

DONE, UNKNOWN = Outcome.DONE, Outcome.UNKNOWN


def create(value: str, at: tuple[float, float], outcome: Outcome = DONE) -> Operation:
    return Operation(Kind.CREATE, outcome, *at, value, 1 if outcome is DONE else None)


def change(
    value: str,
    version: int | None,
    at: tuple[float, float],
    outcome: Outcome = DONE,
    if_match: int | None = None,
) -> Operation:
    return Operation(Kind.CHANGE, outcome, *at, value, version, if_match)


def delete(at: tuple[float, float], outcome: Outcome = DONE, version: int | None = None) -> Operation:
    return Operation(Kind.DELETE, outcome, *at, None, version)


def read(
    value: str | None, version: int | None, at: tuple[float, float], outcome: Outcome = DONE
) -> Operation:
    return Operation(Kind.READ, outcome, *at, value, version)


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


def linearizable_by_search(operations: list[Operation]) -> bool:
    """Checks the definition itself: whether a register explains some order that respects real time."""

    def go(left: tuple[int, ...], version: int, value: str | None, dead: bool) -> bool:
        if all(operations[n].outcome in (UNKNOWN, Outcome.REFUSED) for n in left):
            return True
        ends = min(operations[n].returned for n in left if operations[n].outcome is not UNKNOWN)
        for n in left:
            if operations[n].invoked > ends:
                continue
            after = step(operations[n], version, value, dead)
            if after is not None and go(tuple(m for m in left if m != n), *after):
                return True
        return False

    return go(
        tuple(n for n, item in enumerate(operations) if item.outcome is not Outcome.REFUSED), 0, None, False
    )


def step(item: Operation, version: int, value: str | None, dead: bool) -> tuple[int, str | None, bool] | None:
    """Returns the register after an operation, or None if a register could not have given that answer."""
    if version == 0:
        told = Outcome.DONE if item.kind is Kind.CREATE else Outcome.MISSING
    elif item.kind is Kind.CREATE:
        told = Outcome.TAKEN
    elif dead:
        told = Outcome.GONE
    elif item.if_match not in (None, version):
        told = Outcome.MISMATCH
    else:
        told = Outcome.DONE
    if item.outcome is UNKNOWN and told is not DONE:
        return None  # it had no effect: the search leaves it out instead
    if item.outcome not in (told, UNKNOWN):
        return None
    if told is not DONE or item.kind is Kind.READ:
        same = told is not DONE or (item.version, item.value) == (version, value)
        return (version, value, dead) if same else None
    if item.kind is not Kind.DELETE and item.version not in (None, version + 1):
        return None
    return version + 1, value if item.kind is Kind.DELETE else item.value, item.kind is Kind.DELETE


def random_history(rng: random.Random) -> list[Operation]:
    """Returns a register's answers to overlapping calls; in half of the cases one answer is then falsified."""
    version, value, dead = 0, None, False
    found: list[Operation] = []
    for n in range(rng.randint(3, 7)):
        kind = rng.choices(list(Kind), (3, 4, 1, 4))[0]
        match = (
            rng.choice((None, max(1, version - 1), max(1, version)))
            if kind is Kind.CHANGE and version
            else None
        )
        at = float(n)
        probe = Operation(
            kind, UNKNOWN, at, at, None if kind in (Kind.READ, Kind.DELETE) else f"v{n}", None, match
        )
        for outcome in Outcome:
            read_now = kind is Kind.READ and outcome is DONE
            tried = Operation(
                kind, outcome, at - rng.uniform(0, 2), at + rng.uniform(0, 2),
                value if read_now else probe.value, version if read_now else None, match,
            )  # fmt: skip
            if outcome in (UNKNOWN, Outcome.REFUSED) or (after := step(tried, version, value, dead)) is None:
                continue
            lost = kind is not Kind.READ and rng.random() < 0.2
            version, value, dead = after
            told = version if outcome is DONE and kind in (Kind.CREATE, Kind.CHANGE) else tried.version
            found.append(
                Operation(kind, UNKNOWN, tried.invoked, inf, tried.value, None, match)
                if lost
                else Operation(kind, outcome, tried.invoked, tried.returned, tried.value, told, match)
            )
            break
    if rng.random() < 0.5:
        n = rng.randrange(len(found))
        item, shift = found[n], rng.uniform(-4, 4)
        found[n] = Operation(
            item.kind,
            item.outcome,
            item.invoked + shift,
            item.returned + shift,
            item.value,
            item.version,
            item.if_match,
        )
    return found


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
        assert (not check_history(("code", item) for item in history)) == expected, (seed, history)
        verdicts[expected] += 1
    assert min(verdicts.values()) > 100, verdicts


def _had_been(mismatch: Operation, history: list[Operation]) -> bool:
    return any(
        item.version == mismatch.if_match and item.returned < mismatch.invoked
        for item in history
        if item.outcome is DONE
    )
