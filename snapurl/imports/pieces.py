"""Pieces: a file that arrives part by part, each read by itself, with the rows of the whole file. Pure.

Theory. A reader of CSV is in the same state at the begin of each row. So a piece is the header of the file, and
what follows from the begin of a row on. Its last row may go on in the next piece, and is left to that one unless
the file ends there. Whoever sends the pieces says where each begins, as the answer to the one before has told:
nobody keeps anything between two of them.

The visits in a dump of a database may be anywhere, so a dump is one piece, which is sent again for its next rows.
"""

from __future__ import annotations

import codecs
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import islice

from snapurl.imports.catalogue import SOURCES
from snapurl.imports.rows import FileRefused, Found, Reading, Row, RowRefused
from snapurl.imports.source import Source, TableSource
from snapurl.imports.yourls import YourlsDump, is_dump

PIECE_BYTES_MAX = 1_000_000
PIECE_ROWS_MAX = 1_000

_PLACE = re.compile(r"([0-9]{1,7})\.([0-9]{1,12})\.([0-9]{1,12})", re.ASCII)


@dataclass(frozen=True, slots=True)
class PiecePlace:
    """Where a piece begins: the bytes of the header, and how many rows and lines of the file are before it."""

    head: int = 0
    rows: int = 0
    lines: int = 0

    @classmethod
    def parse(cls, text: str) -> PiecePlace:
        """Raises ValueError for what is no place."""
        found = _PLACE.fullmatch(text)
        if found is None:
            raise ValueError("is no place in a file")
        return cls(*map(int, found.groups()))

    def __str__(self) -> str:
        return f"{self.head}.{self.rows}.{self.lines}"


@dataclass(frozen=True, slots=True)
class PieceRow:
    """A row, and the link that it is or why it is none. After it `used` bytes are done, and `then` comes."""

    row: Row
    found: Found | str
    used: int
    then: PiecePlace


@dataclass(frozen=True, slots=True)
class Piece:
    """The rows of a piece, as many as were asked for. `is_over`: they are the last ones of the file."""

    header: Sequence[str]
    rows: Sequence[PieceRow]
    is_over: bool


def read_piece(
    kind: str,
    body: bytes,
    place: PiecePlace,
    reading: Reading,
    *,
    is_last: bool,
    rows_max: int = PIECE_ROWS_MAX,
    bytes_max: int = PIECE_BYTES_MAX,
) -> Piece:
    """Reads a piece: the header, and what follows from `place` on, in UTF-8. The first one is as the file begins.

    Raises FileRefused.
    """
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(body, is_last)
    except UnicodeDecodeError:
        raise FileRefused("it is not text in UTF-8") from None
    if kind == "yourls" and is_dump(body) and not (is_last and place.head == 0):
        raise FileRefused(
            f"a dump of a database may have {bytes_max:,} bytes here: import this one with `snapurl import yourls`"
        )
    mark = len(codecs.BOM_UTF8) if body.startswith(codecs.BOM_UTF8) else 0
    text = text.removeprefix("\ufeff")
    source = SOURCES[kind](BytesIO(codecs.BOM_UTF8 + text.encode()), reading)
    if isinstance(source, YourlsDump):
        found, is_last = _of_dump(source, place), True
    else:
        assert isinstance(source, TableSource)
        found = _of_table(source, text, mark, place, is_last=is_last)
    rows = list(islice(found, rows_max + 1))
    if not rows and not is_last and len(body) >= bytes_max:
        raise FileRefused(f"one of its rows has more than {bytes_max:,} bytes: use `snapurl import`")
    return Piece(source.header, rows[:rows_max], is_last and len(rows) <= rows_max)


def _of_dump(source: YourlsDump, place: PiecePlace) -> Iterator[PieceRow]:
    for row in source.rows():
        if row.place > place.rows:
            yield PieceRow(row, _link(source, row), 0, PiecePlace(0, row.place, 0))


def _of_table(
    source: TableSource, text: str, mark: int, place: PiecePlace, *, is_last: bool
) -> Iterator[PieceRow]:
    """Yields the rows of which the text surely has the end. `mark` are the bytes before it. Raises FileRefused."""
    table = source.table
    read = table.chars_read
    head = used = mark + len(text[:read].encode())
    if place.head:
        if head != place.head:
            raise FileRefused("it is no longer the file whose import has begun")
        table.lines_left_out = place.lines - table.lines_read
    for row in source.rows():
        if not is_last and table.chars_read == len(text):
            return
        used += len(text[read : table.chars_read].encode())
        read = table.chars_read
        moved = Row(place.rows + row.place, row.cells, row.fault)
        then = PiecePlace(head, moved.place, table.lines_read)
        yield PieceRow(moved, _link(source, moved), used - place.head, then)


def _link(source: Source, row: Row) -> Found | str:
    try:
        return source.link(row)
    except RowRefused as refusal:
        return str(refusal)
