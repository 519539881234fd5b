"""Wording that several commands share."""

from __future__ import annotations

SHOWN_MAX = 5


def slots_text(slots: list[int] | tuple[int, ...]) -> str:
    first = ", ".join(map(str, slots[:SHOWN_MAX]))
    return f"{len(slots)} slots ({first}{', …' if len(slots) > SHOWN_MAX else ''})"
