"""The generated tables and the diagram of the hand-off are complete."""

from __future__ import annotations

from ring.diagram import render_crash_table, render_diagram, render_steps
from ring.handoff import RULES, TABLE, state_changes


def test_the_crash_table_has_every_line() -> None:
    """The crash table has one row per pair of states, with the next steps for either goal."""
    lines = render_crash_table().splitlines()
    assert lines[0] == "| found on source | found on target | to move it | to leave it |"
    assert len(lines) == 2 + len(TABLE)
    assert "| closed | owner | claim, release | claim, release |" in lines
    assert "| owned | absent | leave, import, purge," in render_crash_table()


def test_the_steps_have_every_guard() -> None:
    """The table of steps has one row for each side on which a step checks a guard."""
    lines = render_steps().splitlines()
    assert len(lines) == 2 + sum(
        (rule.source is not None) + (rule.target is not None) for rule in RULES.values()
    )
    assert "| commit | target | importing | mine | owned | + 1 |" in lines


def test_the_diagram_has_every_transition() -> None:
    """The diagram has one arrow for each legal change of a row, with the steps that make it."""
    first, *arrows = render_diagram().splitlines()
    assert first == "stateDiagram-v2"
    assert len(arrows) == len({(change.before, change.after) for change in state_changes()})
    assert "    importing --> owned : commit" in arrows
    assert "    [*] --> owned : first start" in arrows
