"""The options that all operator commands share."""

from __future__ import annotations

import click
import pytest

from tools.cli import cli

CHANGING = {"add", "drain", "weight", "apply", "pause", "resume", "cancel", "cleanup", "doctor"}
READING = {"plan", "status", "verify", "history"}


def options_of(name: str) -> set[str]:
    """Returns the options of a command as they are typed."""
    return {
        option for item in cli.commands[name].params if isinstance(item, click.Option) for option in item.opts
    }


def test_every_command_is_known_here() -> None:
    """Every command is listed here as changing something or not."""
    assert cli.commands.keys() == CHANGING | READING | {"run"}


@pytest.mark.parametrize("name", sorted(cli.commands))
def test_every_command_speaks_to_machines(name: str) -> None:
    """Every command has --json; those that change something also have --dry-run and --yes."""
    assert "--json" in options_of(name)
    assert (options_of(name) >= {"--dry-run", "--yes"}) == (name in CHANGING)
