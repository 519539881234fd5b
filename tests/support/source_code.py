"""Reads the source of modules, for tests that hold all of it to a rule."""

from __future__ import annotations

import ast
import gc
from pathlib import Path


def parsed(path: Path) -> ast.Module:
    """Returns the syntax tree of a module.

    Python 3.11 raises SystemError ("AST constructor recursion depth mismatch") if the garbage collector runs Python
    code while it makes a tree, as the collector does under Hypothesis.
    """
    text = path.read_text(encoding="utf-8")
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return ast.parse(text)
    finally:
        if was_enabled:
            gc.enable()
