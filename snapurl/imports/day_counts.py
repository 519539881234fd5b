"""Clicks by day that `snapurl export statistics` has written, for the links of another file. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, date
from typing import BinaryIO

from snapurl.imports.cells import count, host, plain, time_of
from snapurl.imports.columns import name_of
from snapurl.imports.rows import FileRefused, Found, Reading, Row, RowRefused, VisitDays, add_visits
from snapurl.imports.source import Source
from snapurl.imports.table import CsvTable

COUNTS = (("clicks", "bots"), ("importedclicks", "importedbots"))


class WithDays:
    """A source whose links get the clicks of a file with days. Raises FileRefused."""

    def __init__(self, source: Source, file: BinaryIO, reading: Reading) -> None:
        self.header: Sequence[str] = source.header
        self._source = source
        self._visits = _read(file, reading)

    def rows(self) -> Iterator[Row]:
        """Yields the rows of the source. Raises FileRefused."""
        return self._source.rows()

    def link(self, row: Row) -> Found:
        """Returns the link of a row. Raises RowRefused."""
        found = self._source.link(row)
        if found.code is not None:
            add_visits(found, self._visits.of(f"{found.domain}/{found.code}"))
        return found


def _read(file: BinaryIO, reading: Reading) -> VisitDays:
    table = CsvTable(file)
    places = {name_of(name): place for place, name in enumerate(table.header)}
    if not {"code", "day", "clicks"} <= places.keys():
        raise FileRefused("the file with the days needs the columns code, day and clicks")
    visits = VisitDays(reading)

    def cell(row: Row, name: str) -> str:
        place = places.get(name)
        return plain(row.cells[place]) if place is not None and place < len(row.cells) else ""

    for row in table.rows():
        try:
            if row.fault:
                raise RowRefused(row.fault)
            day = _day(cell(row, "day"), reading)
            counts = [[_count(cell(row, name)) for name in names] for names in COUNTS]
        except RowRefused as refusal:
            raise FileRefused(f"row {row.place} of the file with the days: {refusal}") from None
        clicks, bots = (sum(numbers) for numbers in zip(*counts, strict=True))
        if clicks:
            key = f"{host(cell(row, 'domain'))}/{cell(row, 'code')}"
            visits.add(key, day, clicks=clicks, bots=min(bots, clicks))
    return visits


def _day(text: str, reading: Reading) -> date:
    moment = time_of(text, Reading(UTC, reading.now))
    if moment is None:
        raise RowRefused("it has no day")
    return moment.date()


def _count(text: str) -> int:
    remarks: list[str] = []
    found = count(text, remarks)
    if remarks:
        raise RowRefused(remarks[0])
    return found or 0
