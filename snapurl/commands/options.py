"""Options and arguments of the commands: their types, and whether output is for people or for programs."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import wraps
from typing import Any, TextIO, TypeVar
from urllib.parse import urlsplit

import click

from snapurl.codes import is_code
from snapurl.errors import ConfigError

_DURATION = re.compile(r"([0-9]{1,6})([mhdw])")
_UNITS = {"m": "minutes", "h": "hours", "d": "days", "w": "weeks"}
NEVER = "never"
LIST_LINKS_MAX = 10_000
RULES_FILE_CHARS_MAX = 1_048_576

Command = TypeVar("Command", bound=Callable[..., Any])


@dataclass(frozen=True, slots=True)
class Named:
    """A link as it is named: by its code, or its short URL, which has its domain. Without a domain it is ""."""

    code: str
    domain: str

    @property
    def query(self) -> dict[str, str]:
        """The parameters that say which domain is meant."""
        return {"domain": self.domain} if self.domain else {}

    def __str__(self) -> str:
        return f"{self.domain}/{self.code}" if self.domain else self.code


class CodeType(click.ParamType[Named]):
    """A code, or the short URL that has it, also without its scheme."""

    name = "code"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Named:
        try:
            parts = urlsplit(value if "://" in value or "/" not in value else f"https://{value}")
            named = Named(parts.path.rpartition("/")[2], parts.hostname or "")
        except ValueError:
            named = Named("", "")
        if not is_code(named.code):
            self.fail(f"{value!r} is neither a code nor a short URL", param, ctx)
        return named


class Moment(click.ParamType[str]):
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


_CODE_DOMAIN = click.option(
    "--domain",
    metavar="HOST",
    help="The domain of CODE. Default: that of the short URL, else that of the service.",
)


def _with_domain(command: Callable[..., None]) -> Callable[..., None]:
    """Adds the argument CODE and the option that says of which domain it is; both become one `Named`."""

    @wraps(command)
    def named(code: Named, domain: str | None, **others: object) -> None:
        command(code=replace(code, domain=domain or code.domain), **others)

    return click.argument("code", type=CodeType(), metavar="CODE")(_CODE_DOMAIN(named))


CODE = _with_domain
PASSWORD = click.option(
    "--password",
    "asks_password",
    is_flag=True,
    help="Ask for a password (on stdin), which whoever follows the link must know.",
)


def _all(*options: Callable[[Command], Command]) -> Callable[[Command], Command]:
    """Returns a decorator that adds the options in this order."""

    def add(command: Command) -> Command:
        for option in reversed(options):
            command = option(command)
        return command

    return add


LINK_FIELDS = _all(
    click.option("--title", help="A title for people."),
    click.option("--note", help="A longer text for people."),
    click.option("--tag", "tags", multiple=True, help="A word to find the link by. May be repeated."),
    click.option(
        "--expires",
        "expires_at",
        type=Moment(),
        metavar="WHEN",
        help="In 30m, 12h, 7d or 2w; on 2030-01-31 or at 2030-01-31T18:00, local time; or never.",
    ),
    click.option("--expired-url", help="Where it leads after that."),
    click.option(
        "--starts",
        "starts_at",
        type=Moment(),
        metavar="WHEN",
        help="Until then nothing is there. Written as --expires.",
    ),
    click.option("--max-clicks", type=click.IntRange(min=0), help="How many clicks it takes; 0: any number."),
    click.option(
        "--forward-query/--no-forward-query", default=None, help="Whether the target gets the query."
    ),
    click.option(
        "--forward-path/--no-forward-path", default=None, help="Whether the target gets the path behind it."
    ),
    click.option(
        "--status",
        "redirect_status",
        type=click.Choice(["301", "302", "307", "308"]),
        help="The status of the redirect.",
    ),
)
"""What a link may have besides its URL, each named as its field in the API."""

RULES = click.option(
    "--rules",
    type=click.File(encoding="utf-8"),
    metavar="FILE",
    help="Rules for visitors, a JSON array as in the API; - is stdin.",
)

LIST_FILTERS = _all(
    click.option("--tag", "tags_all", multiple=True, help="Links with this tag. Repeated: with all of them."),
    click.option(
        "--state",
        type=click.Choice(["live", "expired", "deleted"]),
        help="Links that are this now. Default: all but deleted ones.",
    ),
    click.option("--domain", metavar="HOST", help="Links of this domain."),
    click.option(
        "--sort", type=click.Choice(["created", "changed", "code", "clicks"]), help="Default: created."
    ),
    click.option("--reverse", is_flag=True, help="The other way round: oldest first."),
    click.option(
        "--limit",
        type=click.IntRange(1, LIST_LINKS_MAX),
        default=50,
        show_default=True,
        help="How many links to show.",
    ),
)


def body_of(fields: Mapping[str, object]) -> dict[str, Any]:
    """Returns the fields of a body for the options that were given; what removes a value becomes null."""
    given = {name: value for name, value in fields.items() if value is not None and value != ()}
    body = {name: None if value == "" else value for name, value in given.items()}
    if body.get("max_clicks") == 0:
        body["max_clicks"] = None
    for name in ("expires_at", "starts_at"):
        if body.get(name) == NEVER:
            body[name] = None
    if "redirect_status" in body:
        body["redirect_status"] = int(str(body["redirect_status"]))
    return body


def read_rules(file: TextIO) -> Any:
    """Returns the JSON that a file has. Raises BadParameter, with one line."""
    try:
        text = file.read(RULES_FILE_CHARS_MAX + 1)
        if len(text) > RULES_FILE_CHARS_MAX:
            raise ValueError(f"it has more than {RULES_FILE_CHARS_MAX:,} characters")
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        why = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise click.BadParameter(f"this is no JSON: {why}", param_hint="--rules") from None


def query_of(filters: Mapping[str, object]) -> dict[str, object]:
    """Returns the query parameters for the filters that were given."""
    query = {name: value for name, value in filters.items() if value and name != "reverse"}
    if filters["reverse"]:
        query["order"] = "desc" if filters["sort"] == "code" else "asc"
    elif filters["sort"] == "code":
        query["order"] = "asc"
    return query


def ask_password() -> str:
    """Returns a password that is typed twice, unseen; without a terminal, the first line of stdin."""
    if sys.stdin.isatty():
        return str(click.prompt("Password", hide_input=True, confirmation_prompt=True, err=True))
    return sys.stdin.readline().rstrip("\r\n")


AS_JSON = click.option(
    "--json/--text",
    "as_json",
    default=None,
    help="Print JSON or text. Default: text on a terminal, JSON elsewhere.",
)


def wants_json(as_json: bool | None) -> bool:
    """Whether to print JSON: as asked, else if nobody reads it on a terminal."""
    return not sys.stdout.isatty() if as_json is None else as_json


def warn_of_missing(what: str, silent: Sequence[str]) -> None:
    """Says on stderr which shards are not in what is shown."""
    for name in silent:
        click.echo(f"snapurl: the {what} on shard {name} are missing here: it does not serve now", err=True)


def warn_of_part(what: str, found: Mapping[str, Any]) -> None:
    """Says on stderr what an answer of the API lacks. Only an admin key is told names."""
    if found["partial"]:
        warn_of_missing(what, found["partial"])
    elif not found["complete"]:
        click.echo(f"snapurl: some {what} are missing here: a shard does not answer now", err=True)


def confirm_change(yes: bool, question: str) -> None:
    """Raises ConfigError unless the user agrees. Asks on stderr: stdout is for the output."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("nothing was changed: without a terminal, confirm with --yes")
    if not click.confirm(question, err=True):
        raise ConfigError("nothing was changed")
