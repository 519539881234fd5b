"""YOURLS: a dump of its database, its table as CSV, or the CSV of its import and export plugin. Pure.

Of a dump the rows of the table whose name ends with `url` are links, those of one whose name ends with `log` are
visits, whatever its prefix. Old tables hold UTF-8 as Latin-1; titles that are UTF-8 once more are read so. A
`NULL` is nothing, also as a word.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from datetime import date
from functools import lru_cache
from typing import BinaryIO

from snapurl.imports.cells import time_of
from snapurl.imports.columns import Columns
from snapurl.imports.rows import FileRefused, Found, Reading, Row, RowRefused, VisitDays, add_visits
from snapurl.imports.source import Source, TableSource
from snapurl.imports.sql_dump import inserted
from snapurl.imports.table import open_text

COLUMNS = ("keyword", "url", "title", "timestamp", "ip", "clicks")
LOG_COLUMNS = (
    "click_id", "click_time", "shorturl", "referrer", "user_agent", "ip_address", "country_code",
)  # fmt: skip
HEAD_BYTES = 65_536
DAYS_CACHED = 65_536  # minutes, whose days are known

_SQL = re.compile(rb"\A\s*(?:--|/\*|#)|^\s*(?:INSERT\s+INTO|CREATE\s+TABLE|LOCK\s+TABLES|SET\s)", re.I | re.M)


def open_yourls(file: BinaryIO, reading: Reading) -> Source:
    """Opens a dump or a CSV file. Raises FileRefused."""
    head = file.read(HEAD_BYTES)
    file.seek(0)
    return YourlsDump(file, reading) if is_dump(head) else YourlsFile(file, reading)


def is_dump(head: bytes) -> bool:
    """Whether a file that begins so is an SQL dump."""
    return _SQL.search(head[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf")) is not None


class YourlsFile(TableSource):
    """`keyword,url,title,timestamp,ip,clicks`, or `source,target,hits` of the plugin."""

    def link(self, row: Row) -> Found:
        """Returns the link of a row. Raises RowRefused."""
        return _link(row, super().link)


class YourlsDump:
    """The table of links in an SQL dump. Raises FileRefused if the dump has none."""

    def __init__(self, file: BinaryIO, reading: Reading) -> None:
        self._visits = _visits(file, reading) if reading.has_visits else VisitDays(reading)
        self._inserted = inserted(open_text(file))
        self._columns = Columns(COLUMNS, reading)
        self.header: Sequence[str] = COLUMNS

    def rows(self) -> Iterator[Row]:
        """Yields the rows of the table of links. Raises FileRefused."""
        place, table = 0, ""
        for row in self._inserted:
            columns = row.columns or COLUMNS
            if not row.table.lower().endswith("url") or not {"keyword", "url"} <= set(columns):
                continue
            if table not in ("", row.table):
                raise FileRefused(f"it has links of two installations, in {table} and {row.table}")
            table = row.table
            place += 1
            cells = tuple("" if cell is None else cell for cell in row.cells)
            is_whole = len(cells) == len(columns)
            named = dict(zip(columns, cells, strict=False))
            yield Row(
                place,
                [named.get(name, "") for name in COLUMNS],
                "" if is_whole else f"it has {len(cells)} values for {len(columns)} columns",
            )
        if not place:
            raise FileRefused("the dump has no table of links: none whose name ends with `url` has a keyword")

    def link(self, row: Row) -> Found:
        """Returns the link of a row. Raises RowRefused."""
        return _link(row, self._plain_link)

    def _plain_link(self, row: Row) -> Found:
        if row.fault:
            raise RowRefused(row.fault)
        found = self._columns.link(row.cells)
        if found.code is None:
            raise RowRefused("it has no code")
        add_visits(found, self._visits.of(found.code))
        return found


def _visits(file: BinaryIO, reading: Reading) -> VisitDays:
    """Returns the visits of a dump, which is read once for them. Leaves the file at its begin."""
    visits, text = VisitDays(reading), open_text(file)

    @lru_cache(maxsize=DAYS_CACHED)
    def day_of(minute: str) -> date | None:
        with suppress(RowRefused):
            moment = time_of(minute, reading)
            return moment.date() if moment else None
        return None

    for row in inserted(text):
        columns = row.columns or LOG_COLUMNS
        if row.table.lower().endswith("log") and len(row.cells) == len(columns):
            cells = dict(zip(columns, row.cells, strict=True))
            code, day = cells.get("shorturl"), day_of((cells.get("click_time") or "")[:16])
            if code and day:
                visits.add(code, day)
    text.detach()
    file.seek(0)
    return visits


def _readable(cells: Sequence[str]) -> Sequence[str]:
    """Returns the cells, repaired where UTF-8 was once read as Latin-1."""
    if "".join(cells).isascii():
        return cells
    return [cell if cell.isascii() else _repaired(cell) for cell in cells]


def _repaired(text: str) -> str:
    try:
        return b"".join(map(_byte, text)).decode("utf-8")
    except UnicodeError:
        return text


def _byte(character: str) -> bytes:
    """Returns the byte that MySQL's `latin1` shows as a character: Windows-1252, else Latin-1."""
    try:
        return character.encode("cp1252")
    except UnicodeEncodeError:
        return character.encode("latin-1")


def _link(row: Row, link: Callable[[Row], Found]) -> Found:
    cells = _readable(row.cells)
    found = link(Row(row.place, cells, row.fault))
    if cells is not row.cells and list(cells) != list(row.cells):
        found.remarks.append("UTF-8 that was once read as Latin-1 is repaired")
    return found
