"""The pure part imports only modules of a closed list."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import ring
from tests.support.source_code import parsed
from tests.support.waits import HANG_S

PACKAGE = Path(ring.__file__).parent
ALLOWED = {
    "__future__",
    "collections",
    "dataclasses",
    "enum",
    "functools",
    "hashlib",
    "itertools",
    "types",
    "json",
    "operator",
    "re",
    "ring",
    "typing",
    "uhashring",
}


def imported(path: Path) -> Iterator[str]:
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield "." if node.module is None or node.level else node.module.partition(".")[0]


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: path.stem)
def test_imports_are_on_the_list(path: Path) -> None:
    """The pure part imports no clock, randomness, I/O or event loop, and nothing of the service."""
    assert set(imported(path)) <= ALLOWED


def test_importable_on_its_own() -> None:
    """Importing all of it in a fresh interpreter loads nothing of the service and no event loop."""
    modules = ", ".join(f"ring.{path.stem}" for path in PACKAGE.glob("*.py") if path.stem != "__init__")
    program = f"import sys, {modules}; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(PACKAGE.parent)!r}); {program}"],
        capture_output=True,
        text=True,
        check=True,
        timeout=HANG_S,
    )
    loaded = {name.partition(".")[0] for name in run.stdout.split()}
    assert not loaded & {"snapurl", "tools", "asyncio", "random", "socket", "asyncpg", "redis"}
