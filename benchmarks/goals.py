"""Goals: the target value, the measured value, and whether the goal is reached."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal


@dataclass(frozen=True, slots=True)
class Goal:
    """One row of the table. `measured` is None if this run has no figure for the goal; it then counts as missed."""

    what: str
    relation: Literal["<=", ">=", "="]
    goal: float
    measured: float | None
    unit: str = ""

    @property
    def reached(self) -> bool:
        match self.relation, self.measured:
            case _, None:
                return False
            case "<=", float() | int() as measured:
                return measured <= self.goal
            case ">=", float() | int() as measured:
                return measured >= self.goal
        return self.measured == self.goal

    def document(self) -> dict[str, Any]:
        return {**asdict(self), "reached": self.reached}


def goal_table(goals: Sequence[Goal]) -> str:
    """Returns the goals as a Markdown table."""
    lines = ["| what | goal | measured | |", "|---|---|---|---|"]
    for item in goals:
        measured = "not measured" if item.measured is None else f"{figure(item.measured)}{item.unit}"
        sign = {"<=": "≤", ">=": "≥", "=": "="}[item.relation]
        verdict = "reached" if item.reached else "**short**"
        lines.append(f"| {item.what} | {sign} {figure(item.goal)}{item.unit} | {measured} | {verdict} |")
    return "\n".join(lines)


def figure(value: float) -> str:
    """Formats to three significant digits with thousands separators; whole numbers keep all their digits."""
    if value == int(value) or abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) < 100 else f"{value:.0f}"
