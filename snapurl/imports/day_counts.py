"""Clicks by day that `snapurl export statistics` has written, for the links of another file. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, date
from typing import BinaryIO

from snapurl.imports.cells import host
from snapurl.imports.rows import Found, Reading, Row
from snapurl.imports.source import Source
from snapurl.imports.visit_files import Cell, NamedTable, WithVisits, day_of, number_of

COUNTS = (("clicks", "bots"), ("importedclicks", "importedbots"))


class WithDays(WithVisits):
    """A source whose links get the clicks of a file with days. Raises FileRefused."""

    def __init__(self, source: Source, file: BinaryIO, reading: Reading) -> None:
        super().__init__(source, Reading(UTC, reading.now))
        table = NamedTable(file, "the file with the days", ("code", "day", "clicks"))
        table.read(self._take)

    def _take(self, cell: Cell) -> None:
        day = day_of(cell("day"), self._reading)
        counts = [[number_of(cell(name)) for name in names] for names in COUNTS]
        clicks, bots = (sum(numbers) for numbers in zip(*counts, strict=True))
        if clicks:
            key = f"{host(cell('domain'))}/{cell('code')}"
            self._visits.add(key, day, clicks=clicks, bots=min(bots, clicks))

    def _days_of(self, row: Row, found: Found) -> Mapping[date, tuple[int, int]] | None:
        return self._visits.of(f"{found.domain}/{found.code}")
