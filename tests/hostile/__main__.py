"""Attacks on a whole service in full, each with what others notice of it.

    python -m tests.hostile --seconds 60 --only click-sources

An attack is a module with `async def run(seconds) -> list[Figure]`; ATTACKS names it. CI runs the same attacks in
small (`test_*.py`), where nothing is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from tests.hostile import click_sources
from tests.hostile.table import Figure, table

ATTACKS: dict[str, Callable[[float], Coroutine[Any, Any, list[Figure]]]] = {
    "click-sources": click_sources.run,
}


def main() -> int:
    """Runs the attacks one after the other. Returns 1 if one did what it must not."""
    parser = argparse.ArgumentParser(description="Attacks, and what others notice of them.")
    parser.add_argument("--seconds", type=float, default=60.0, help="of each attack")
    parser.add_argument("--only", default=",".join(ATTACKS), help="attacks, separated by commas")
    asked = parser.parse_args()
    names = asked.only.split(",")
    if unknown := set(names) - ATTACKS.keys():
        parser.error(f"no such attack: {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    all_hold = True
    for name in names:
        figures = asyncio.run(ATTACKS[name](asked.seconds))
        print(table(name, figures), flush=True)
        all_hold = all_hold and all(figure.holds for figure in figures)
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
