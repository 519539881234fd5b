"""Attacks on a whole service in full, each with what others notice of it.

    python -m tests.hostile --only bodies,headers --seconds 3

An attack is a module with `async def run(seconds) -> list[Figure]`; ATTACKS names it, with its duration where
`--seconds` gives none. CI runs the same attacks in small (`test_*.py`), where nothing is timed.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Callable, Coroutine
from typing import Any

from tests.hostile import bodies, cache_memory, click_sources, floor, headers, held, keys, probes, shut_out
from tests.hostile.table import Figure, table

ATTACKS: dict[str, tuple[float, Callable[[float], Coroutine[Any, Any, list[Figure]]]]] = {
    "click-sources": (60.0, click_sources.run),
    "bodies": (30.0, bodies.run),
    "headers": (30.0, headers.run),
    "probes": (30.0, probes.run),
    "keys": (30.0, keys.run),
    "cache-memory": (30.0, cache_memory.run),
    "held": (30.0, held.run),
    "shut-out": (30.0, shut_out.run),
    "floor": (30.0, floor.run),
    "floor-proxied": (30.0, floor.run_behind_proxy),
}


def main() -> int:
    """Runs the attacks one after the other. Returns 1 if one did what it must not."""
    parser = argparse.ArgumentParser(description="Attacks, and what others notice of them.")
    parser.add_argument("--seconds", type=float, help="of each attack")
    parser.add_argument("--only", default=",".join(ATTACKS), help="attacks, separated by commas")
    asked = parser.parse_args()
    names = asked.only.split(",")
    if unknown := set(names) - ATTACKS.keys():
        parser.error(f"no such attack: {', '.join(sorted(unknown))}; there are {', '.join(ATTACKS)}")
    all_hold = True
    for name in names:
        seconds, run = ATTACKS[name]
        figures = asyncio.run(run(asked.seconds or seconds))
        print(table(name, figures), flush=True)
        all_hold = all_hold and all(figure.holds for figure in figures)
    return 0 if all_hold else 1


if __name__ == "__main__":
    sys.exit(main())
