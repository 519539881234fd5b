"""`snapurl-reshard`, the operator's command: prints each error as one line on stderr and sets the exit code.

1: it failed, or a check found a problem; 2: the request is invalid or cannot be met now; 3: the change that the
command watches was cancelled or replaced; 130: stopped.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence
from typing import NoReturn

import asyncpg
import click

from ring.errors import RingError
from snapurl.errors import ConfigError, SnapURLError, file_error, one_line
from snapurl.store.cluster.pool import ShardFailed
from tools.commands import repair, run, status, topology
from tools.commands.follow import Overtaken
from tools.transfer.executor import Refused

MEANT = {
    "decommission": "drain",
    "delete": "drain",
    "empty": "drain",
    "remove": "drain",
    "rm": "drain",
    "abort": "cancel",
    "rollback": "cancel",
    "undo": "cancel",
    "check": "verify",
    "log": "history",
    "reweight": "weight",
    "resize": "weight",
    "watch": "status --watch",
}
"""What an operator may call a command, and the command."""


class _Commands(click.Group):
    """Commands that are also suggested under other words."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if meant := MEANT.get(args[0]):
            raise click.UsageError(f"No such command {args[0]!r}. Did you mean {meant!r}?", ctx)
        return super().resolve_command(ctx, args)


@click.group(
    cls=_Commands, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100}
)
@click.version_option(package_name="snapurl")
def cli() -> None:
    """Reshard a running cluster: add, drain and re-weight shards."""


for command in (*topology.COMMANDS, *run.COMMANDS, *repair.COMMANDS, *status.COMMANDS):
    cli.add_command(command)


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point: turns errors into one line and an exit code. `arguments` default to those of the process."""
    try:
        code = cli(arguments, standalone_mode=False)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(2)
    except click.ClickException as error:
        _fail(error.format_message(), 2)
    except (click.Abort, KeyboardInterrupt, asyncio.CancelledError):
        _fail("stopped", 130)
    except (ConfigError, RingError) as error:
        _fail(str(error), 2)
    except (SnapURLError, ShardFailed, Refused) as error:
        _fail(str(error), 1)
    except Overtaken as error:
        _fail(str(error), 3)
    except BrokenPipeError:
        sys.exit(1)
    except asyncpg.PostgresConnectionError as error:
        _fail(f"the connection to a shard was lost: {error}", 1)
    except asyncpg.PostgresError as error:
        _fail(f"a shard refused: {error}", 1)
    except OSError as error:
        _fail(file_error(error), 1)
    except Exception as error:
        _fail(f"unexpected {type(error).__name__}: {error}", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _fail(line: str, code: int) -> NoReturn:
    click.echo(f"snapurl-reshard: {one_line(line)}", err=True)
    sys.exit(code)


if __name__ == "__main__":
    main()
