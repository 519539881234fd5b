"""A short overload in which nothing is timed; `make drill NAME=overload` runs a full one."""

from __future__ import annotations

from pathlib import Path

from tests.drills.overload.__main__ import Plan, run

MEMORY_MB_MAX = 400.0  # a worker has 80 MB at rest; `http/connections.py` bounds the rest


async def test_others_are_served_during_an_overload(tmp_path: Path) -> None:
    """At ten times the capacity, with slow, idle and large requests, others are answered and memory is bounded."""
    figures = await run(Plan(seconds=4.0, idle=300, drips=40, body_bytes=100_000_000), tmp_path, short=True)
    assert figures["redirected"] > 0.9
    assert figures["memory_mb"] < MEMORY_MB_MAX
