"""The URL command: a real program that answers, refuses, is slow, ends, or talks nonsense."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from snapurl.errors import Unavailable
from snapurl.targets.url_command import OnFailure, UrlCommand, UrlVerdict

PROGRAM = """
import sys, time
asked = open(sys.argv[1], "a", buffering=1)
for line in sys.stdin:
    asked.write(line)
    if "silent" in line: time.sleep(600)
    if "end" in line: sys.exit(3)
    if "nonsense" in line: print("perhaps", flush=True)
    elif "bad" in line: print("refuse  it is \\x1b[31mphishing", flush=True)
    else: print("allow", flush=True)
"""

Make = Callable[..., UrlCommand]


class Clock:
    ahead_s = 0.0

    def __call__(self) -> float:
        return time.monotonic() + self.ahead_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def make(tmp_path: Path, clock: Clock) -> AsyncIterator[Make]:
    made: list[UrlCommand] = []

    def make_one(timeout_s: float = 600.0, on_failure: OnFailure = "refuse") -> UrlCommand:
        program = tmp_path / "program.py"
        program.write_text(PROGRAM)
        argv = (sys.executable, "-I", str(program), str(tmp_path / "asked"))
        made.append(UrlCommand(argv, timeout_s, on_failure, clock))
        return made[-1]

    yield make_one
    for command in made:
        await command.close()


def asked(tmp_path: Path) -> list[str]:
    return (tmp_path / "asked").read_text().split()


async def test_each_url_is_asked_once_and_answered_in_order(make: Make, tmp_path: Path) -> None:
    """Many URLs at once get each its own answer from one program; an answer counts for a while."""
    command = make()
    urls = [f"https://{'bad' if number % 3 else 'fine'}.example/{number}" for number in range(200)]
    for _ in range(2):
        found = await asyncio.gather(*map(command.verdict, urls))
        assert [verdict.is_allowed for verdict in found] == [number % 3 == 0 for number in range(200)]
    assert found[1] == UrlVerdict(False, "it is  [31mphishing")
    assert sorted(asked(tmp_path)) == sorted(urls) and command.fault is None


@pytest.mark.parametrize("failing", ["silent", "end", "nonsense"])
async def test_a_program_that_fails_refuses_for_now_or_allows(
    make: Make, clock: Clock, tmp_path: Path, failing: str
) -> None:
    """What waits for the program fails with it, as set; after a pause it is started again and answers."""
    url, good = f"https://{failing}.example/", "https://fine.example/"
    allowing = make(0.2 if failing == "silent" else 600.0, "allow")
    assert await allowing.verdict(url) == UrlVerdict(True) and allowing.fault
    command = make(0.2 if failing == "silent" else 600.0)
    with pytest.raises(Unavailable):
        await command.verdict(url)
    with pytest.raises(Unavailable):
        await command.verdict(good)
    assert command.fault and good not in asked(tmp_path)
    clock.ahead_s += 60

    async def answers() -> bool:
        try:
            return (await command.verdict(good)).is_allowed
        except Unavailable:  # a busy machine may not start it in time
            clock.ahead_s += 60
            return False

    while not await answers():
        pass
    assert command.fault is None


async def test_a_program_that_is_not_there_is_a_failure(tmp_path: Path, clock: Clock) -> None:
    """It is one line for operators, and a refusal for now for clients."""
    command = UrlCommand((str(tmp_path / "none"),), 1.0, "refuse", clock)
    with pytest.raises(Unavailable, match="cannot be started: No such file"):
        await command.verdict("https://fine.example/")
