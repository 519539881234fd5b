"""Options, settings, connections, confirmation and output of all commands."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, TypeVar

import click
from rich.console import Console

from snapurl.config import Settings, load_settings
from snapurl.errors import ConfigError
from snapurl.local.access import LocalUser
from snapurl.local.state import running_settings
from snapurl.store.cluster.connection import LOST
from tools.cluster.fleet import Fleet

T = TypeVar("T")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run = click.option("--dry-run", is_flag=True, help="Show what would be done, without doing it.")
yes = click.option("--yes", is_flag=True, help="Do not ask for confirmation.")
watch = click.option("--watch", is_flag=True, help="Follow the progress.")
disk_free = click.option(
    "--disk-free",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Free bytes on each shard that receives rows; it cannot be queried over SQL.",
)

grace_s = click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Seconds after which the rows of a released slot may be deleted.",
)


def settings() -> Settings:
    """Loads the settings; without SNAPURL_SHARDS, those of the local cluster. Raises ConfigError."""
    found = load_settings()
    if not found.shards.get_secret_value() and (local := running_settings(found.home, LocalUser.MIGRATOR)):
        found = load_settings(**local)
    _ = found.shard_dsns
    return found


def with_fleet(work: Callable[[Fleet], Awaitable[T]]) -> T:
    """Runs `work` with connections that are closed afterwards, and returns its result."""

    async def run() -> T:
        fleet = await Fleet.connect(settings())
        try:
            return await work(fleet)
        except LOST as error:
            if (loss := fleet.loss_by(error)) is None:
                raise
            raise loss from error
        finally:
            await fleet.close()

    return asyncio.run(run())


def confirm(yes: bool, question: str) -> None:
    """Raises ConfigError unless the operator agrees. Asks on stderr: stdout is for the output."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nothing was changed: without a terminal, confirm with --yes")
    if not click.confirm(question, err=True):
        raise ConfigError("nothing was changed")


def show(as_json: bool, text: Any, document: Mapping[str, Any]) -> None:
    """Prints the document as one line of JSON, or the text."""
    if as_json:
        click.echo(json.dumps(document, default=_json_default))
    else:
        # Made anew for each call, since tests replace stdout.
        console = Console()
        console.print(text, soft_wrap=not console.is_terminal, highlight=False, markup=False)


def _json_default(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
