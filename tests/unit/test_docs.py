"""The documents say what the program does."""

from __future__ import annotations

import re
from pathlib import Path

from pydantic import SecretStr

from ring.diagram import render_crash_table, render_diagram, render_steps
from snapurl.config import Settings

ROOT = Path(__file__).parents[2]


def rendered() -> str:
    """What stands between the markers of ARCHITECTURE.md."""
    return "\n".join(
        [
            "### What is found after a crash, and what then\n",
            render_crash_table(),
            "### What each step checks\n",
            render_steps(),
            "### The states of a shard's row\n",
            f"```mermaid\n{render_diagram().rstrip()}\n```\n",
        ]
    )


def test_architecture_shows_the_hand_off_as_it_is() -> None:
    """The tables and the diagram in ARCHITECTURE.md are those of the program."""
    text = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
    found = re.search(r"<!-- handoff:begin [^\n]*-->\n(.*?)<!-- handoff:end -->", text, re.DOTALL)
    assert found is not None
    assert found[1] == rendered(), "put the output of tests.unit.test_docs.rendered() between the markers"


def test_the_readme_lists_every_setting() -> None:
    """The configuration table of README.md has each setting with its default and what it does."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    missing = [line for line in setting_lines() if line not in text]
    assert not missing, "put these into the table:\n" + "\n".join(missing)


def setting_lines() -> list[str]:
    """One line of the table per setting."""
    lines = []
    for name, field in Settings.model_fields.items():
        default = field.default if field.default_factory is None else "cores"
        shown = default.get_secret_value() if isinstance(default, SecretStr) else default
        cell = (
            f"`{str(shown).lower() if isinstance(shown, bool) else shown}`" if shown not in ("", None) else ""
        )
        lines.append(f"| `SNAPURL_{name.upper()}` | {cell} | {field.description} |")
    return lines
