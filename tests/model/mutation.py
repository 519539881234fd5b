"""Safety steps that can be removed from the protocol, to show that the model notices."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ring.handoff import RELAXED, Step


@dataclass(frozen=True, slots=True)
class Mutation:
    """Safety steps that are left out; the default leaves out nothing.

    `without`: steps removed from every program. `drain`: FREEZE waits for writers in progress. `tokens`, `epochs`:
    the guards compare them. `claims_compare`: CLAIM requires the row to be as observed. `clean_checks`: CLEAN
    checks the row again when it deletes. `versions`: the cache accepts a value only if it is newer. `own_check`:
    VERIFY skips only rows that CHECK of the same attempt has compared. `looks_again`: VERIFY does not skip rows
    written since. `purge_checks`: dead rows are purged only where the slot is `owned`. `relaxed`: steps that do
    not wait for the disk.
    """

    without: frozenset[Step] = frozenset()
    drain: bool = True
    tokens: bool = True
    epochs: bool = True
    claims_compare: bool = True
    clean_checks: bool = True
    versions: bool = True
    own_check: bool = True
    looks_again: bool = True
    purge_checks: bool = True
    relaxed: frozenset[Step] = RELAXED


NONE: Final = Mutation()


def without(*steps: Step) -> Mutation:
    """Returns the mutation that removes some steps from all programs of the table."""
    return Mutation(without=frozenset(steps))
