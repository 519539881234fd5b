"""The command line's help."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from snapurl.cli import cli
from snapurl.model import Right
from tests.support.waits import HANG_S


def commands(command: click.Command, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    yield words
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*words, name))


def help_of(*words: str) -> str:
    return CliRunner().invoke(cli, [*words, "--help"], terminal_width=80).output


@pytest.mark.parametrize("words", list(commands(cli)), ids=" ".join)
def test_no_line_of_the_help_is_cut(words: tuple[str, ...]) -> None:
    """On a terminal of 80 columns each command's summary is shown in full."""
    _, _, body = help_of(*words).partition("\n")
    assert "Show this message" in body
    assert "..." not in body


@pytest.mark.parametrize("module", ["snapurl.cli", "tools.cli"])
def test_a_command_starts_without_what_only_others_need(module: str) -> None:
    """Neither program imports the web framework, Redis or an event loop before a command asks for it."""
    program = f"import sys, {module}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    assert not {"httpx", "jinja2", "redis", "sanic", "uvloop"} & set(done.stdout.split())


@pytest.mark.parametrize(("program", "line"), [("snapurl", "ke"), ("snapurl-reshard", "dra")])
@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_shells_complete_the_commands(program: str, line: str, shell: str) -> None:
    """Each program prints the script that a shell needs for completion, and completes a command."""
    module = "snapurl.cli" if program == "snapurl" else "tools.cli"
    start = f"import sys; from {module} import main; sys.argv[0] = {program!r}; main()"
    variable = f"_{program.upper().replace('-', '_')}_COMPLETE"

    def asked(task: str, **more: str) -> str:
        environ = {**os.environ, variable: f"{shell}_{task}", **more}
        return subprocess.run(
            [sys.executable, "-c", start],
            env=environ,
            check=False,
            capture_output=True,
            text=True,
            timeout=HANG_S,
        ).stdout

    assert variable in asked("source")
    words = {"COMP_WORDS": f"{program} {line}", "COMP_CWORD": line if shell == "fish" else "1"}
    assert {"ke": "keys", "dra": "drain"}[line] in asked("complete", **words)


@pytest.mark.parametrize(
    ("options", "advice"),
    [
        (("--host", "192.0.2.1"), "set SNAPURL_HOST to an address of this machine"),
        (("--host", "nobody.invalid"), "(SNAPURL_HOST)"),
        (("--port", "70000"), "70000 is not in the range"),
        ((), "stop the program on that port, or set SNAPURL_PORT"),
    ],
)
def test_an_address_that_cannot_be_listened_on_is_one_line_with_the_right_advice(
    options: tuple[str, ...], advice: str
) -> None:
    """An address of another machine, an unknown name and a port in use are told apart; options take precedence."""
    with socket.create_server(("127.0.0.1", 0)) as other:
        environ = {
            **os.environ,
            "SNAPURL_SHARDS": "db0=postgresql://u:p@127.0.0.1:1/x",
            "SNAPURL_PORT": str(other.getsockname()[1]),
        }
        said = subprocess.run(
            [sys.executable, "-m", "snapurl", "serve", *options],
            env=environ, check=False, capture_output=True, text=True, timeout=HANG_S,
        )  # fmt: skip
    assert said.returncode == 2
    assert advice in said.stderr
    assert len(said.stderr.splitlines()) == 1


def test_each_right_is_explained() -> None:
    """The help of `keys create` explains every right."""
    described = {
        line.split()[0] for line in help_of("keys", "create").splitlines() if line.startswith("    ")
    }
    assert described >= {right.value for right in Right}
