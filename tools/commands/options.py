"""What the commands share: their options, the settings, the connections, asking, and printing."""

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
from snapurl.local.cluster import saved_settings
from tools.cluster.fleet import Fleet

T = TypeVar("T")

as_json = click.option("--json", "as_json", is_flag=True, help="Print JSON.")
dry_run = click.option("--dry-run", is_flag=True, help="Say what would be done, and do nothing.")
yes = click.option("--yes", is_flag=True, help="Do not ask.")
watch = click.option("--watch", is_flag=True, help="Follow it.")
disk_free = click.option(
    "--disk-free",
    type=click.IntRange(min=0),
    metavar="BYTES",
    help="Bytes free on each shard that gets more; SQL cannot ask for it.",
)

grace_s = click.option(
    "--grace-s",
    type=click.FloatRange(min=0),
    default=30.0,
    show_default=True,
    help="Age at which rows of slots that were given away may be deleted.",
)


def settings() -> Settings:
    """Without SNAPURL_SHARDS, those of the local cluster in SNAPURL_HOME. Raises ConfigError."""
    found = load_settings()
    if not found.shards.get_secret_value() and (local := saved_settings(found.home)):
        found = load_settings(**local)
    _ = found.shard_dsns
    return found


def with_fleet(work: Callable[[Fleet], Awaitable[T]]) -> T:
    """Runs `work` on connections of its own."""

    async def run() -> T:
        fleet = await Fleet.connect(settings())
        try:
            return await work(fleet)
        finally:
            await fleet.close()

    return asyncio.run(run())


def confirm(yes: bool, question: str) -> None:
    """Raises ConfigError unless the operator agrees. The question is on stderr: stdout is for the answer."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nothing was changed: say --yes where nobody can be asked")
    if not click.confirm(question, err=True):
        raise ConfigError("nothing was changed")


def show(as_json: bool, text: Any, document: Mapping[str, Any]) -> None:
    """Prints the document as one line of JSON, or the text."""
    if as_json:
        click.echo(json.dumps(document, default=_plain))
    else:
        # Not kept: tests and pipes exchange stdout.
        console = Console()
        console.print(text, soft_wrap=not console.is_terminal, highlight=False, markup=False)


def _plain(value: object) -> str:
    return value.isoformat() if isinstance(value, datetime) else str(value)
