"""Draws the hand-off from its table, so that the documents cannot say anything else than what is done."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ring.handoff import RULES, TABLE, Guard, Program, state_changes
from ring.ownership import SlotState


def render_crash_table() -> str:
    """Markdown: what is found on the two shards after a crash, and what then, for either goal."""
    rows = [
        (source, target, _program(line.move), _program(line.stay)) for (source, target), line in TABLE.items()
    ]
    return _table(("found on source", "found on target", "to move it", "to leave it"), rows)


def render_steps() -> str:
    """Markdown: what each step finds, checks and leaves, on which side."""
    rows = [
        (step, side, *_guard(guard))
        for step, rule in RULES.items()
        for side, guard in (("source", rule.source), ("target", rule.target))
        if guard is not None
    ]
    return _table(("step", "on", "finds", "token", "leaves", "epoch"), rows)


def render_diagram() -> str:
    """Mermaid: the states of one shard's row of `slots`, and the steps between them."""
    labels: dict[tuple[str, str], list[str]] = {}
    for change in state_changes():
        steps = labels.setdefault((change.before or "[*]", change.after), [])
        steps.append(change.step or "first start")
    lines = [f"    {before} --> {after} : {', '.join(steps)}" for (before, after), steps in labels.items()]
    return "\n".join(("stateDiagram-v2", *lines)) + "\n"


def _program(program: Program) -> str:
    return ", ".join(program) or "nothing"


def _guard(guard: Guard) -> tuple[str, str, str, str]:
    finds = (state or "no row" for state in (None, *SlotState) if state in guard.finds)
    token = f"{guard.token}, then mine" if guard.fresh else guard.token
    return ", ".join(finds), token, guard.leaves or "the same", guard.epoch


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = (head, ["---"] * len(head), *rows)
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)
