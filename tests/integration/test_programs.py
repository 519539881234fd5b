"""Programs that the tests' launcher forks are processes like any other."""

from __future__ import annotations

import os
import signal

from tests.support.programs import PIPE, STDOUT, start
from tests.support.waits import unless_hung

BARE = {name: value for name, value in os.environ.items() if not name.startswith("SNAPURL_")}


async def test_a_program_has_its_own_environment_output_and_exit_code() -> None:
    """A program gets its own words and environment, and what it writes and returns arrives."""
    programs = [
        await start(module, *words, env={**BARE, **variables}, stdout=PIPE, stderr=STDOUT)
        for module, words, variables in (
            ("snapurl", ["--version"], {"SNAPURL_SHARDS": "db0=mysql://h:1/d"}),
            ("snapurl.run.worker", ["--fd", "0"], {"SNAPURL_SHARDS": "db0=mysql://h:1/d"}),
            ("tools.cli", ["status"], {"SNAPURL_SHARDS": ""}),
        )
    ]
    said = [(await unless_hung(program.communicate()))[0].decode() for program in programs]
    assert [program.returncode for program in programs] == [0, 2, 2]
    for text, part in zip(said, ("version", "must start with postgresql://", "is missing"), strict=True):
        assert part in text and text.count("\n") == 1


async def test_a_program_that_is_killed_ends_by_that_signal() -> None:
    """The exit code of a killed program names the signal."""
    program = await start("http.server", "--bind", "127.0.0.1", "0", env=BARE, stdout=PIPE, stderr=STDOUT)
    assert program.stdout is not None
    program.kill()
    assert await unless_hung(program.wait()) == -signal.SIGKILL
