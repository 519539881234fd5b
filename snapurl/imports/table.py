"""Tables of text: rows of a CSV file, whichever program has written it. Pure; memory is bounded by one row.

The encoding is that of the byte order mark, else UTF-16 if there are many NUL bytes, else UTF-8 if the whole file
is, else Windows-1252. The delimiter is what divides the header into the most columns.
"""

from __future__ import annotations

import codecs
import csv
from collections.abc import Callable, Iterator
from io import TextIOWrapper
from typing import BinaryIO

from snapurl.imports.rows import FileRefused, Row

READ_BYTES = 1_048_576
LINE_CHARS_MAX = 1_048_576
ROW_LINES_MAX = 1_000  # of one row, whose cells may have several
CELL_CHARS_MAX = 262_144
DELIMITERS = ",;\t|"
TORN = "the file ends in the midst of this row: it is not whole"
WIDE_SHARE = 5  # in UTF-16 every second byte is 0 where the text is Latin; a fifth of all is enough to tell

_MARKS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)


def encoding_of(file: BinaryIO) -> str:
    """Returns the encoding of a file, and leaves it at its begin. Reads it once."""
    file.seek(0)
    head = file.read(READ_BYTES)
    for mark, name in _MARKS:
        if head.startswith(mark):
            file.seek(0)
            return name
    high, low = head[1::2].count(0), head[::2].count(0)
    if max(high, low) * WIDE_SHARE > len(head):
        file.seek(0)
        return "utf-16-le" if high > low else "utf-16-be"
    found = "utf-8" if _is_utf_8(head, file) else "cp1252"
    file.seek(0)
    return found


def _is_utf_8(head: bytes, file: BinaryIO) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while head:
            decoder.decode(head)
            head = file.read(READ_BYTES)
        decoder.decode(b"", final=True)
    except UnicodeDecodeError:
        return False
    return True


def open_text(file: BinaryIO) -> TextIOWrapper:
    """Returns a file as text, with its line ends as they are. What no character stands for becomes U+FFFD."""
    return TextIOWrapper(file, encoding_of(file), errors="replace", newline="")


class CsvTable:
    """A CSV file: its `header`, and its rows. Raises FileRefused if it has no header."""

    def __init__(self, file: BinaryIO) -> None:
        self.lines_left_out = 0  # between the header and the rows, in a part of a file
        self._lines = _Lines(open_text(file))
        first = self._lines.first()
        self.delimiter = _delimiter(first)
        if first.startswith("sep=") and len(first.rstrip("\r\n")) == 5:
            self.delimiter = first[4]
        else:
            self._lines.put_back(first)
        csv.field_size_limit(CELL_CHARS_MAX)
        self._reader = csv.reader(self._lines, delimiter=self.delimiter)
        try:
            self.header = next(self._reader, [])
        except csv.Error as error:
            raise FileRefused(f"the first row cannot be read: {error}") from None
        if not any(self.header):
            raise FileRefused("the file is empty")

    @property
    def chars_read(self) -> int:
        """How many characters the rows so far have, with the header and what is before it."""
        return self._lines.chars_read

    @property
    def lines_read(self) -> int:
        """How many lines the rows so far have, with the header."""
        return self._reader.line_num + self.lines_left_out

    def rows(self) -> Iterator[Row]:
        """Yields the rows, without empty ones; one that cannot be read has a fault."""
        place = 0
        while True:
            began = self.lines_read + 1
            self._lines.begin_row()
            try:
                cells = next(self._reader)
            except StopIteration:
                return
            except csv.Error as error:
                place += 1
                last = self.lines_read
                where = f"line {began}" if last <= began else f"lines {began} to {last}"
                yield Row(place, (), f"{where} cannot be read: {error}: is a quote missing?")
                continue
            if any(cells):
                place += 1
                is_torn = len(cells) < len(self.header) and self._lines.is_torn
                yield Row(place, cells, TORN if is_torn else "")


class _Lines(Iterator[str]):
    """The lines of a text. Raises csv.Error for a row of too many, FileRefused for one that is too long."""

    def __init__(self, text: TextIOWrapper) -> None:
        self._read: Callable[[int], str] = text.readline
        self._kept: list[str] = []
        self._left = ROW_LINES_MAX
        self.chars_read = 0
        self.is_torn = False  # the last line has no end

    def first(self) -> str:
        """Returns the first line that is not empty."""
        return next((line for line in self if line.strip()), "")

    def put_back(self, line: str) -> None:
        self._kept.append(line)
        self.chars_read -= len(line)

    def begin_row(self) -> None:
        self._left = ROW_LINES_MAX

    def __next__(self) -> str:
        if self._kept:
            line = self._kept.pop()
            self.chars_read += len(line)
            return line
        line = self._read(LINE_CHARS_MAX)
        if not line:
            raise StopIteration
        self.chars_read += len(line)
        if len(line) == LINE_CHARS_MAX:
            raise FileRefused(f"a line has more than {LINE_CHARS_MAX:,} characters: this is no CSV file")
        self.is_torn = not line.endswith(("\n", "\r"))
        self._left -= 1
        if self._left < 0:
            raise csv.Error(f"it goes on for more than {ROW_LINES_MAX:,} lines")
        return line


def _delimiter(header: str) -> str:
    """Returns what divides a header into the most columns."""
    return max(DELIMITERS, key=lambda sign: len(next(csv.reader([header], delimiter=sign), [])))
