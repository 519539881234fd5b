"""What can be taken out of the protocol, to see the model notice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from ring.handoff import RELAXED, Step


@dataclass(frozen=True, slots=True)
class Mutation:
    """Safety steps that are left out; the default leaves out nothing.

    `without`: steps that no program has. `drain`: FREEZE waits for writers under way. `tokens`, `epochs`:
    the guards compare them. `claims_compare`: CLAIM wants the row as it was seen. `clean_checks`: CLEAN looks
    at the row again when it deletes. `versions`: the cache takes a value only if it is newer.
    `own_check`: VERIFY spares only what CHECK of the same attempt has compared. `looks_again`: it does not spare
    what was written since. `purge_checks`: dead rows are purged only where the slot is `owned`. `relaxed`: steps
    that do not wait for the disk.
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
    """The table with some steps taken out of all its programs."""
    return Mutation(without=frozenset(steps))
