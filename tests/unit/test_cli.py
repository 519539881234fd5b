"""The command line's help."""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest
from click.testing import CliRunner

from snapurl.cli import cli
from snapurl.model import Right


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


def test_each_right_is_explained() -> None:
    """The help of `keys create` explains every right."""
    described = {
        line.split()[0] for line in help_of("keys", "create").splitlines() if line.startswith("    ")
    }
    assert described >= {right.value for right in Right}
