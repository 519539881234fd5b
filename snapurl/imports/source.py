"""A source: a file of another service, as rows and the links that they become. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import BinaryIO, Protocol

from snapurl.imports.columns import NAMES, Columns, Names
from snapurl.imports.rows import Found, Reading, Row, RowRefused
from snapurl.imports.table import CsvTable


class Source(Protocol):
    """A file that has been opened. `header` is what a file with its refused rows begins with."""

    header: Sequence[str]

    def rows(self) -> Iterator[Row]:
        """Yields the rows in their order. Raises FileRefused where the file cannot be read on."""

    def link(self, row: Row) -> Found:
        """Returns the link of a row. Raises RowRefused."""


class TableSource:
    """A CSV file of which every column is found by its name. Raises FileRefused.

    `tag_separator` is how the source separates tags, "" if that is not known. `needs_code`: each of its links has a
    code. `shared_hosts` are not the users' own, so they are no domain.
    """

    names: Names = NAMES
    tag_separator = ""
    needs_code = True
    shared_hosts: frozenset[str] = frozenset()

    def __init__(self, file: BinaryIO, reading: Reading) -> None:
        self.table = CsvTable(file)
        self.header: Sequence[str] = self.table.header
        self._columns = Columns(self.header, reading, self.names)

    def rows(self) -> Iterator[Row]:
        """Yields the rows in their order."""
        return self.table.rows()

    def link(self, row: Row) -> Found:
        """Returns the link of a row. Raises RowRefused."""
        if row.fault:
            raise RowRefused(row.fault)
        found = self._columns.link(row.cells, self.tag_separator)
        if found.code is None and self.needs_code:
            raise RowRefused("it has no code")
        if found.domain in self.shared_hosts:
            found.domain = ""
        return found
