"""Text that several commands print."""

from __future__ import annotations

SHOWN_MAX = 5


def slots_text(slots: list[int] | tuple[int, ...]) -> str:
    """Returns `7 slots (1, 2, 3, 4, 5, …)`."""
    first = ", ".join(map(str, slots[:SHOWN_MAX]))
    return f"{len(slots)} slots ({first}{', …' if len(slots) > SHOWN_MAX else ''})"
