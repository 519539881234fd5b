"""`snapurl export`: links and their clicks as CSV or JSON lines, page by page from the API.

An export is whole or it fails: the pages are asked for so that the service refuses while a shard is silent, and a
file gets its name only when all of it is written. Links that are created while it runs may be missing in it.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, islice
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TextIO, TypeVar
from urllib.parse import quote

import click

from snapurl.commands.api import Api, ApiRefusal
from snapurl.commands.options import Moment
from snapurl.config import load_settings
from snapurl.link_exports import COLUMNS, DAYS, SHLINK, day_rows, link_row, shlink_row
from snapurl.model import LinkState

LINKS = "/api/v1/links"
PAGE_LINKS = 200  # as many as the API gives at once
ATTEMPTS = 6
PAUSE_S = 0.5  # before the second attempt; it doubles with each
PROGRESS_S = 1.0

Link = Mapping[str, Any]
Command = TypeVar("Command", bound=Callable[..., Any])


@click.group("export")
def export() -> None:
    """Write links or their clicks to a file.

    Uses the service at SNAPURL_URL with a key, as `snapurl links` does. An
    admin key exports the links of all accounts.
    """


def _filters(command: Command) -> Command:
    """Adds the options that say which links, named as the parameters of the list, and where to write them."""
    for option in reversed(
        (
            click.option("--find", "q", metavar="TEXT", help="With this in their code, URL, title or note."),
            click.option(
                "--tag", "tags_all", multiple=True, help="With this tag; repeated: with all of them."
            ),
            click.option("--any-tag", "tags_any", multiple=True, help="With one of these tags."),
            click.option("--no-tag", "tags_none", multiple=True, help="Without this tag."),
            click.option(
                "--state",
                type=click.Choice([state.value for state in LinkState]),
                help="That are this now. Default: all but deleted ones.",
            ),
            click.option("--domain", metavar="HOST", help="Of this domain."),
            click.option("--account", metavar="ID", help="Of this account."),
            click.option("--creator", metavar="KEY_ID", help="Made by this key."),
            *(
                click.option(
                    f"--{what}-{end}", type=Moment(), metavar="WHEN", help=f"{what.capitalize()} {said}."
                )
                for what in ("created", "changed", "expires")
                for end, said in (("from", "then or later"), ("to", "before"))
            ),
            click.option(
                "--output",
                "-o",
                type=click.Path(dir_okay=False, path_type=Path),
                help="File to write. Default: stdout.",
            ),
        )
    ):
        command = option(command)
    return command


@export.command("links")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "shlink", "jsonl"]),
    default="csv",
    show_default=True,
    help="CSV with every field, with the columns of Shlink's web client, or a line of JSON per link.",
)
@_filters
def export_links(kind: str, output: Path | None, **filters: object) -> None:
    """Write links, oldest first.

    `snapurl import csv` reads the CSV file again.

    \b
    snapurl export links --tag sale -o sale.csv
    snapurl export links --format jsonl | jq .url
    """
    api = Api.of(load_settings())
    links = _progress("links", _begun(_links(api, filters)))
    with _opened(output) as out:
        match kind:
            case "jsonl":
                _write_json(out, links)
            case "csv":
                _write_rows(out, COLUMNS, map(link_row, links))
            case _:
                _write_rows(out, SHLINK, map(shlink_row, links))


@export.command("statistics")
@click.option(
    "--format",
    "kind",
    type=click.Choice(["csv", "jsonl"]),
    default="csv",
    show_default=True,
    help="CSV with a row per link and day, or a line of JSON per link, with referrers and browsers.",
)
@_filters
def export_statistics(kind: str, output: Path | None, **filters: object) -> None:
    """Write the clicks of links by day (UTC).

    \b
    snapurl export statistics --created-from 2030-01-01 -o clicks.csv
    """
    api = Api.of(load_settings())
    counted = ((link, _statistics(api, link)) for link in _progress("links", _begun(_links(api, filters))))
    with _opened(output) as out:
        if kind == "jsonl":
            _write_json(out, (stats for _, stats in counted))
        else:
            _write_rows(out, DAYS, (row for link, stats in counted for row in day_rows(link, stats)))


# -- reading -----------------------------------------------------------------------------------------------------


def _links(api: Api, filters: Mapping[str, object]) -> Iterator[Link]:
    """Yields the links, oldest first. Raises ApiRefusal."""
    query = {name: value for name, value in filters.items() if value}
    asked = {**query, "sort": "created", "order": "asc", "strict": "true", "limit": PAGE_LINKS}
    cursor: str | None = None
    while True:
        page = _patiently(api, LINKS, {**asked, "cursor": cursor} if cursor else asked)
        yield from page["links"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


def _begun(items: Iterator[Link]) -> Iterator[Link]:
    """Returns the items, once the first is there: a refusal comes before anything is written."""
    first = list(islice(items, 1))
    return chain(first, items)


def _statistics(api: Api, link: Link) -> Mapping[str, Any]:
    query = {"domain": link["domain"]} if link["domain"] else {}
    found: Mapping[str, Any] = _patiently(api, f"{LINKS}/{quote(link['code'], safe='')}/stats", query)
    return found


def _patiently(api: Api, path: str, query: Mapping[str, object]) -> Any:
    """Asks again while the service or a shard does not answer. Raises ApiRefusal."""
    for attempt in range(1, ATTEMPTS + 1):
        try:
            return api.call("GET", path, query=query)
        except ApiRefusal as refusal:
            if attempt == ATTEMPTS or refusal.answered not in (0, 429, 502, 503, 504):
                raise
            sleep(PAUSE_S * 2 ** (attempt - 1))
    raise AssertionError("unreachable")


def _progress(what: str, items: Iterable[Link]) -> Iterator[Link]:
    """Yields the items, and says on a terminal how many there were."""
    is_shown, began_s, shown_s, count = sys.stderr.isatty(), monotonic(), monotonic(), 0
    for item in items:
        yield item
        count += 1
        if is_shown and monotonic() - shown_s >= PROGRESS_S:
            shown_s = monotonic()
            click.echo(f"\r{count:,} {what}, {count / (shown_s - began_s):,.0f}/s", err=True, nl=False)
    if is_shown:
        click.echo(f"\r{count:,} {what}" + " " * 20, err=True)


# -- writing -----------------------------------------------------------------------------------------------------


@contextmanager
def _opened(path: Path | None) -> Iterator[TextIO]:
    """Opens what is written. A file has another name until it is whole."""
    if path is None:
        yield sys.stdout
        return
    part = path.with_name(f"{path.name}.part")
    try:
        with part.open("w", encoding="utf-8", newline="") as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        part.replace(path)
    except BaseException:
        part.unlink(missing_ok=True)
        raise


def _write_json(out: TextIO, documents: Iterable[Mapping[str, Any]]) -> None:
    for document in documents:
        out.write(json.dumps(document, ensure_ascii=False) + "\n")


def _write_rows(out: TextIO, header: Sequence[str], rows: Iterable[Sequence[object]]) -> None:
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
