"""Packages of npm that long tests use, as npm/package-lock.json pins them: installed into build/npm once."""

from __future__ import annotations

import fcntl
import re
import shutil
import subprocess
from pathlib import Path

from tests.support.requirements import program, skip_without

ROOT = Path(__file__).parents[2]
PINNED = Path(__file__).with_name("npm")
PLACE = ROOT / "build/npm"
UNREACHABLE = re.compile(
    r"\b(ENOTFOUND|EAI_AGAIN|ECONNREFUSED|ECONNRESET|ENETUNREACH|ETIMEDOUT|EHOSTUNREACH|E40[13])\b"
)


def installed() -> Path:
    """Returns the directory `node_modules`. Skips the running test where npm or its registry is missing."""
    npm = program("npm")
    if npm is None:
        skip_without("npm")
    PLACE.mkdir(parents=True, exist_ok=True)
    with (PLACE / "busy").open("w") as busy:
        fcntl.flock(busy, fcntl.LOCK_EX)  # other test processes wait
        lock, done = PINNED / "package-lock.json", PLACE / "installed.json"
        if not done.exists() or done.read_bytes() != lock.read_bytes():
            _install(npm)
            shutil.copy(lock, done)
    return PLACE / "node_modules"


def _install(npm: str) -> None:
    for name in ("package.json", "package-lock.json"):
        shutil.copy(PINNED / name, PLACE / name)
    words = ("ci", "--ignore-scripts", "--no-audit", "--no-fund", "--fetch-retries=1")
    ended = subprocess.run(
        [npm, *words], cwd=PLACE, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    if ended.returncode:
        if found := UNREACHABLE.search(ended.stderr):
            skip_without("the registry of npm", found[1])
        raise AssertionError(ended.stderr)
