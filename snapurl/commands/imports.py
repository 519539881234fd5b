"""`snapurl import`: the links of another service, from a file that it has written."""

from __future__ import annotations

import csv
import json
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from types import TracebackType
from typing import Any, BinaryIO, TextIO
from zoneinfo import ZoneInfo

import click

from snapurl.commands.api import Api, ApiRefusal
from snapurl.commands.import_run import ImportRun, Result
from snapurl.commands.import_urls import URL_SOURCES, open_url
from snapurl.commands.options import AS_JSON, wants_json
from snapurl.config import load_settings
from snapurl.errors import ConfigError, SnapURLError
from snapurl.imports.catalogue import SOURCES
from snapurl.imports.day_counts import WithDays
from snapurl.imports.plan import ImportPlan, RefusedRows, RowOutcome
from snapurl.imports.rows import FileRefused, Reading
from snapurl.imports.source import Source
from snapurl.imports.visit_files import VISIT_FILES

KEYS = "/api/v1/keys"
PROGRESS_S = 1.0
PROGRESS_S_PIPED = 10.0


class ImportRefused(SnapURLError):
    """The file cannot be imported, or not all of it."""


class _Zone(click.ParamType[ZoneInfo]):
    name = "zone"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> ZoneInfo:
        if isinstance(value, ZoneInfo):
            return value
        try:
            return ZoneInfo(str(value))
        except (KeyError, ValueError, OSError):
            self.fail(f"{value!r} is not the name of a time zone, as in Europe/Berlin", param, ctx)


@click.command("import")
@click.argument("source", type=click.Choice(list(SOURCES)), metavar="SOURCE")
@click.argument("file", metavar="FILE")
@click.option(
    "--key-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the API key or token of the service whose URL FILE is; only you may read it.",
)
@click.option("--dry-run", is_flag=True, help="Say what would become of each row, and change nothing.")
@click.option(
    "--domain", metavar="HOST", help="The domain of all links. Default: their own, if the service has it."
)
@click.option("--only", metavar="HOST", help="Only links of this domain in the file.")
@click.option("--account", metavar="ID", help="To whom the links belong. Default: the account of the key.")
@click.option("--tag", "tags", multiple=True, help="A tag for each link, besides its own. May be repeated.")
@click.option(
    "--zone", type=_Zone(), default="UTC", show_default=True, help="Where times without a zone are from."
)
@click.option(
    "--no-visits",
    is_flag=True,
    help="Leave out the visits by day that a YOURLS dump, a running Shlink, or Bitly has.",
)
@click.option(
    "--visits",
    "visits_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the visits of the links: Kutt's table `visits` as CSV, or a CSV of visits of Shlink.",
)
@click.option(
    "--days",
    "days_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File with the clicks of the links by day, as `snapurl export statistics` writes it.",
)
@click.option("--skip-expired", is_flag=True, help="Leave out links that have expired.")
@click.option(
    "--refused",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File for the rows that are refused. Default: FILE with the ending .refused.csv.",
)
@AS_JSON
def import_file(
    source: str,
    file: str,
    key_file: Path | None,
    dry_run: bool,
    domain: str | None,
    only: str | None,
    account: str | None,
    tags: tuple[str, ...],
    zone: ZoneInfo,
    no_visits: bool,
    visits_file: Path | None,
    days_file: Path | None,
    skip_expired: bool,
    refused: Path | None,
    as_json: bool | None,
) -> int:
    """Import the links of another service from FILE.

    \b
    SOURCE is what has written the file:
      csv      any program, or `snapurl export`; a row without a code gets one
      shlink   short_urls.csv, or the columns that Shlink itself imports; or FILE
               is the URL of a Shlink, and --key-file has its API key
      yourls   an SQL dump of the database, or a CSV of its table
      kutt     the table of links as CSV
      bitly    its CSV; or FILE is https://api-ssl.bitly.com, and --key-file has
               a token
      dub      its CSV

    Uses the service at SNAPURL_URL with an admin key, as `snapurl links` does.
    Links keep their codes. Rows that cannot become links are written to a file,
    each with its reason; mend that file and import it. Run the same again after
    an interruption: nothing is made twice.

    \b
    snapurl import shlink short_urls.csv --dry-run
    snapurl import shlink short_urls.csv
    """
    now = datetime.now(UTC)
    second_file = visits_file or days_file
    second_reader = _second_reader(source, "://" in file, visits_file, days_file, no_visits=no_visits)
    plan = ImportPlan(
        dry_run,
        domain,
        only.lower() if only else None,
        account,
        tags,
        now if skip_expired else None,
    )
    is_url = "://" in file
    path = refused or (Path(f"{source}.refused.csv") if is_url else Path(file).with_suffix(".refused.csv"))
    if not dry_run and path.exists() and not is_url and path.samefile(file):
        raise ConfigError("--refused: this is the file that is imported")
    try:
        with _opened(source, file, key_file, Reading(zone, now, not no_visits)) as (opened, share):
            read = _with(second_reader, opened, second_file, Reading(zone, now)) if second_file else opened
            progress = _Progress(share)
            keep = _Rows(wants_json(as_json)) if dry_run else _RefusedFile(path, read.header)
            api = Api.of(load_settings())
            _check_key(api)
            with keep:
                run = ImportRun(api, plan, _both(progress.count, keep.take))
                try:
                    run.run(read)
                finally:
                    progress.end()
                    if progress.rows or run.is_over:
                        kept = None if dry_run or not progress.refused else path
                        _show(progress, kept, wants_json(as_json), dry_run)
    except FileRefused as refusal:
        raise ImportRefused(f"{file}: {refusal}") from None
    return 1 if progress.refused else 0


@contextmanager
def _opened(
    source: str, file: str, key_file: Path | None, reading: Reading
) -> Iterator[tuple[Source, Callable[[], float]]]:
    """Opens a file, or a service. Yields the source, and how much of it has been read, from 0 to 1."""
    if "://" in file:
        if source not in URL_SOURCES or key_file is None:
            raise click.UsageError(f"only {' and '.join(URL_SOURCES)} are read from a URL, with --key-file")
        yield open_url(source, file, key_file, reading)
        return
    with Path(file).open("rb") as opened:
        size = max(os.fstat(opened.fileno()).st_size, 1)
        yield SOURCES[source](opened, reading), lambda: os.lseek(opened.fileno(), 0, os.SEEK_CUR) / size


def _second_reader(
    source: str, is_url: bool, visits_file: Path | None, days_file: Path | None, *, no_visits: bool
) -> Callable[[Source, BinaryIO, Reading], Source]:
    """Returns what reads the clicks of links from a second file. Raises UsageError."""
    if visits_file is None:
        return WithDays
    if days_file is not None or no_visits:
        raise click.UsageError("--visits, --days and --no-visits: choose one")
    if is_url or source not in VISIT_FILES:
        raise click.UsageError(f"--visits is for files of {' and '.join(VISIT_FILES)}")
    return VISIT_FILES[source]


def _with(
    second_reader: Callable[[Source, BinaryIO, Reading], Source], source: Source, file: Path, reading: Reading
) -> Source:
    """Returns the source, whose links get the clicks in a file. Raises FileRefused."""
    with file.open("rb") as opened:
        return second_reader(source, opened, reading)


def _check_key(api: Api) -> None:
    """Raises ApiRefusal for a key that may not import, before anything is read or written."""
    try:
        api.call("GET", KEYS, query={"limit": 1})  # only admins list keys
    except ApiRefusal as refusal:
        if refusal.answered in (401, 403):
            raise  # of all else the import itself is patient


def _both(first: Callable[[Result], None], second: Callable[[Result], None]) -> Callable[[Result], None]:
    def report(result: Result) -> None:
        first(result)
        second(result)

    return report


class _Progress:
    """Counts results, and shows how far the import is: on a terminal in one line that changes."""

    def __init__(self, share: Callable[[], float]) -> None:
        self._share = share
        self._began_s = self._shown_s = monotonic()
        self._is_terminal = sys.stderr.isatty()
        self.rows = self.remarks = 0
        self.outcomes: Counter[RowOutcome] = Counter()

    @property
    def refused(self) -> int:
        return self.outcomes[RowOutcome.REFUSED]

    @property
    def took_s(self) -> float:
        return max(monotonic() - self._began_s, 0.001)

    def count(self, result: Result) -> None:
        self.rows += 1
        self.outcomes[result.outcome] += 1
        self.remarks += bool(
            result.found and result.found.remarks and result.outcome is not RowOutcome.SKIPPED
        )
        if monotonic() - self._shown_s >= (PROGRESS_S if self._is_terminal else PROGRESS_S_PIPED):
            self._shown_s = monotonic()
            click.echo(self._line(), err=True, nl=not self._is_terminal)

    def _line(self) -> str:
        done, took_s = self._share(), self.took_s
        left_s = took_s * (1 - done) / done if done else 0
        line = (
            f"{self.rows:,} rows, {self.rows / took_s:,.0f}/s, {self.refused:,} refused, {left_s:.0f} s left"
        )
        return f"\r{line:<70}" if self._is_terminal else line

    def end(self) -> None:
        if self._is_terminal and self._shown_s != self._began_s:
            click.echo("\r" + " " * 70 + "\r", err=True, nl=False)


class _RefusedFile:
    """A CSV file with the rows that were refused, as in the source, and why. There is none without rows."""

    def __init__(self, path: Path, header: Sequence[str]) -> None:
        self._path = path
        self._rows = RefusedRows(header)
        self._count = 0

    def __enter__(self) -> _RefusedFile:
        self._file: TextIO = self._path.open("w", encoding="utf-8", errors="backslashreplace", newline="")
        self._writer = csv.writer(self._file, lineterminator="\n")
        self._writer.writerow(self._rows.header)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None
    ) -> None:
        self._file.close()
        if not self._count:
            self._path.unlink()

    def take(self, result: Result) -> None:
        if result.outcome is not RowOutcome.REFUSED:
            return
        self._count += 1
        self._writer.writerow(self._rows.row(result.row.cells, result.reason))


class _Rows:
    """Prints what would become of each row."""

    def __init__(self, is_json: bool) -> None:
        self._is_json = is_json

    def __enter__(self) -> _Rows:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def take(self, result: Result) -> None:
        remarks = [result.reason, *(result.found.remarks if result.found else ())]
        said = list(filter(None, remarks))
        if self._is_json:
            document = {
                "row": result.row.place,
                "outcome": result.outcome.value,
                "code": result.code or None,
                "domain": result.domain or None,
                "url": result.found.url if result.found else None,
                "remarks": said,
            }
            click.echo(json.dumps(document))
            return
        name = f"{result.domain}/{result.code}" if result.domain else result.code
        click.echo(
            f"{result.row.place:>8}  {result.outcome.value:<8}  {name}{'  ' if name else ''}{'; '.join(said)}"
        )


def _show(progress: _Progress, refused: Path | None, is_json: bool, is_dry: bool) -> None:
    """Prints how many rows became what."""
    counts = {outcome.value: progress.outcomes[outcome] for outcome in RowOutcome}
    if is_json:
        document = {"rows": progress.rows, **counts, "remarks": progress.remarks, "dry_run": is_dry}
        click.echo(json.dumps({**document, "refused_file": str(refused) if refused else None}))
        return
    would = "would be " if is_dry else ""
    rate = f"{progress.rows:,} rows in {progress.took_s:.1f} s ({progress.rows / progress.took_s:,.0f}/s)"
    lines = [
        f"{rate}: {counts['created']:,} {would}created, {counts['present']:,} there already, "
        f"{counts['refused']:,} {would}refused, {counts['skipped']:,} {would}skipped"
    ]
    if progress.remarks and not is_dry:
        lines.append(f"{progress.remarks:,} differ from the file; --dry-run says how")
    if refused:
        lines.append(f"The refused rows and their reasons are in {refused}")
    click.echo("\n".join(lines))
