"""What an attack did to others: figures with their bounds, as a table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One thing that was measured during an attack. `bound` is what was promised, `holds` whether it was kept."""

    what: str
    value: str
    bound: str
    holds: bool


def table(attack: str, figures: Sequence[Figure]) -> str:
    """Returns the figures as a Markdown table."""
    rows = [(attack, item.what, item.value, item.bound, "yes" if item.holds else "NO") for item in figures]
    lines = [("attack", "what", "seen", "bound", "held"), ("---",) * 5, *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
