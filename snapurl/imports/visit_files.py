"""Files of visits beside a file of links: Kutt's table `visits`, and the CSVs of visits that Shlink writes. Pure.

Kutt has a row per link and hour, which names the link by the number that it has in the table `links`. Shlink has a
row per visit; the URL that was visited says which link it was, so one file may have the visits of all links. Visits
of what is no link, and those of links that are not in the file of links, are left out.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import date
from functools import partial
from typing import BinaryIO

from snapurl.imports.cells import address, count, plain, time_of
from snapurl.imports.columns import name_of
from snapurl.imports.rows import FileRefused, Found, Reading, Row, RowRefused, VisitDays, add_visits
from snapurl.imports.source import Source
from snapurl.imports.table import CsvTable

Cell = Callable[[str], str]
"""Returns a cell of a row by the name of its column, "" if it has none."""


class NamedTable:
    """A CSV file whose cells are found by the names of their columns; `what` names it in a refusal.

    Raises FileRefused without one of the columns `needed`.
    """

    def __init__(self, file: BinaryIO, what: str, needed: Sequence[str]) -> None:
        self._table = CsvTable(file)
        self._what = what
        self._places = {name_of(name): place for place, name in enumerate(self._table.header)}
        if not set(map(name_of, needed)) <= self._places.keys():
            raise FileRefused(f"{what} needs the columns {', '.join(needed[:-1])} and {needed[-1]}")

    def read(self, take: Callable[[Cell], None]) -> None:
        """Calls `take` for each row. Raises FileRefused for one that cannot be read, or that it refuses."""
        for row in self._table.rows():
            try:
                if row.fault:
                    raise RowRefused(row.fault)
                take(partial(self._cell, row))
            except RowRefused as refusal:
                raise FileRefused(f"row {row.place} of {self._what}: {refusal}") from None

    def _cell(self, row: Row, name: str) -> str:
        place = self._places.get(name)
        return plain(row.cells[place]) if place is not None and place < len(row.cells) else ""


class WithVisits(ABC):
    """A source whose links get the visits of another file. Raises FileRefused."""

    def __init__(self, source: Source, reading: Reading) -> None:
        self.header: Sequence[str] = source.header
        self._source = source
        self._reading = reading
        self._visits = VisitDays(reading)

    def rows(self) -> Iterator[Row]:
        """Yields the rows of the source. Raises FileRefused."""
        return self._source.rows()

    def link(self, row: Row) -> Found:
        """Returns the link of a row. Raises RowRefused."""
        found = self._source.link(row)
        if found.code is not None:
            add_visits(found, self._days_of(row, found))
        return found

    @abstractmethod
    def _days_of(self, row: Row, found: Found) -> Mapping[date, tuple[int, int]] | None:
        """Returns the days of a link, None if it has no visits."""


class KuttVisits(WithVisits):
    """Kutt's table `visits`, as CSV."""

    def __init__(self, source: Source, file: BinaryIO, reading: Reading) -> None:
        super().__init__(source, reading)
        known = [name_of(name) for name in source.header]
        if "id" not in known:
            raise FileRefused("the file with the links needs the column id, which its visits name")
        self._place = known.index("id")
        table = NamedTable(file, "the file with the visits", ("link_id", "created_at", "total"))
        table.read(self._take)

    def _take(self, cell: Cell) -> None:
        day, total = day_of(cell("createdat"), self._reading), number_of(cell("total"))
        if total:
            self._visits.add(cell("linkid"), day, clicks=total)

    def _days_of(self, row: Row, found: Found) -> Mapping[date, tuple[int, int]] | None:
        link_id = plain(row.cells[self._place]) if self._place < len(row.cells) else ""
        return self._visits.of(link_id)


class ShlinkVisits(WithVisits):
    """A CSV of visits of Shlink's web client or command line."""

    def __init__(self, source: Source, file: BinaryIO, reading: Reading) -> None:
        super().__init__(source, reading)
        self._hosts: dict[str, set[str]] = defaultdict(set)  # by code
        self._rows = 0
        table = NamedTable(file, "the file with the visits", ("date", "visitedUrl"))
        table.read(self._take)
        if self._rows and not self._hosts:
            raise FileRefused(
                "the file with the visits does not say which links were visited: Shlink knows that of visits since "
                "its version 4.1; give its URL instead of a file"
            )

    def _take(self, cell: Cell) -> None:
        self._rows += 1
        day = day_of(cell("date"), self._reading)
        try:
            host, code = address(cell("visitedurl"))
        except RowRefused:
            return  # the visit of what is no link
        self._hosts[code].add(host)
        is_bot = cell("potentialbot").lower() not in ("", "false", "0", "no")
        self._visits.add(f"{host}/{code}", day, bots=int(is_bot))

    def _days_of(self, row: Row, found: Found) -> Mapping[date, tuple[int, int]] | None:
        """Where the file of links names no domain, the code has to be that of one domain alone."""
        host, code = found.domain, found.code or ""
        hosts = self._hosts.get(code, set())
        if not host and len(hosts) == 1:
            host = next(iter(hosts))
        return self._visits.of(f"{host}/{code}")


VISIT_FILES: Mapping[str, Callable[[Source, BinaryIO, Reading], Source]] = {
    "kutt": KuttVisits,
    "shlink": ShlinkVisits,
}
"""By the name of a source: what reads the visits of its links from another file."""


def day_of(text: str, reading: Reading) -> date:
    """Returns the UTC day of a time. Raises RowRefused."""
    moment = time_of(text, reading)
    if moment is None:
        raise RowRefused("it has no day")
    return moment.date()


def number_of(text: str) -> int:
    """Returns a number of clicks, 0 for an empty cell. Raises RowRefused."""
    remarks: list[str] = []
    found = count(text, remarks)
    if remarks:
        raise RowRefused(remarks[0])
    return found or 0
