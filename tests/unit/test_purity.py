"""An import contract covers every module that is described as pure."""

from __future__ import annotations

import ast
import re
import tomllib
from pathlib import Path

from tests.support.source_code import parsed

ROOT = Path(__file__).parents[2]
CONTRACTS = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]


def saying_pure(package: str) -> set[str]:
    """Returns the modules of `package` whose docstring contains the word."""
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts)
        for path in (ROOT / package).rglob("*.py")
        if re.search(r"\bpure\b", ast.get_docstring(parsed(path)) or "", re.IGNORECASE)
    }


def test_modules_that_say_they_are_pure_are_under_the_contract() -> None:
    """The contract lists exactly the modules described as pure, and includes indirect imports."""
    (contract,) = (each for each in CONTRACTS if "say they are pure" in each["name"])
    assert "allow_indirect_imports" not in contract
    assert {"asyncio", "asyncpg", "redis", "sanic"} <= set(contract["forbidden_modules"])
    assert set(contract["source_modules"]) - {"ring"} == saying_pure("snapurl") | saying_pure("tools")
