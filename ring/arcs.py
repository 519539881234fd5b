"""Arcs: the slots in equal runs, each with who holds its slots, so that all of them fit in one picture.

A shard has many virtual nodes, so neighbouring slots belong to different shards and no arc is all of one shard.
So an arc counts its slots by shard. Its `owner` alone would show the ring wrongly: of four shards each has about a
quarter of every arc.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence, Set
from dataclasses import dataclass
from operator import ne
from typing import Final

from ring.slots import SLOT_COUNT

ARCS: Final = (64, 128, 256, 512, 1024)
"""Into how many arcs the slots may be divided."""


@dataclass(frozen=True, slots=True)
class Arc:
    """One run of slots, beginning with `first_slot`.

    `owners` has (shard, how many slots it holds), the most first and then by name; slots without a known owner are
    `unknown`. `in_hand_off` counts the slots in hand-off, `misplaced` those that the ring wants on another shard
    than their owner.
    """

    first_slot: int
    owners: tuple[tuple[str, int], ...]
    in_hand_off: int
    unknown: int
    misplaced: int

    @property
    def owner(self) -> str | None:
        """The shard with the most slots, by name if several have as many; None if no owner is known."""
        return self.owners[0][0] if self.owners else None


def arcs(
    owners: Sequence[str | None], placement: Sequence[str], in_hand_off: Set[int], count: int
) -> tuple[Arc, ...]:
    """Returns `count` arcs (one of ARCS). `owners` and `placement` are slot -> shard."""
    assert count in ARCS, "the slots are not divided so"
    length = SLOT_COUNT // count
    moving = Counter(slot // length for slot in in_hand_off)
    return tuple(
        _arc(
            first, owners[first : first + length], placement[first : first + length], moving[first // length]
        )
        for first in range(0, SLOT_COUNT, length)
    )


def _arc(first: int, owners: Sequence[str | None], placement: Sequence[str], in_hand_off: int) -> Arc:
    counts = Counter(owners)
    unknown = counts.pop(None, 0)
    known = [(shard, held) for shard, held in counts.items() if shard is not None]
    return Arc(
        first_slot=first,
        owners=tuple(sorted(known, key=lambda item: (-item[1], item[0]))),
        in_hand_off=in_hand_off,
        unknown=unknown,
        misplaced=sum(map(ne, owners, placement)) - unknown,
    )
