"""A batch: slots that move together from one shard to another. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ring.handoff import Move

SLOTS_PER_BATCH = 64  # for callers that do not adapt the size to what they measure


@dataclass(frozen=True, slots=True)
class Batch:
    """Slots (ascending) on their way from `source`, which owns them at `epochs`, to `target`."""

    source: str
    target: str
    slots: tuple[int, ...]
    epochs: tuple[int, ...]

    @property
    def moves(self) -> list[Move]:
        return [
            Move(slot, self.source, epoch, self.target)
            for slot, epoch in zip(self.slots, self.epochs, strict=True)
        ]

    def cut(self, slots: int) -> tuple[Batch, Batch]:
        """The first `slots` of it, and the rest."""
        first = Batch(self.source, self.target, self.slots[:slots], self.epochs[:slots])
        return first, Batch(self.source, self.target, self.slots[slots:], self.epochs[slots:])

    def parts(self, slots: int = SLOTS_PER_BATCH) -> Iterator[Batch]:
        """It in batches of `slots` at most."""
        rest = self
        while rest.slots:
            part, rest = rest.cut(slots)
            yield part

    @property
    def pair(self) -> tuple[str, str]:
        return self.source, self.target

    def __str__(self) -> str:
        more = f" and {len(self.slots) - 1} more" if len(self.slots) > 1 else ""
        return f"slot {self.slots[0]}{more}, {self.moves[0]}"
