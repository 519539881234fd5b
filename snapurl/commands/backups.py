"""`snapurl backup` and `snapurl restore`: a whole cluster in a file, and a cluster made of it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from time import monotonic
from typing import Any

import click

from snapurl.commands.clusters import settings_or_local
from snapurl.commands.options import AS_JSON, wants_json

PROGRESS_S = 1.0
PROGRESS_S_PIPED = 10.0

_FILE = click.Path(dir_okay=False, path_type=Path)


class _Backup(click.Group):
    """Takes what is no command for the place of a backup."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        return super().get_command(ctx, cmd_name) or self.commands["make"]

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        known = args and (args[0] in self.commands or args[0].startswith("-"))
        return super().resolve_command(ctx, args if known else ["make", *args])


@click.group("backup", cls=_Backup, subcommand_metavar="DIR|FILE | verify FILE")
def backup() -> None:
    """Write a backup of the whole cluster, or check one.

    \b
    snapurl backup /var/backups
    snapurl backup verify /var/backups/snapurl-20300131T120000Z.backup
    """


@backup.command("make", hidden=True)
@click.argument("place", metavar="DIR|FILE", type=click.Path(path_type=Path))
@AS_JSON
def make(place: Path, as_json: bool | None) -> None:
    """Write a backup to FILE, or to a file in DIR that is named by the time.

    It has links, statistics, accounts and keys of all shards, each as of one
    moment. Nobody is held up meanwhile. The file has its name once it is whole,
    and only you can read it.
    """
    from snapurl.backup.dump import file_for, make_backup

    path = file_for(place, datetime.now(UTC))
    progress = _Progress()
    said = asyncio.run(make_backup(settings_or_local(), path, progress.count))
    progress.end()
    _show(f"{path}: {progress.summary}", {"file": str(path), **_head(said), **progress.document}, as_json)


@backup.command("verify")
@click.argument("file", type=_FILE)
@AS_JSON
def verify_file(file: Path, as_json: bool | None) -> None:
    """Check that FILE is a whole backup: each row against the manifest.

    It needs no cluster.
    """
    from snapurl.backup.archive import opened, verified_parts

    progress = _Progress()
    with opened(file) as archive:
        bytes_all = sum(part.bytes for part in archive.parts) or 1
        for part in verified_parts(archive, file):
            progress.count(part, (progress.bytes + part.bytes) / bytes_all)
        said = _head(archive.manifest)
    progress.end()
    line = f"{file} is whole: {progress.summary}, made at {said['made_at']}"
    _show(line, {"file": str(file), **said, **progress.document}, as_json)


@click.command("restore")
@click.argument("file", type=_FILE)
@AS_JSON
def restore_file(file: Path, as_json: bool | None) -> None:
    """Restore a backup to an empty cluster.

    The cluster may have more or fewer shards than the old one; it is refused if
    it has a link. FILE is verified before anything is written. If it is
    interrupted, run it again: it goes on.
    """
    from snapurl.backup.restore import restore_backup
    from snapurl.local.access import LocalUser

    progress = _Progress()
    said = _head(asyncio.run(restore_backup(settings_or_local(LocalUser.MIGRATOR), file, progress.count)))
    progress.end()
    line = f"restored from {file}: {progress.summary}, made at {said['made_at']}"
    _show(line, {"file": str(file), **said, **progress.document}, as_json)


def _head(manifest: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: value for name, value in manifest.items() if name not in ("parts", "slots", "columns", "rows")
    }


def _show(line: str, document: Mapping[str, Any], as_json: bool | None) -> None:
    click.echo(json.dumps(document) if wants_json(as_json) else line)


class _Progress:
    """Counts rows by table, and shows how far it is: on a terminal in one line that changes."""

    def __init__(self) -> None:
        self._began_s = self._shown_s = monotonic()
        self._is_terminal = sys.stderr.isatty()
        self.rows: dict[str, int] = {}
        self.bytes = 0

    def count(self, part: Any, share: float) -> None:
        self.rows[part.table] = self.rows.get(part.table, 0) + part.rows
        self.bytes += part.bytes
        if monotonic() - self._shown_s >= (PROGRESS_S if self._is_terminal else PROGRESS_S_PIPED):
            self._shown_s = monotonic()
            click.echo(self._line(share), err=True, nl=not self._is_terminal)

    def _line(self, share: float) -> str:
        took_s = monotonic() - self._began_s
        left = f", {took_s * (1 - share) / share:.0f} s left" if share else ""
        line = f"{self._total:,} rows, {self._total / max(took_s, 0.001):,.0f}/s{left}"
        return f"\r{line:<70}" if self._is_terminal else line

    def end(self) -> None:
        if self._is_terminal and self._shown_s != self._began_s:
            click.echo("\r" + " " * 70 + "\r", err=True, nl=False)

    @property
    def _total(self) -> int:
        return sum(self.rows.values())

    @property
    def summary(self) -> str:
        took_s = monotonic() - self._began_s
        return f"{self.rows.get('links', 0):,} links, {self._total:,} rows in {took_s:.1f} s"

    @property
    def document(self) -> dict[str, Any]:
        return {"rows": self.rows, "bytes": self.bytes}
