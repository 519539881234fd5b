"""Options and arguments of the commands: their types, and whether output is for people or for programs."""

from __future__ import annotations

import re
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import urlsplit

import click

from snapurl.codes import is_code
from snapurl.errors import ConfigError

_DURATION = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
NEVER = "never"


class _Code(click.ParamType[str]):
    """A code, or the short URL that has it."""

    name = "code"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        text = urlsplit(value).path.rpartition("/")[2] if "/" in value else value
        if not is_code(text):
            self.fail(f"{value!r} is neither a code nor a short URL", param, ctx)
        return str(text)


class _Moment(click.ParamType[str]):
    """`7d` from now, a date, a date and time, or `never`. Becomes RFC 3339 in UTC; None for `never`."""

    name = "when"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        try:
            return _moment(str(value))
        except (ValueError, OverflowError):
            self.fail(f"{value!r} is no time: write 7d, 2030-01-31, 2030-01-31T18:00 or {NEVER}", param, ctx)


def _moment(text: str) -> str:
    if text == NEVER:
        return NEVER
    if span := _DURATION.fullmatch(text):
        moment = datetime.now(UTC) + timedelta(**{_UNITS[span[2]]: int(span[1])})
    else:
        moment = datetime.fromisoformat(text).astimezone(UTC)  # without an offset: local time
    return moment.isoformat(timespec="seconds").replace("+00:00", "Z")


CODE = click.argument("code", type=_Code(), metavar="CODE")
EXPIRES = click.option(
    "--expires",
    type=_Moment(),
    metavar="WHEN",
    help="In 30m, 12h, 7d or 2w; on 2030-01-31 or at 2030-01-31T18:00, local time; or never.",
)
TITLE = click.option("--title", help="A title for people.")
TAGS = click.option("--tag", "tags", multiple=True, help="A word to find the link by. May be repeated.")
STATUS = click.option(
    "--status", type=click.Choice(["301", "302", "307", "308"]), help="The status of the redirect."
)
AS_JSON = click.option(
    "--json/--text",
    "as_json",
    default=None,
    help="Print JSON or text. Default: text on a terminal, JSON elsewhere.",
)


def wants_json(as_json: bool | None) -> bool:
    """Whether to print JSON: as asked, else if nobody reads it on a terminal."""
    return not sys.stdout.isatty() if as_json is None else as_json


def confirm_change(yes: bool, question: str) -> None:
    """Raises ConfigError unless the user agrees. Asks on stderr: stdout is for the output."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nothing was changed: without a terminal, confirm with --yes")
    if not click.confirm(question, err=True):
        raise ConfigError("nothing was changed")
