"""What a shard says of a slot, as values: done, moved or busy. Pure.

"Moved" and "busy" are normal answers, not errors: every fenced write and every read of a row carries them in
the columns `outcome`, `peer` and `epoch`. What else `outcome` can be (`ok`, `taken`, `gone`, …) belongs to
the caller; it means that the shard owns the slot and has answered.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Moved:
    """This shard does not hold the slot; if it knows, the slot went to `peer` at `epoch`."""

    peer: str | None
    epoch: int | None


@dataclass(frozen=True, slots=True)
class Busy:
    """The slot is in hand-off here: ask again in a moment."""


@dataclass(frozen=True, slots=True)
class Answered:
    """The shard owns the slot; `outcome` is the word of the function that was called."""

    outcome: str


Verdict = Moved | Busy | Answered


def read_verdict(row: Mapping[str, Any]) -> Verdict:
    """Reads the columns `outcome`, `peer`, `epoch` of an answer."""
    outcome: str = row["outcome"]
    if outcome == "moved":
        return Moved(row["peer"], row["epoch"])
    if outcome == "busy":
        return Busy()
    return Answered(outcome)
