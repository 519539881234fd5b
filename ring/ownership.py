"""Ownership: which shard *does* hold each slot, merged from the rows of every shard's `slots` table.

A shard *holds* a slot while its row says `owned`, `leaving`, `frozen` or `closed`; a missing row means "not
mine". Of several holders the one at the highest epoch is the owner: a source that is `closed` at epoch 7
with a target that is `owned` at 8 is a hand-off one step before its end. Two shards that would both answer
reads, or two at one epoch, are contested: no hand-off leads there, only a shard that lost transactions.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Set
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final

from ring.errors import OwnershipError
from ring.slots import SLOT_COUNT


class SlotState(StrEnum):
    """The `state` of a row of `slots`; `migrations/` has the same values in a CHECK."""

    OWNED = "owned"
    LEAVING = "leaving"
    FROZEN = "frozen"
    CLOSED = "closed"
    RELEASED = "released"
    IMPORTING = "importing"


WRITABLE: Final = frozenset({SlotState.OWNED, SlotState.LEAVING})
"""States in which a shard accepts writes to the slot."""

READABLE: Final = WRITABLE | {SlotState.FROZEN}
"""States in which a shard answers reads of the slot."""

HOLDING: Final = READABLE | {SlotState.CLOSED}
"""States in which a shard has the slot's authoritative rows, unless another holds it at a higher epoch."""


@dataclass(frozen=True, slots=True)
class SlotRow:
    """One row of a shard's `slots` table.

    `epoch` counts the owners of the slot: 1 for the first. It is this shard's own while it holds the slot; in
    `released` it is that of the owner to whom the slot went, and in `importing` that of the source. `peer` is
    the other shard: the target in `leaving`, `frozen` and `closed`, the owner in `released`, the source in
    `importing`, None in `owned`. So `released` and `importing` both say "moved: ask `peer`, at `epoch`".
    """

    slot: int
    state: SlotState
    epoch: int
    peer: str | None

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> SlotRow:
        """Returns a row as a query has returned it. Raises OwnershipError."""
        return cls(row["slot"], SlotState(row["state"]), row["epoch"], row["peer"])

    def __post_init__(self) -> None:
        if not 0 <= self.slot < SLOT_COUNT:
            raise OwnershipError(f"slot {self.slot} is not one of 0 to {SLOT_COUNT - 1}")
        if self.epoch < 1:
            raise OwnershipError(f"slot {self.slot}: epoch {self.epoch} is below 1")
        if (self.peer is None) != (self.state is SlotState.OWNED):
            fault = "needs a peer" if self.peer is None else "has no peer"
            raise OwnershipError(f"slot {self.slot}: {self.state} {fault}")


@dataclass(frozen=True, slots=True)
class Owner:
    """The shard that holds a slot, and since which epoch.

    `state` is None if that is only known from the `released` row of the shard that gave it away, because the
    owner itself did not answer.
    """

    shard: str
    epoch: int
    state: SlotState | None


@dataclass(frozen=True, slots=True)
class Contest:
    """A slot that more than one shard claims; `claims` are sorted by shard. `doctor` shows these."""

    slot: int
    claims: tuple[Owner, ...]


@dataclass(frozen=True, slots=True)
class Ownership:
    """Slot -> owner for all 16,384 slots, and the contested slots."""

    owners: tuple[Owner | None, ...]
    contested: tuple[Contest, ...]

    @property
    def unowned(self) -> tuple[int, ...]:
        """Returns the slots that no shard holds, or none that answered."""
        return tuple(slot for slot, owner in enumerate(self.owners) if owner is None)


def merge(rows: Mapping[str, Iterable[SlotRow]]) -> Ownership:
    """Returns ownership, from the rows of every shard that answered (shard -> its rows).

    A shard that did not answer is left out of `rows`; one that answered with no row has an empty iterable.
    Raises OwnershipError if a shard reports a slot twice.
    """
    owners: list[Owner | None] = [None] * SLOT_COUNT
    claims: dict[int, list[Owner]] = {}  # of slots with more than one: few
    for shard in sorted(rows):
        for slot, claim in _claims(shard, rows[shard], rows.keys()):
            first = owners[slot]
            if first is None:
                owners[slot] = claim
            else:
                claims.setdefault(slot, [first]).append(claim)
    for slot, found in claims.items():
        owners[slot] = max(found, key=lambda claim: claim.epoch)
    contested = (
        Contest(slot, tuple(found)) for slot, found in sorted(claims.items()) if _is_contested(found)
    )
    return Ownership(tuple(owners), tuple(contested))


def _claims(shard: str, rows: Iterable[SlotRow], answered: Set[str]) -> Iterator[tuple[int, Owner]]:
    seen: set[int] = set()
    owners: dict[tuple[int, SlotState], Owner] = {}  # most slots of a shard are alike
    for row in rows:
        if row.slot in seen:
            raise OwnershipError(f"shard {shard} reports slot {row.slot} twice")
        seen.add(row.slot)
        if row.state in HOLDING:
            key = row.epoch, row.state
            owner = owners.get(key)
            if owner is None:
                owner = owners[key] = Owner(shard, row.epoch, row.state)
            yield row.slot, owner
        elif row.state is SlotState.RELEASED and row.peer is not None and row.peer not in answered:
            yield row.slot, Owner(row.peer, row.epoch, None)


def _is_contested(claims: list[Owner]) -> bool:
    held = [claim for claim in claims if claim.state is not None]
    readable = sum(claim.state in READABLE for claim in held)
    return readable > 1 or len({claim.epoch for claim in held}) < len(held)
